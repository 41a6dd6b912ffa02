"""How values of any type become 8 bits, and whether they make use of their type's range."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.common.errors import InputError

INTENSITIES = ("full", "percentile")
SMALL_SHARE = 1 / 8  # of the type's range; 12 bits in uint16 use 1 / 16, a dark picture rarely less than this


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


def small_range_warnings(brightest: Sequence[int] | np.ndarray) -> list[str]:
    """A warning where images use a small share of their type's range; ``brightest`` are their highest uint8 values."""
    shares = np.asarray(brightest, np.float64) / 255
    small = shares[shares < SMALL_SHARE]
    if not len(small):
        return []
    return [
        f"warning: {len(small)} of {len(shares)} images use at most {small.max():.1%} of their type's range, as 10 or"
        " 12 bits in a 16-bit file do; --intensity percentile spreads them over 8 bits"
    ]
