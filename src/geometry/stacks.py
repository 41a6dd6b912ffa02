"""The masks of many objects in one array, so that they are traced and measured together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.geometry.instances import Instance

MOST_OBJECTS = 1000  # of a stack, which then fits a processor's cache
MOST_PIXELS = 1 << 23  # of a stack, unless one object alone has more


@dataclass(frozen=True)
class Stack:
    """Masks one below another, each with a border of zeros around it.

    ``pixels`` (R, W) uint8 is 0 or 1. The mask of object i begins at row ``rows[i]``, column 1; ``places`` (N, 2) int64
    are the left and the top px of the objects in their image.
    """

    pixels: np.ndarray
    rows: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, instances: Sequence[Instance]) -> "Stack":
        """Stack the masks of objects."""
        heights = np.array([one.mask.shape[0] for one in instances], np.int64)
        width = max((one.mask.shape[1] for one in instances), default=0)
        ends = np.cumsum(heights + 1)
        pixels = np.zeros((int(heights.sum()) + len(instances) + 1, width + 2), np.uint8)
        for one, end in zip(instances, ends.tolist(), strict=True):
            height, width = one.mask.shape
            pixels[end - height : end, 1 : width + 1] = one.mask
        places = np.array([(one.left, one.top) for one in instances], np.int64).reshape(-1, 2)
        return cls(pixels, ends - heights, places)

    @cached_property
    def border(self) -> np.ndarray:
        """``(R, W)`` uint8: 1 at the px of masks that have a px outside of the mask above, below, left or right."""
        pixels, border = self.pixels, np.zeros_like(self.pixels)
        inside = pixels[:-2, 1:-1] & pixels[2:, 1:-1] & pixels[1:-1, :-2] & pixels[1:-1, 2:]
        border[1:-1, 1:-1] = pixels[1:-1, 1:-1] & ~inside
        return border

    @cached_property
    def border_places(self) -> tuple[np.ndarray, np.ndarray]:
        """``(B,)`` places of the px of the borders in the flat array, sorted, and the object that each belongs to."""
        places = np.flatnonzero(self.border == 1)
        return places, self.objects_at(places // self.pixels.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def objects_at(self, rows: np.ndarray) -> np.ndarray:
        """Which object each of some rows, from 1 on, belongs to; the row above a mask belongs to the object before."""
        return np.searchsorted(self.rows, rows, side="right") - 1


def in_batches(instances: Iterable[Instance]) -> Iterator[list[Instance]]:
    """Objects in lists whose stack is small, in their order."""
    batch: list[Instance] = []
    rows = width = 0
    for one in instances:
        rows, width = rows + one.mask.shape[0] + 1, max(width, one.mask.shape[1] + 2)
        if batch and (len(batch) == MOST_OBJECTS or rows * width > MOST_PIXELS):
            yield batch
            batch, rows, width = [], one.mask.shape[0] + 1, one.mask.shape[1] + 2
        batch.append(one)
    if batch:
        yield batch
