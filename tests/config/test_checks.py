"""What flags alone can tell is refused at once: torch is never imported."""

import subprocess
import sys

import pytest

from src.common.errors import InputError
from src.config.checks import check_prediction, check_training
from src.config.flags import build
from src.config.settings import InferenceConfig, TrainConfig
from tests.sources import ROOT

WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tile_size": 128, "overlap": 64}, "--predict-overlap must be at least 0 and below --tile-size 128, got 128"),
        ({"tile_size": 128, "predict_overlap": 64}, "--overlap must be at least 0 and below --tile-size 128, got 256"),
        ({"anchors": "8,16,32"}, "--anchors: expected five sides"),
        ({"anchors": "8,16,32,64,x"}, "--anchors: 'x' is not a number"),
        ({"anchors": "0,16,32,64,128"}, "--anchors: expected five sides of at least 1 px"),
        ({"loss_weights": "boxes=2"}, "--loss-weights: 'boxes' is not one of"),
        ({"loss_weights": "box=-1"}, "--loss-weights: -1 is not"),
        ({"class_weights": "1,2", "num_classes": 3}, "--class-weights: expected 3 numbers"),
        ({"class_weights": "many"}, "--class-weights: 'many' is not a number"),
        ({"detector": "v2", "backbone": "resnet18"}, "--detector v2 needs"),
        ({"weights": "coco", "backbone": "resnet18"}, "--weights coco exists for"),
        ({"amp": "fp16", "device": "cpu"}, "--amp fp16 needs"),
    ],
)
def test_training_flags_are_refused_by_name(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_training(build(TrainConfig, values))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"amp": "fp16", "device": "cpu"}, "--amp fp16 needs"),
        ({"export": "weights.pt"}, "--export weights.pt: takes one --ckpt"),
        ({"export": "w.safetensors", "ckpt": ["a.pt", "b.pt"]}, "--export w.safetensors: takes one --ckpt"),
    ],
)
def test_prediction_flags_are_refused_by_name(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_prediction(build(InferenceConfig, values))
    assert words in str(caught.value)


def test_what_can_work_passes() -> None:
    check_training(TrainConfig())
    check_training(build(TrainConfig, {"class_weights": "1,2,3", "anchors": "8,16,32,64,128", "amp": "fp16"}))
    check_prediction(InferenceConfig())


@pytest.mark.parametrize(
    ("script", "flags", "flag"),
    [
        ("main.py", ["--tile-size", "128", "--overlap", "64"], "--predict-overlap"),
        ("inference.py", ["--amp", "fp16", "--device", "cpu"], "--amp"),
        ("dataset.py", ["--preview", "tiles", "--anchors", "8"], "--anchors"),
    ],
)
def test_scripts_refuse_before_torch_is_imported(script: str, flags: list[str], flag: str) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, script, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {flag}") and done.stderr.count("\n") == 1
