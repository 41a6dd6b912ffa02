"""Tissue as the regions of a GeoJSON file, as QuPath exports annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.formats.readers.qupath import classification
from src.geometry.polygons import Ring, fill
from src.slides.slide import Level, Slide
from src.slides.tissue import Box, Region, Tissue, thumbnail

Polygons = list[list[Ring]]  # the rings of each polygon, the outer one first
Regions = list[tuple[Polygons, str]]  # with their names


def read_tissue(slide: Slide, path: Path) -> Tissue:
    """The regions of a GeoJSON file, in px of the full magnification; where some overlap, the smallest is the region.

    Raises:
        InputError: no polygons, or one that lies outside of the slide.
    """
    found = read_regions(path)
    check_regions(found, path, slide)
    picture, full = thumbnail(slide), slide.levels[0]
    found.sort(key=lambda one: -sum(map(_area, one[0])))
    labels = np.zeros(picture.shape[:2], np.int32)
    factor = np.array([picture.shape[1] / full.width, picture.shape[0] / full.height])
    for number, (polygons, _) in enumerate(found, start=1):
        for rings in polygons:
            _draw(labels, [ring * factor for ring in rings], number)
    return Tissue(
        labels, picture, full, [Region(_box(polygons, full), name, is_drawn=True) for polygons, name in found]
    )


def read_regions(path: Path) -> Regions:
    """The regions of a GeoJSON file.

    Raises:
        InputError: it cannot be read, or holds no polygons.
    """
    return _features(read_json(path), path)


def check_regions(regions: Regions, path: Path, slide: Slide) -> None:
    """Refuse regions of a file of which one lies outside of a slide.

    Raises:
        InputError: naming both.
    """
    full = slide.levels[0]
    if any(_is_outside(rings[0], full) for polygons, _ in regions for rings in polygons):
        raise InputError(f"{path}: a region lies outside of {slide.path}, which is {full.height} x {full.width} px")


def _is_outside(ring: Ring, full: Level) -> bool:
    return bool((ring.max(axis=0) <= 0).any() or (ring.min(axis=0) >= (full.width, full.height)).any())


def _draw(labels: np.ndarray, rings: Sequence[Ring], number: int) -> None:
    """Give the px of a polygon its number; one that holds the centre of no px gets the px that holds its own."""
    outer, *holes = (ring - 0.5 for ring in rings)
    drawn = fill(outer, 1, *labels.shape)
    if drawn is None:
        row, column = np.rint((outer.min(axis=0) + outer.max(axis=0))[::-1] / 2).astype(int)
        labels[min(max(row, 0), len(labels) - 1), min(max(column, 0), labels.shape[1] - 1)] = number
        return
    mask = drawn.mask.copy()
    for hole in holes:
        inner = fill(hole - (drawn.left, drawn.top), 1, *mask.shape)
        if inner:
            mask[inner.top : inner.bottom, inner.left : inner.right] &= ~inner.mask
    labels[drawn.top : drawn.bottom, drawn.left : drawn.right][mask] = number


def _box(polygons: Polygons, full: Level) -> Box:
    corners = np.concatenate([rings[0] for rings in polygons]).clip(0, (full.width, full.height))
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    return int(left), int(top), int(right), int(bottom)


def _area(rings: Sequence[Ring]) -> float:
    """The area of a polygon without its holes (shoelace formula)."""
    outer, *holes = (abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2 for x, y in (r.T for r in rings))
    return outer - sum(holes)


def _features(data: Any, path: Path) -> Regions:
    """The polygons and the name of each feature of a GeoJSON object that has polygons."""
    found: Regions = []
    try:
        for feature in data.get("features", [data]) if isinstance(data, dict) else data:
            polygons = [
                [np.array([point[:2] for point in ring], float) for ring in rings]
                for rings in _coordinates(feature.get("geometry", feature))
            ]
            if polygons:
                found.append((polygons, _name(feature)))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: is not GeoJSON with polygons") from error
    rings = [ring for polygons, _ in found for polygon in polygons for ring in polygon]
    if not rings or not all(polygons and all(polygons) for polygons, _ in found) or not all(map(_is_ring, rings)):
        raise InputError(f"{path}: holds no polygon, or one that cannot be drawn")
    return found


def _coordinates(geometry: Mapping[str, Any]) -> list[Any]:
    """The coordinates of each polygon of a geometry, which may be a collection; none of a line or a point."""
    match geometry["type"]:
        case "Polygon":
            return [geometry["coordinates"]]
        case "MultiPolygon":
            return list(geometry["coordinates"]) or [[]]  # nothing, which cannot be drawn
        case "GeometryCollection":
            return [rings for part in geometry["geometries"] for rings in _coordinates(part)]
    return []


def _name(feature: Mapping[str, Any]) -> str:
    """The name of a region, else that of its class, else nothing."""
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        return ""
    name = properties.get("name")
    return (name.strip() if isinstance(name, str) else "") or classification(properties.get("classification"))[0] or ""


def _is_ring(ring: np.ndarray) -> bool:
    return ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 and bool(np.isfinite(ring).all())
