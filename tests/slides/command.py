"""``inference.py`` with a stand-in for the network, as a command: ``python -m tests.slides.command FLAGS``.

By variables of the environment: ``TILES`` px of a tile, ``PER_SHARD`` tiles of a shard, ``COUNT`` a file that gets the
number of tiles of each batch and at last the growth of the peak of memory in bytes, ``SLOW`` seconds per batch.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import inference
from src.common.errors import run_command
from src.config.checks import check_prediction
from src.config.command import parse
from src.config.settings import ImageSettings, InferenceConfig, PredictSettings
from src.data.classes import name_classes
from src.engine import slide_prediction
from src.engine.prediction import Predictor
from tests.slides.scenes import DarkFinder

SETTINGS = PredictSettings(
    predict_overlap=24, predict_batch_size=4, one_class_per_cell=True, score_thresh=0.05, min_score=0.5
)


class CountingFinder(DarkFinder):
    """Counts the tiles that it is given."""

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        note(str(len(tiles)))
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().forward(tiles)


def note(line: str) -> None:
    """Append a line to the file of ``COUNT``."""
    if "COUNT" in os.environ:
        with Path(os.environ["COUNT"]).open("a") as file:
            file.write(f"{line}\n")


def load(config: InferenceConfig, device: torch.device) -> tuple[Predictor, Any]:
    """In place of a checkpoint's."""
    trained = replace(ImageSettings(), mpp=0.5)
    size = int(os.environ.get("TILES", "64"))
    checkpoint = SimpleNamespace(
        config=SimpleNamespace(image=trained), classes=name_classes(["upright", "lying"]), statistics=None
    )
    return Predictor([CountingFinder()], device, None, trained, size, SETTINGS), checkpoint


def peak_bytes(which: str = "VmHWM") -> int:
    """The peak of this process's memory, or what it uses now (``VmRSS``)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(which)), 0)


def main(arguments: list[str]) -> None:
    """Predict slides as ``inference.py`` does."""
    sys.argv = ["inference.py", *arguments]
    slide_prediction.TILES_PER_SHARD = int(os.environ.get("PER_SHARD", "8"))
    inference.load_predictor = load
    inference.job = lambda config, amp: [str(amp)]
    config = parse(InferenceConfig, "", check_prediction, recipe=True)
    before = peak_bytes("VmRSS")
    try:
        run_command(lambda: inference.main(config))
    finally:
        note(f"peak {peak_bytes() - before}")


if __name__ == "__main__":
    main(sys.argv[1:])
