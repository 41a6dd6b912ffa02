"""The weights that come along work as their card says."""

from pathlib import Path

import pytest

import inference
from src.config.flags import build
from src.config.settings import InferenceConfig
from src.engine.checkpoint import read_checkpoint

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
    assert 200 <= found <= 300  # by eye about 250
