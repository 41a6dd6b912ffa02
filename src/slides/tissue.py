"""Where a slide shows tissue, so that the rest is not predicted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.geometry.polygons import fill
from src.geometry.tiles import Tile
from src.slides.slide import Level, Slide

SIDE = 2048  # px, at most, of the longer side of the picture that is judged
LEAST_SATURATION = 18  # of 255; glass and scanned paper have less, the palest stained tissue more
LEAST_SPOT = 16  # px of that picture; smaller spots are dust
Regions = list[list[np.ndarray]]  # polygons


@dataclass(frozen=True)
class Tissue:
    """A map of a slide at low magnification: ``mask`` (h, w) bool is the tissue, ``picture`` (h, w, 3) uint8 RGB."""

    mask: np.ndarray
    picture: np.ndarray
    full: Level

    def shows(self, tile: Tile, scales: tuple[float, float]) -> bool:
        """Whether a tile, in px of the slide scaled by ``scales`` (height, width), touches tissue."""
        down, across = self.mask.shape[0] / self.full.height, self.mask.shape[1] / self.full.width
        top, bottom = int(tile.top / scales[0] * down), int(np.ceil(tile.bottom / scales[0] * down))
        left, right = int(tile.left / scales[1] * across), int(np.ceil(tile.right / scales[1] * across))
        return bool(self.mask[top : max(bottom, top + 1), left : max(right, left + 1)].any())

    @property
    def share(self) -> float:
        """The share of the slide that is tissue."""
        return float(self.mask.mean())


def thumbnail(slide: Slide, side: int = SIDE) -> np.ndarray:
    """The whole slide as a picture of at most ``side`` px, ``(h, w, 3)`` uint8 RGB, read in strips."""
    full = slide.levels[0]
    factor = min(side / max(full.height, full.width), 1.0)
    height, width = max(round(full.height * factor), 1), max(round(full.width * factor), 1)
    fine = [index for index, level in enumerate(slide.levels) if level.height >= height and level.width >= width]
    number = fine[-1] if fine else 0
    level = slide.levels[number]
    rows = max(1, min(height, int(2**24 / max(level.width * level.height / height, 1))))  # bounds the memory
    strips = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = int(top * level.height / height), max(int(bottom * level.height / height), 1)
        strip = slide.read(number, first, 0, max(last - first, 1), level.width)
        strips.append(cv2.resize(strip, (width, bottom - top), interpolation=cv2.INTER_AREA))
    return np.concatenate(strips)


def find_tissue(slide: Slide) -> Tissue:
    """Tissue is what is more coloured than the glass: Otsu's threshold of the saturation, without dust."""
    picture = thumbnail(slide)
    saturation = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1], 5)
    otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = (saturation > max(min(otsu, 60), LEAST_SATURATION)).astype(np.uint8)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    large = np.flatnonzero(boxes[:, cv2.CC_STAT_AREA] >= LEAST_SPOT)
    return Tissue(np.isin(labels, large[large > 0]), picture, slide.levels[0])


def all_tissue(slide: Slide) -> Tissue:
    """The whole slide."""
    picture = thumbnail(slide)
    return Tissue(np.ones(picture.shape[:2], bool), picture, slide.levels[0])


def read_tissue(slide: Slide, path: Path) -> Tissue:
    """The regions of a GeoJSON file, in px of the full magnification, as QuPath exports annotations.

    Raises:
        InputError: no polygons, or one that lies outside of the slide.
    """
    regions, full = read_regions(path), slide.levels[0]
    check_regions(regions, path, slide)
    picture = thumbnail(slide)
    mask = np.zeros(picture.shape[:2], bool)
    factor = np.array([picture.shape[1] / full.width, picture.shape[0] / full.height])
    for outer, *holes in regions:
        region = np.zeros_like(mask)
        _draw(region, outer * factor, True)
        for hole in holes:
            _draw(region, hole * factor, False)
        mask |= region
    return Tissue(mask, picture, full)


def read_regions(path: Path) -> Regions:
    """The polygons of a GeoJSON file: the rings ``(N, 2)`` of x and y of each, the outer one first.

    Raises:
        InputError: it cannot be read, or holds no polygons.
    """
    return _polygons(read_json(path), path)


def check_regions(regions: Regions, path: Path, slide: Slide) -> None:
    """Refuse regions of a file of which one lies outside of a slide.

    Raises:
        InputError: naming both.
    """
    full = slide.levels[0]
    for outer, *_ in regions:
        if (outer.max(axis=0) <= 0).any() or (outer.min(axis=0) >= (full.width, full.height)).any():
            raise InputError(f"{path}: a region lies outside of {slide.path}, which is {full.height} x {full.width} px")


def _draw(mask: np.ndarray, corners: np.ndarray, value: bool) -> None:
    drawn = fill(corners - 0.5, 1, *mask.shape)
    if drawn:
        mask[drawn.top : drawn.bottom, drawn.left : drawn.right][drawn.mask] = value


def _polygons(data: Any, path: Path) -> Regions:
    found: list[Any] = []
    try:
        for feature in data.get("features", [data]) if isinstance(data, dict) else data:
            geometry = feature.get("geometry", feature)
            if geometry["type"] == "Polygon":
                found.append(geometry["coordinates"])
            elif geometry["type"] == "MultiPolygon":
                found += geometry["coordinates"]
        polygons = [[np.array([point[:2] for point in ring], float) for ring in rings] for rings in found]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: is not GeoJSON with polygons") from error
    if not polygons or not all(_is_ring(ring) for rings in polygons for ring in rings):
        raise InputError(f"{path}: holds no polygon, or one that cannot be drawn")
    return polygons


def _is_ring(ring: np.ndarray) -> bool:
    return ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 and bool(np.isfinite(ring).all())
