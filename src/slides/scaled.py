"""A slide at the magnification that the network was trained with, read a tile at a time.

The pixels do not depend on where tiles are cut: each is computed from its own place in the slide. Where the slide is
reduced, a pixel is the mean of the area that it covers; where it is enlarged, it is linear between the pixels around.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.common.errors import InputError
from src.data.prepared import scaled_size
from src.geometry.tiles import Tile
from src.slides.slide import Level, Slide

MOST_ENLARGED = 2.5  # beyond, what is seen is interpolation


@dataclass(frozen=True)
class ScaledSlide:
    """A slide resized by ``scale``, from the smallest of its levels that is at least as large."""

    slide: Slide
    scale: float

    def __post_init__(self) -> None:
        if self.scale > MOST_ENLARGED:
            raise InputError(
                f"{self.slide.path}: would be enlarged {self.scale:.3g} times to the magnification of the training,"
                f" and more than {MOST_ENLARGED:g} is refused (--mpp, --scale)"
            )

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width after scaling: those of a level where both differ by 1 px at most, by another rounding."""
        full = self.slide.levels[0]
        height, width = scaled_size(full.height, full.width, self.scale)

        def difference(level: Level) -> int:
            return max(abs(level.height - height), abs(level.width - width))

        nearest = min(self.slide.levels, key=difference)
        return (nearest.height, nearest.width) if difference(nearest) <= 1 else (height, width)

    @cached_property
    def level(self) -> int:
        """The level that is read."""
        height, width = self.size
        fine = [
            number for number, level in enumerate(self.slide.levels) if level.height >= height and level.width >= width
        ]
        return fine[-1] if fine else 0

    def read(self, tile: Tile) -> np.ndarray:
        """A tile in px after scaling, ``(h, w, 3)`` uint8 RGB."""
        number = self.level
        level, (height, width) = self.slide.levels[number], self.size
        if (level.height, level.width) == (height, width):
            return self.slide.read(number, tile.top, tile.left, tile.height, tile.width)
        rows = Taps.of(tile.top, tile.height, height, level.height)
        columns = Taps.of(tile.left, tile.width, width, level.width)
        pixels = self.slide.read(number, rows.first, columns.first, rows.needed, columns.needed)
        scaled = columns.apply(rows.apply(pixels).swapaxes(0, 1)).swapaxes(0, 1)
        return np.ascontiguousarray(np.rint(scaled).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Taps:
    """Which px of a side, from ``first`` on, make each of N px of the scaled side, and how much each counts.

    ``places`` (N, T) count from ``first``, and ``shares`` (N, T) float32 sum to 1 in each row.
    """

    first: int
    places: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, start: int, count: int, length: int, source: int) -> "Taps":
        """Those of ``count`` px from ``start`` on, of a side of ``source`` px that becomes ``length`` px."""
        factor = source / length
        begin = np.arange(start, start + count) * factor
        if factor >= 1:  # the mean over the area that a px covers
            low, high = begin, np.minimum(begin + factor, source)
        else:  # linear between the centres around its own: the mean over a whole px about it
            middle = np.clip(begin + factor / 2, 0.5, source - 0.5)
            low, high = middle - 0.5, middle + 0.5
        places = np.floor(low).astype(int)[:, None] + np.arange(int(np.ceil(max(factor, 1))) + 1)
        shares = (np.minimum(high[:, None], places + 1) - np.maximum(low[:, None], places)).clip(min=0)
        first = int(places[0, 0])
        places = np.minimum(places, source - 1) - first
        return cls(first, places, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))

    @property
    def needed(self) -> int:
        """How many px are read, from ``first`` on."""
        return int(self.places.max()) + 1

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The scaled px ``(N, …)`` float32 of ``(needed, …)``, uint8 or float32."""
        total = np.zeros((len(self.places), *pixels.shape[1:]), np.float32)
        for places, shares in zip(self.places.T, self.shares.T, strict=True):
            total += pixels[places] * shares[:, None, None]
        return total
