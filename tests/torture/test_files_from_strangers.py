"""TIFF files that are damaged or made to harm: each is read, or refused in a line that names it; nothing crashes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.errors import InputError
from src.tiff import read_header, read_image
from tests.torture import mutants

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"


def run_mutants(folder: Path, count: int, seed: int) -> dict[str, int]:
    """The outcomes of a run in a process of its own."""
    arguments = [sys.executable, "-m", "tests.torture.mutants", str(folder), str(count), str(seed)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"the reader ended the process: {done.stderr.splitlines()[-1:]}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["longest_s"] <= mutants.SECONDS
    return dict(result["counts"])


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutants_are_read_or_refused(tmp_path: Path, count: int) -> None:
    counts = run_mutants(tmp_path, count, seed=count)
    assert set(counts) <= {"same", "other pixels", "refused"}
    assert sum(counts.values()) == count and counts["refused"] > count / 4


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data are absent")
def test_mutants_of_real_files_are_read_or_refused(tmp_path: Path) -> None:
    for folder in sorted((REAL / "hw3-format/train").iterdir()):
        for path in folder.glob("*.tif"):
            (tmp_path / folder.name).mkdir(exist_ok=True)
            (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    counts = run_mutants(tmp_path, 1000, seed=1)
    assert set(counts) <= {"same", "other pixels", "refused"} and sum(counts.values()) == 1000


def test_the_mutants_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lets its library's errors through would be found."""
    monkeypatch.setattr(mutants, "read_header", lambda path: read_header(path) and tifffile.imread(path) is None)
    monkeypatch.setattr(mutants, "read", lambda path, is_mask: tifffile.imread(path))
    found = set()
    for _, _, damaged, _, is_mask in mutants.attempts(tmp_path, 100, 0):
        (tmp_path / "mutant.tiff").write_bytes(damaged)
        found.add(mutants.outcome(tmp_path / "mutant.tiff", is_mask, np.zeros(1)).split(":")[0])
    assert "escaped" in found


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((20_000, 20_000), np.uint8), compression="zlib", metadata=None)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"bomb\.tif: is 20000 x 20000 px; more than 100000000 px"):
        read_image(path)
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.zeros((30, 40), np.uint8), metadata=None)
    with pytest.raises(InputError, match="more than 1000 px"):
        read_image(small, max_pixels=1000)


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), metadata=None)
    whole = path.read_bytes()
    for tag in (256, 257):  # width and height, each a SHORT or LONG in its directory entry
        place = next(i for i in range(len(whole)) if whole[i : i + 2] == tag.to_bytes(2, "little") and i > 7)
        entry = tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
        whole = whole[:place] + entry + (10**6).to_bytes(4, "little") + whole[place + 12 :]
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"huge\.tif: is 1000000 x 1000000 px"):
        read_header(path)
