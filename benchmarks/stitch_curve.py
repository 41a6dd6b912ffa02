"""CPU time of stitching (one thread) against the number of detections: ``python -m benchmarks.stitch_curve``."""

import time

import cv2
import numpy as np

from src.common.errors import run
from src.config.command import Parser
from src.geometry.instances import Instance, clip, tight
from src.geometry.stitch import stitch
from src.geometry.tiles import Tile, tile_grid

TILE_SIZE, OVERLAP, SPACING = 512, 256, 34


def ellipse(rng: np.random.Generator) -> np.ndarray:
    """A filled ellipse of 20 to 40 px as a ``(44, 44)`` bool mask."""
    canvas = np.zeros((44, 44), np.uint8)
    axes = tuple(float(axis) for axis in rng.uniform(20, 40, 2))
    cv2.ellipse(canvas, ((22.0, 22.0), axes, float(rng.uniform(0, 180))), 1, -1)
    return canvas.astype(bool)


def detect(rng: np.random.Generator, side: int, tiles: list[Tile]) -> list[list[Instance]]:
    """What each tile sees of cells on a jittered lattice, every view off by up to 1 px and with a score of its own."""
    shapes = [ellipse(rng) for _ in range(50)]
    places = np.mgrid[0 : side - 44 : SPACING, 0 : side - 44 : SPACING].reshape(2, -1).T.copy()
    places += rng.integers(0, 4, places.shape)
    categories = rng.integers(1, 5, len(places))
    detections = []
    for tile in tiles:
        inside = (places + 44 > (tile.top, tile.left)) & (places < (tile.bottom, tile.right))
        views = []
        for cell in np.flatnonzero(inside.all(axis=1)):
            top, left = (places[cell] + rng.integers(-1, 2, 2)).tolist()
            score, mask = float(rng.random()), shapes[cell % len(shapes)]
            view = tight(int(categories[cell]), score, max(top, 0), max(left, 0), mask)
            views.append(view and clip(view, tile.top, tile.left, tile.bottom, tile.right))
        detections.append([view for view in views if view])
    return detections


def main() -> None:
    """Print one line for each size."""
    parser = Parser(
        __doc__, "python -m benchmarks.stitch_curve --counts 1000 10000", "python -m benchmarks.stitch_curve"
    )
    sizes = [1000, 3000, 10_000, 30_000, 100_000]
    parser.add_argument("--counts", type=int, nargs="+", default=sizes, help="detections (default: 1000 to 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of where they lie (default: 0)")
    args = parser.parse_args()
    print("detections  tiles  objects  seconds  us/detection")
    for count in args.counts:
        # A cell in the middle of the image lies in four tiles.
        side = max(round(SPACING * np.sqrt(count / 4)), TILE_SIZE)
        tiles = tile_grid(side, side, TILE_SIZE, OVERLAP)
        detections = detect(np.random.default_rng(args.seed), side, tiles)
        total = sum(map(len, detections))
        start = time.process_time()
        objects = stitch(tiles, detections, side, side)
        seconds = time.process_time() - start
        print(f"{total:10d} {len(tiles):6d} {len(objects):8d} {seconds:8.3f} {seconds / total * 1e6:13.1f}")


if __name__ == "__main__":
    run(main)
