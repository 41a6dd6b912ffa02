"""The tiles of many images at once, and which of them hold boxes.

Time and memory grow with the number of tiles and of boxes, not with their product. Coordinates are pixels, max
exclusive.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_BLOCK = 1 << 20  # boxes at a time, to bound memory


@dataclass(frozen=True, eq=False)
class TileGrids:
    """The grids of tiles that :func:`src.geometry.tiles.tile_grid` lays over N images.

    ``sizes`` (N, 2) int64 are the (H, W) of the images. The T tiles are numbered image by image, row by row.
    """

    sizes: np.ndarray
    tile_size: int
    overlap: int

    def tiles(self) -> np.ndarray:
        """``(T, 5)`` int32: the index of each tile's image, its top, left, height and width."""
        counts = self._shape.prod(axis=1)
        image = np.repeat(np.arange(len(counts)), counts)
        row, column = np.divmod(np.arange(len(image)) - self._first_tile[image], self._shape[image, 1])
        corner = np.minimum(np.stack([row, column], axis=1) * self._stride, self._last_start[image])
        size = np.minimum(self.sizes, self.tile_size)[image]
        return np.concatenate([image[:, None], corner, size], axis=1).astype(np.int32)

    def find_boxes(self, images: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the tiles that hold any box.

        Args:
            images: ``(M,)`` the index of each box's image.
            boxes: ``(M, 4)`` xyxy, not empty and inside the image.

        Returns:
            ``(T,)`` bool, whether a tile holds a whole box, and ``(T,)`` bool, whether it overlaps one.
        """
        whole, overlapping = np.zeros((2, int(self._shape.prod(axis=1).sum())), bool)
        for start in range(0, len(boxes), _BLOCK):
            image, block = images[start : start + _BLOCK], boxes[start : start + _BLOCK].astype(np.int64)
            low, high = block[:, 1::-1], block[:, :1:-1]  # (M, 2) of rows and columns
            self._mark(whole, image, high - self.tile_size, low)
            self._mark(overlapping, image, low - self.tile_size + 1, high - 1)
        return whole, overlapping

    def _mark(self, marks: np.ndarray, image: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> None:
        """Mark the tiles of images that start from ``lowest`` to ``highest``, each ``(M, 2)`` of rows and columns."""
        shape, last = self._shape[image], self._last_start[image]
        first = np.minimum(-(-np.maximum(lowest, 0) // self._stride), shape - 1)
        end = np.where(highest >= last, shape, highest // self._stride + 1)
        number = self._first_tile[image] + first[:, 0] * shape[:, 1] + first[:, 1]
        height, width = np.maximum(end - first, 0).T
        for row in range(height.max(initial=0)):
            here = np.flatnonzero((height > row) & (width > 0))
            for column in range(width[here].max(initial=0)):
                here = here[width[here] > column]
                marks[number[here] + row * shape[here, 1] + column] = True

    @cached_property
    def _stride(self) -> int:
        return self.tile_size - self.overlap

    @cached_property
    def _last_start(self) -> np.ndarray:
        """``(N, 2)`` where the last row and column of tiles begin."""
        return np.maximum(self.sizes - self.tile_size, 0)

    @cached_property
    def _shape(self) -> np.ndarray:
        """``(N, 2)`` numbers of rows and columns of tiles."""
        return -(-self._last_start // self._stride) + 1

    @cached_property
    def _first_tile(self) -> np.ndarray:
        """``(N,)`` the number of each image's first tile."""
        counts = self._shape.prod(axis=1)
        return np.cumsum(counts) - counts
