"""The weights that come along work as their card says, on pictures and on slides."""

import json
from pathlib import Path

import pytest

import inference
from src.common.errors import InputError
from src.config.flags import build
from src.config.settings import InferenceConfig
from src.data.tiff import read_image
from src.engine.checkpoint import read_checkpoint
from tests.slides.scenes import write_pyramid

pytestmark = pytest.mark.torch
WEIGHTS = Path(__file__).parents[1] / "weights"


def test_the_weights_find_most_nuclei_of_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = WEIGHTS / "he-nuclei.safetensors"
    checkpoint = read_checkpoint(path)
    assert path.stat().st_size <= 20e6 and len(checkpoint.classes) == 4
    assert (checkpoint.config.image.mpp, checkpoint.config.predict.min_score) == (0.25, 0.25)
    given = {"ckpt": [str(path)], "test_dir": str(WEIGHTS / "example"), "mpp": 0.499, "device": "cpu", "amp": "off"}
    inference.main(build(InferenceConfig, {**given, "output": str(tmp_path / "r.json"), "overlay": str(tmp_path)}))
    said = capsys.readouterr().out
    assert "stained otherwise" not in said and "median cell" not in said and (tmp_path / "cmu-1.png").is_file()
    found = int((tmp_path / "r.counts.csv").read_text().splitlines()[1].split(",")[-1])
    assert 220 <= found <= 300  # by eye about 270


def slides_config(folder: Path, output: object, **more: object) -> InferenceConfig:
    given = {"ckpt": [str(WEIGHTS / "he-nuclei.safetensors")], "device": "cpu", "amp": "off", "slide_pixels": 10_000}
    return build(InferenceConfig, {**given, "test_dir": str(folder), "output": str(output), **more})


def test_slides_become_folders_and_one_that_fails_gives_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the resolution in the file's tags, in the order of colours of the file, whatever order training had."""
    (example,) = (WEIGHTS / "example").glob("*.tif")
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    write_pyramid(slides / "a.tif", read_image(example)[:200, :250], mpp=0.499)
    inference.main(slides_config(slides, out))
    summary = json.loads((out / "a" / "summary.json").read_text())
    assert summary["scale"] == pytest.approx(1.996) and summary["cells"]["all"] > 5
    (slides / "b.svs").write_bytes(b"no slide")
    with pytest.raises(SystemExit) as stopped:
        inference.main(slides_config(slides, out))
    said = capsys.readouterr().out
    assert stopped.value.code == 1 and "is finished" in said and "1 of 2 slides failed" in said and "b.svs" in said
    inference.main(slides_config(slides, out, shard="1/2"))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"output": "r.json"}, "--output r.json"),
        ({"tissue": "atuo"}, "--tissue atuo"),
        ({"whole_image": True}, "--whole-image"),
        ({"overlay": "o"}, "--overlay"),
        ({"intensity": "full"}, "--intensity"),
        ({"shard": "3/2"}, "--shard 3/2"),
        ({"slide_pixels": None, "shard": "1/2"}, "--shard"),
        ({"slide_pixels": None, "tissue": "all"}, "--tissue"),
    ],
)
def test_flags_that_do_not_fit_slides_or_images_are_refused(
    tmp_path: Path, flags: dict[str, object], word: str
) -> None:
    write_pyramid(tmp_path / "a.tif", read_image(next((WEIGHTS / "example").glob("*.tif")))[:120, :120])
    with pytest.raises(InputError, match=word):
        inference.main(slides_config(tmp_path, **{"output": tmp_path / "out", **flags}))
