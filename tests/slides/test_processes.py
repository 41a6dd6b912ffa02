"""Several processes over one folder of slides: torchrun, shards, and the same run twice."""

from pathlib import Path

import pytest

from tests.slides.running import content, run, start
from tests.slides.scenes import picture, write_pyramid

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides, the second of which is broken."""
    folder = tmp_path_factory.mktemp("processes") / "slides"
    folder.mkdir()
    for number, name in enumerate("acd"):
        write_pyramid(folder / f"{name}.tif", picture(200, 300, number))
    (folder / "b.tif").write_bytes(b"II*\0 broken")
    return folder


@pytest.fixture(scope="module")
def whole(slides: Path) -> dict[str, object]:
    """What one process makes of them."""
    out = slides.parent / "whole"
    code, said, _ = run(slides, out)
    assert code == 1 and said.count("1 of 4 slides failed") == 1
    found = content(out)
    assert {name.split("/")[0] for name in found} == {"a", "c", "d"}
    return found


def test_torchrun_shares_slides_and_lists_those_that_failed_once(
    slides: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    child = start(slides, tmp_path / "out", before=torchrun)
    said, complained = child.communicate(timeout=300)
    assert child.returncode == 1, complained
    assert said.count("1 of 4 slides failed") == 1
    assert content(tmp_path / "out") == whole


def test_shards_at_the_same_time_are_complete_together_and_do_not_mix(
    slides: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    """The second shard is predicted by two runs: of each slide one predicts it, the other leaves it or is told so."""
    children = [start(slides, tmp_path / "out", "--shard", shard, SLOW=0.05) for shard in ("1/2", "2/2", "2/2")]
    said = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 1, 1] and not any("Traceback" in text for _, text in said)
    assert content(tmp_path / "out") == whole
    lines = [line for text, _ in said for line in text.splitlines()]
    for name in "acd":
        assert sum(line.startswith(f"{slides / name}.tif: ") and " tiles, in " in line for line in lines) == 1
