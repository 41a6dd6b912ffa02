"""Where the tiles of an image lie. Coordinates are pixels of the image that is tiled, max exclusive."""

from dataclasses import dataclass

import numpy as np

FILL = (124, 116, 104)  # the mean colour of ImageNet, RGB: what most pretrained networks see as zero


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of an image: rows ``top … top + height - 1``, columns ``left … left + width - 1``."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below the tile."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column right of the tile."""
        return self.left + self.width

    def resized(self, side: float, height: int, width: int) -> "Tile":
        """A square of ``side`` px about the centre of this tile, moved and cut to lie in a ``height × width`` image."""
        size = max(round(side), 1)
        top = min(max(round(self.top + (self.height - size) / 2), 0), max(height - size, 0))
        left = min(max(round(self.left + (self.width - size) / 2), 0), max(width - size, 0))
        return Tile(top, left, min(size, height), min(size, width))

    def unscaled(self, scales: tuple[float, float], height: int, width: int) -> "Tile":
        """This tile of a scaled image in pixels of the unscaled ``height × width`` image, rounded, never empty.

        ``scales`` are the factors by which the height and the width were scaled.
        """
        down, across = scales
        top, left = min(round(self.top / down), height - 1), min(round(self.left / across), width - 1)
        bottom, right = min(round(self.bottom / down), height), min(round(self.right / across), width)
        return Tile(top, left, max(bottom - top, 1), max(right - left, 1))


def tile_grid(height: int, width: int, size: int, overlap: int) -> list[Tile]:
    """Cover a ``height × width`` image with tiles, row by row.

    Neighbours share at least ``overlap`` px. The last tile of a row or column shifts back to keep its full size; along
    a side shorter than ``size`` there is one tile, as long as the side.

    Raises:
        ValueError: unless ``0 <= overlap < size``.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"the overlap of tiles of {size} px must be at least 0 and below that, got {overlap}")
    return [
        Tile(top, left, min(size, height), min(size, width))
        for top in _starts(height, size, overlap)
        for left in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def pad_to(array: np.ndarray, size: int, value: int | tuple[int, ...] = FILL) -> np.ndarray:
    """Pad an ``(h, w, C)`` tile with ``value`` on the right and below to ``(size, size, C)``."""
    if array.shape[:2] == (size, size):
        return array
    padded = np.full((size, size, array.shape[2]), value, array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded
