"""A slide: an image at several magnifications that is read a region at a time."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

StoredTile = tuple[int, int]  # its level, and its number there
WHITE = 255  # of what is not stored, was not scanned or does not decode
LEAST_MPP, MOST_MPP = 0.05, 5.0  # µm per px; a tag that says something else is not believed
MOST_STRETCHED = 1.1  # times that the px of a slide may be as long as they are wide, or the reverse


@dataclass(frozen=True)
class Level:
    """One magnification: its size in px."""

    height: int
    width: int


class Slide(Protocol):
    """What all readers of slides offer. Several threads may read at once.

    ``levels`` starts with the full magnification; ``mpp`` is its resolution in µm per px by the file's tags, ``None``
    where they do not say it or say nonsense.
    """

    @property
    def path(self) -> Path:
        """The slide's file."""

    @property
    def levels(self) -> Sequence[Level]:
        """The magnifications, largest first."""

    @property
    def mpp(self) -> float | None:
        """Resolution of the first level in µm per px."""

    @property
    def broken(self) -> Set[StoredTile]:
        """The stored tiles that could not be decoded so far; they read as white."""

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A region of a level, ``(height, width, 3)`` uint8 RGB, within the level."""

    def forget_tiles(self) -> None:
        """Give up the memory of decoded tiles that are kept for neighbouring regions."""

    def close(self) -> None:
        """Close the file."""


def plausible_mpp(values: Sequence[float | None]) -> float | None:
    """The mean of the resolutions along x and y, where both are known, plausible and alike."""
    known = [value for value in values if value is not None and LEAST_MPP <= value <= MOST_MPP]
    if not known or len(known) < len(values) or max(known) > MOST_STRETCHED * min(known):
        return None
    return sum(known) / len(known)
