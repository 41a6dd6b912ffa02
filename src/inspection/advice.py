"""Settings that suit a data folder, from the sizes and numbers of its cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.geometry.anchors import auto_anchors
from src.geometry.tiles import tile_grid

GOOD_SIZE = (15.0, 50.0)  # px; median cells of this size are learned well without magnification
WANTED_SIZE = 28.0  # px; what others are scaled to
TILE_SIZES = (256, 384, 512)
ROOM = 1.3  # how many more detections than the most cells in any tile


@dataclass(frozen=True)
class ImageCells:
    """The cells of one image: ``boxes`` (N, 4) xyxy in px, max exclusive, and the image's size."""

    height: int
    width: int
    boxes: np.ndarray


@dataclass(frozen=True)
class Advice:
    """Settings that suit a data set."""

    scale: float
    tile_size: int
    overlap: int
    anchors: str
    detections_per_tile: int
    proposals: int
    most_cells: int

    def flags(self) -> str:
        """As flags of ``main.py``; the overlap is for training and for prediction."""
        return (
            f"--scale {self.scale:g} --tile-size {self.tile_size} --overlap {self.overlap}"
            f" --predict-overlap {self.overlap} --anchors {self.anchors}"
            f" --detections-per-tile {self.detections_per_tile} --proposals {self.proposals}"
        )


def advise(images: Sequence[ImageCells]) -> Advice:
    """Settings from the cells of all images, of which there is at least one.

    The scale brings the median cell to a size that is learned well. Tiles are as large as most images, up to 512 px.
    They overlap by what all but the largest cells span, so that each of those is whole in some tile.
    """
    spans = np.concatenate([image.boxes[:, 2:] - image.boxes[:, :2] for image in images])
    median = float(np.median(np.sqrt(spans.prod(axis=1))))
    scale = 1.0 if GOOD_SIZE[0] <= median <= GOOD_SIZE[1] else round(min(max(WANTED_SIZE / median, 0.05), 16), 2)
    longest = np.median([max(image.height, image.width) * scale for image in images])
    tile_size = next((size for size in TILE_SIZES if longest <= size), TILE_SIZES[-1])
    overlap = min(-(-int(np.quantile(spans.max(axis=1), 0.995) * scale) // 32) * 32, tile_size // 2)
    most = max(most_cells(image, scale, tile_size, overlap) for image in images)
    detections = max(-(-int(most * ROOM) // 100) * 100, 100)
    proposals = max(2000, 4 * detections)
    return Advice(scale, tile_size, overlap, auto_anchors(median * scale), detections, proposals, most)


def most_cells(image: ImageCells, scale: float, size: int, overlap: int) -> int:
    """The most cells whose centre lies in one tile."""
    centre = (image.boxes[:, :2] + image.boxes[:, 2:]) / 2 * scale
    tiles = tile_grid(max(round(image.height * scale), 1), max(round(image.width * scale), 1), size, overlap)
    inside = [
        (centre >= (tile.left, tile.top)).all(axis=1) & (centre < (tile.right, tile.bottom)).all(axis=1)
        for tile in tiles
    ]
    return max(int(np.count_nonzero(which)) for which in inside)
