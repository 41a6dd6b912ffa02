"""Where a slide shows tissue, so that the rest is not predicted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from src.common.errors import InputError
from src.geometry.tiles import Tile
from src.slides.slide import WHITE, Level, Slide

MAP_PIXELS = 2**22  # of the picture that is judged, at most, whatever the slide's shape
LEAST_SATURATION = 18  # of 255; glass and scanned paper have less, the palest stained tissue more
GREY_RANGE = 32  # of 255; a picture without colour that varies less shows glass
LEAST_SPOT = 16  # px of that picture; smaller spots are dust

Box = tuple[int, int, int, int]  # left, top, right, bottom in px of the full magnification, the last two exclusive


@dataclass(frozen=True)
class Region:
    """A part of the tissue: its box, its name, and whether it was drawn by hand.

    Without a name it is called after its place.
    """

    box: Box
    name: str = ""
    is_drawn: bool = False

    @property
    def title(self) -> str:
        """Its name, else its place."""
        left, top, right, bottom = self.box
        return self.name or f"x {left} to {right}, y {top} to {bottom}"


@dataclass(frozen=True)
class Tissue:
    """A map of a slide at low magnification.

    ``labels`` (h, w) int32 says which of the ``regions``, counted from 1, each px belongs to; 0 is no tissue.
    ``picture`` is (h, w, 3) uint8 RGB. ``full`` is the size of the slide, and the regions are the largest first.
    """

    labels: np.ndarray
    picture: np.ndarray
    full: Level
    regions: Sequence[Region]

    @cached_property
    def mask(self) -> np.ndarray:
        """``(h, w)`` bool: where there is tissue."""
        return self.labels > 0

    @property
    def scale(self) -> np.ndarray:
        """``(2,)`` px of the map per px of the slide, along x and y."""
        height, width = self.labels.shape
        return np.array([width / self.full.width, height / self.full.height])

    def pixels_at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the map's px that hold ``places`` (N, 2), x and y in px of the slide, corners at 0."""
        height, width = self.labels.shape
        columns, rows = (places * self.scale).astype(np.int64).T
        return rows.clip(0, height - 1), columns.clip(0, width - 1)

    def shows(self, tile: Tile, scales: tuple[float, float]) -> bool:
        """Whether a tile, in px of the slide scaled by ``scales`` (height, width), touches tissue."""
        across, down = self.scale
        top, bottom = int(tile.top / scales[0] * down), int(np.ceil(tile.bottom / scales[0] * down))
        left, right = int(tile.left / scales[1] * across), int(np.ceil(tile.right / scales[1] * across))
        return bool(self.mask[top : max(bottom, top + 1), left : max(right, left + 1)].any())

    @property
    def share(self) -> float:
        """The share of the slide that is tissue."""
        return float(self.mask.mean())


def thumbnail(slide: Slide, pixels: int = MAP_PIXELS) -> np.ndarray:
    """The whole slide as a picture of about ``pixels`` px at most, ``(h, w, 3)`` uint8 RGB, read in strips.

    Raises:
        InputError: there are broken stored tiles, and nothing but white is seen.
    """
    full = slide.levels[0]
    factor = min(math.sqrt(pixels / (full.height * full.width)), 1.0)
    height, width = max(round(full.height * factor), 1), max(round(full.width * factor), 1)
    fine = [index for index, level in enumerate(slide.levels) if level.height >= height and level.width >= width]
    number = fine[-1] if fine else 0
    level = slide.levels[number]
    rows = max(1, min(height, int(2**22 / max(level.width * level.height / height, 1))))  # bounds the memory
    strips = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = int(top * level.height / height), max(int(bottom * level.height / height), 1)
        strip = slide.read(number, first, 0, max(last - first, 1), level.width)
        strips.append(cv2.resize(strip, (width, bottom - top), interpolation=cv2.INTER_AREA))
    slide.forget_tiles()
    picture = np.concatenate(strips)
    if slide.broken and (picture == WHITE).all():
        raise InputError(f"{slide.path}: shows nothing, because its stored tiles do not decode")
    return picture


def find_tissue(slide: Slide) -> Tissue:
    """Tissue is what is more coloured than the glass: Otsu's threshold of the saturation, without dust.

    Raises:
        InputError: the slide shows something, but no colour.
    """
    picture = thumbnail(slide)
    if np.ptp(picture) > GREY_RANGE and (picture == picture[..., :1]).all():
        raise InputError(f"{slide.path}: is grey, and --tissue auto finds tissue by its colour; pass --tissue all")
    saturation = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1], 5)
    otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = (saturation > max(min(otsu, 60), LEAST_SATURATION)).astype(np.uint8)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = boxes[:, cv2.CC_STAT_AREA]
    large = sorted(np.flatnonzero(areas[1:] >= LEAST_SPOT) + 1, key=lambda label: -areas[label])
    number = np.zeros(len(boxes), np.int32)
    number[large] = np.arange(1, len(large) + 1)
    full, shape = slide.levels[0], labels.shape
    return Tissue(number[labels], picture, full, [Region(_in_full(boxes[label], full, shape)) for label in large])


def _in_full(box: np.ndarray, full: Level, shape: tuple[int, int]) -> Box:
    """A box of a map, its left, top, width and height, in px of the full magnification."""
    across, down = full.width / shape[1], full.height / shape[0]
    left, top, width, height = box[:4].tolist()
    return (int(left * across), int(top * down), math.ceil((left + width) * across), math.ceil((top + height) * down))


def all_tissue(slide: Slide) -> Tissue:
    """The whole slide."""
    picture, full = thumbnail(slide), slide.levels[0]
    return Tissue(np.ones(picture.shape[:2], np.int32), picture, full, [Region((0, 0, full.width, full.height))])
