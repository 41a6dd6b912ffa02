"""Write the files of many cells, as a slide's, in a process of its own."""

import json
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks import material
from benchmarks.slide_material import GLASS, MPP
from src.data.classes import name_classes
from src.data.id_map import ImageId
from src.geometry.instances import Instance
from src.geometry.stitch import Stitcher
from src.geometry.tiles import Tile
from src.slides.outputs import SlideInfo, write_outputs
from src.slides.shards import Shards
from src.slides.slide import Level
from src.slides.tissue import Region, Tissue

SIDE = 100_000  # px of the slide
PER_SHARD = 25_000


def shards_of(count: int) -> Iterator[list[Instance]]:
    """Cells of four classes, in shards."""
    some = material.cells(np.random.default_rng(0), 6000, 6000, PER_SHARD)
    share = (0.1, 0.2, 0.3, 0.4)
    for number in range(-(-count // PER_SHARD)):
        row, column = divmod(number, SIDE // 6000)
        yield [
            replace(cell, score=0.9, top=cell.top + row * 6000, left=cell.left + column * 6000, probabilities=share)
            for cell in some[: count - number * PER_SHARD]
        ]


def main(place: str, cells: str) -> None:
    """Write the shards, then the files, and print seconds and memory of the files as JSON."""
    folder, count = Path(place), int(cells)
    cv2.setNumThreads(1)
    shutil.rmtree(folder, ignore_errors=True)
    shards = Shards(folder / "shards", "benchmark")
    for part in shards_of(count):
        shards.add(part, Stitcher([Tile(0, 0, SIDE, SIDE)], SIDE, SIDE).state)
    picture = np.full((2048, 2048, 3), GLASS, np.uint8)
    whole = Region((0, 0, SIDE, SIDE))
    tissue = Tissue(np.ones(picture.shape[:2], np.int32), picture, Level(SIDE, SIDE), [whole])
    info = SlideInfo(ImageId("slide.tif", 1, SIDE, SIDE), MPP, name_classes(["a", "b", "c", "d"]), tissue)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.monotonic(), time.process_time()
    written = sum(write_outputs(folder / "slide", info, shards, 0.5, {}).values())
    seconds = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = {path.name: path.stat().st_size for path in sorted((folder / "slide").iterdir())}
    print(json.dumps({"cells": written, **seconds, "memory_mb": (most - before) / 1e3, "bytes": sizes}))
