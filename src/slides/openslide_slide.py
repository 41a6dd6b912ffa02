"""Slides of scanners (SVS, NDPI, MRXS, SCN, BIF, DICOM, Philips …), read through OpenSlide."""

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import cv2
import numpy as np

from src.common.errors import InputError
from src.slides.slide import WHITE, Level, StoredTile, plausible_mpp

CACHED_BYTES = 32 * 2**20  # of decoded tiles, as OpenSlide takes itself


class OpenSlideSlide:
    """A slide that OpenSlide opens. Where it says what part of the slide was scanned, only that part is the image."""

    def __init__(self, path: Path, file: Path | None = None) -> None:
        """Open a slide; ``file`` is the one of its files that OpenSlide is given, if absent ``path`` itself."""
        import openslide

        self.path = path
        self.broken: Set[StoredTile] = frozenset()
        try:
            self._slide = openslide.OpenSlide(file or path)
        except openslide.OpenSlideError as error:
            raise InputError(f"{path}: cannot be read by OpenSlide ({error})") from error
        properties = self._slide.properties
        self._left, self._top, width, height = _scanned(properties, *self._slide.dimensions)
        self._downsamples = self._slide.level_downsamples
        if (width, height) == self._slide.dimensions:
            sizes = list(self._slide.level_dimensions)
        else:
            sizes = [(max(int(width / down), 1), max(int(height / down), 1)) for down in self._downsamples]
        self.levels: Sequence[Level] = [Level(rows, columns) for columns, rows in sizes]
        values = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        self.mpp = plausible_mpp([_number(value) for value in values])

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def forget_tiles(self) -> None:
        """Give up the memory of decoded tiles that are kept for neighbouring regions."""
        import openslide

        self._slide.set_cache(openslide.OpenSlideCache(CACHED_BYTES))

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A region of a level, ``(height, width, 3)`` uint8 RGB; what was not scanned is white.

        Raises:
            InputError: the file does not decode; OpenSlide reads nothing more of it afterwards.
        """
        import openslide

        down = self._downsamples[level]
        corner = (self._left + round(left * down), self._top + round(top * down))
        try:
            pixels = np.asarray(self._slide.read_region(corner, level, (width, height)))
        except openslide.OpenSlideError as error:
            raise InputError(f"{self.path}: does not decode ({error})") from error
        if pixels[..., 3].min() == 255:
            return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
        alpha = pixels[..., 3:].astype(np.uint16)
        return np.asarray((pixels[..., :3] * alpha + WHITE * (255 - alpha)) // 255, np.uint8)


def scanner_of(path: Path) -> str | None:
    """The maker of the scanner that wrote a file, as OpenSlide calls it; ``None`` of files that it does not tell."""
    import openslide

    found = openslide.OpenSlide.detect_format(path)
    return None if found == "generic-tiff" else found


def _scanned(properties: Mapping[str, str], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of what was scanned of a slide, cut to it; all of it where that is not said."""
    bounds = []
    for axis, side, most in (("x", "width", width), ("y", "height", height)):
        start, length = (_number(properties.get(f"openslide.bounds-{name}")) for name in (axis, side))
        first = min(max(int(start or 0), 0), most)
        last = most if length is None else min(int(start or 0) + int(length), most)
        bounds.append((first, last - first) if last > first else (0, most))
    (left, across), (top, down) = bounds
    return left, top, across, down


def _number(text: str | None) -> float | None:
    try:
        number = None if text is None else float(text)
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None
