"""How busy a fast network is while a slide is predicted.

Run as a process of its own, it lets a slow network find the cells once, prints ``ready``, waits for a line, predicts
the slide with a fast one that finds the same, and prints what it took as JSON. ``benchmarks.slides`` runs it.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

from benchmarks.slide_material import Finder
from benchmarks.slide_work import OVERLAP, TILE, predictor
from src.engine import slide_prediction
from src.slides.finding import open_slide
from src.slides.scaled import ScaledSlide
from src.slides.shards import Shards
from src.slides.tissue import find_tissue

SECONDS_PER_BATCH = 0.002
Outputs = list[dict[str, Tensor]]


class Recorder(nn.Module):
    """A network that keeps what another one finds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.outputs: list[Outputs] = []

    def forward(self, tiles: Tensor) -> Outputs:
        """What the other network finds in a batch."""
        self.outputs.append(self.network(tiles))
        return self.outputs[-1]


class Replayer(nn.Module):
    """A network that is as fast as a GPU: it waits, and gives what was found in the batch of this number."""

    def __init__(self, outputs: list[Outputs]) -> None:
        super().__init__()
        self._outputs: Iterator[Outputs] = iter(outputs)
        self.seconds = 0.0

    def forward(self, tiles: Tensor) -> Outputs:
        """What was found, after a while in which the cores are free."""
        time.sleep(SECONDS_PER_BATCH)
        self.seconds += SECONDS_PER_BATCH
        return next(self._outputs)


def main(slide: str, folder: str, readers: str) -> None:
    """Predict a slide with at most so many threads that read."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    recorder = Recorder(Finder())
    run(Path(slide), Path(folder), recorder, int(readers))
    print("ready", flush=True)
    sys.stdin.readline()
    replayer = Replayer(recorder.outputs)
    wall, cpu = run(Path(slide), Path(folder), replayer, int(readers))
    print(json.dumps({"wall": wall, "cpu": cpu, "network": replayer.seconds}))


def run(path: Path, folder: Path, network: nn.Module, readers: int) -> tuple[float, float]:
    """Predict the tiles of a slide; wall and CPU time in s."""
    shutil.rmtree(folder, ignore_errors=True)
    slide = open_slide(path)
    scaled = ScaledSlide(slide, 1.0)
    tiles = slide_prediction.choose_tiles(scaled, find_tissue(slide), TILE, OVERLAP)
    slide_prediction.MOST_READERS = readers
    wall, cpu = time.monotonic(), time.process_time()
    slide_prediction.predict_slide(predictor(network), scaled, tiles, Shards(folder, "benchmark"))
    slide.close()
    return time.monotonic() - wall, time.process_time() - cpu
