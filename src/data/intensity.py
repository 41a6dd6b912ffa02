"""How values of any type become 8 bits, and whether they make use of their type's range."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.common.errors import InputError, counted

INTENSITIES = ("full", "percentile")
SMALL_RANGE = 64  # of 255 grey levels; 14 bits in uint16 use as many
ALL_LEVELS = 255  # what is noted of a file of 8 bits, whose range is its own
TAIL = 0.001  # of the values at either end are left out of a range …
TAIL_PIXELS = 10  # … and at least those of so many pixels: dead and hot ones


def check_intensity(intensity: str) -> None:
    """Refuse a mapping that :func:`to_uint8` does not know."""
    if intensity not in INTENSITIES:
        raise InputError(f"--intensity must be {' or '.join(INTENSITIES)}, got {intensity}")


def to_uint8(pixels: np.ndarray, intensity: str, path: str | Path) -> np.ndarray:
    """Map an image of any shape to uint8; uint8 stays as it is.

    - ``full``: the type's range from 0 (65535 → 255 for uint16); floats must lie in [0, 1].
    - ``percentile``: the 0.1 and 99.9 percentile of the whole image, all channels together.

    Raises:
        InputError: NaN or infinite values, and values outside the range that ``full`` maps; it names ``path``.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{path}: holds NaN or infinite values")
    values = pixels.astype(np.float64)
    low, high = np.percentile(values, (0.1, 99.9)) if intensity == "percentile" else (0.0, _full_scale(pixels, path))
    values -= low
    values *= 255 / (high - low) if high > low else 0
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)


def _full_scale(pixels: np.ndarray, path: str | Path) -> float:
    """The value that becomes 255; zero becomes 0."""
    highest = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0
    if pixels.min() < 0 or pixels.max() > highest:
        found = f"{pixels.min():g} to {pixels.max():g}"
        raise InputError(
            f"{path}: {pixels.dtype} values from {found} are outside 0 to {highest:g};"
            " --intensity percentile reads them"
        )
    return highest


def used_levels(image: np.ndarray) -> int:
    """How many of 255 grey levels lie between the dark and the bright end of an ``(H, W, 3)`` uint8 image."""
    counts = np.sum([np.bincount(part, minlength=256) for part in _parts(image)], axis=0)
    tail = max(TAIL * image.size, TAIL_PIXELS * image.shape[-1])
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])
    if below[-1] <= 2 * tail:
        tail = 0
    low, high = int(np.argmax(below > tail)), 255 - int(np.argmax(above > tail))
    return max(high - low, 0)


def _parts(image: np.ndarray) -> list[np.ndarray]:
    """The values in parts, since counting takes eight times the memory of what is counted."""
    return np.array_split(image.reshape(-1), max(image.size >> 20, 1))


def small_range_warnings(levels: Sequence[int] | np.ndarray) -> list[str]:
    """A warning where images use few grey levels; ``levels`` are their :func:`used_levels`.

    For files of 8 bits they are :data:`ALL_LEVELS`: what uses few of these may be a dark picture, and no other reading
    of the file shows more.
    """
    levels = np.asarray(levels, np.int64)
    small = levels[levels <= SMALL_RANGE]
    if not len(small):
        return []
    return [
        f"warning: {len(small)} of {counted(len(levels), 'image')} with at most {small.max()} of 255 grey levels in use"
        f" ({small.max() / 255:.1%} of the range of their type, which has more than 8 bits), as 10 to 14 bits in a"
        " 16-bit file have; --intensity percentile spreads them"
    ]
