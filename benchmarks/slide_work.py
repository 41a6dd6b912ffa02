"""Predict made slides with a stand-in for the network, in a process of its own.

It predicts a small slide, so that everything is imported, prints ``ready``, waits for a line, predicts the slide, and
prints what it took as JSON. ``benchmarks.slides`` runs it.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import torch

from benchmarks.slide_material import Finder
from src.config.settings import ImageSettings, PredictSettings
from src.data.classes import name_classes
from src.engine.prediction import Predictor
from src.engine.slide_options import SlideOptions
from src.engine.slide_run import predict_slides

TILE, OVERLAP, BATCH = 512, 64, 4
CLASSES = name_classes(["blue", "purple"])


def predictor(network: torch.nn.Module) -> Predictor:
    """A predictor with the tiles that the measurements are about."""
    settings = PredictSettings(
        predict_overlap=OVERLAP, predict_batch_size=BATCH, one_class_per_cell=True, score_thresh=0.05, min_score=0.5
    )
    return Predictor([network], torch.device("cpu"), None, ImageSettings(), TILE, settings)


def options(output: Path) -> SlideOptions:
    """How the slides are predicted."""
    return SlideOptions(output, "auto", None, 1.0, ImageSettings(), "benchmark")


def main(warm_up: str, slide: str, output: str) -> None:
    """Predict both slides; exit code 1 where one fails."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # so that the thread of the stand-in has all of its seconds
    network = Finder()
    failed = predict_slides(predictor(network), CLASSES, [Path(warm_up)], options(Path(output) / "warm-up"))
    print("ready", flush=True)
    sys.stdin.readline()
    start = (time.monotonic(), time.process_time(), network.seconds)
    failed |= predict_slides(predictor(network), CLASSES, [Path(slide)], options(Path(output)))
    wall, cpu, of_network = (
        now - then for now, then in zip((time.monotonic(), time.process_time(), network.seconds), start, strict=True)
    )
    print(json.dumps({"wall": wall, "cpu": cpu, "network": of_network}))
    sys.exit(bool(failed))
