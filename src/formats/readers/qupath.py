"""The objects of QuPath in GeoJSON files."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.formats.drawn import Drawn, hex_color, to_ring
from src.geometry.polygons import Ring, count_inside

KINDS = ("annotation", "detection", "cell")  # objects that may be cells
REGION, IGNORED = "region*", "ignore*"  # QuPath's names for regions that are no cells


@dataclass(frozen=True, eq=False)
class Feature:
    """An object whose kind is one of ``KINDS``, as a file holds it.

    ``class_name`` is ``None`` where it is not classified. ``color`` is ``#rrggbb``, where its class has one.
    ``geometry`` is GeoJSON that is yet to be checked; ``is_whole`` tells a cell that has a nucleus apart from it.
    """

    kind: str
    class_name: str | None
    color: str | None
    geometry: Any
    is_whole: bool = False

    @property
    def is_ignored(self) -> bool:
        """Whether it is a region to ignore."""
        return _base(self.class_name) == IGNORED

    def drawn(self, dropped: Counter[str]) -> Drawn | None:
        """Its polygons; ``None`` without any. What has no area is counted."""
        polygons = list(_polygons(self.geometry, dropped))
        return Drawn(self.class_name, polygons, is_ignored=self.is_ignored) if polygons else None


def read_objects(path: Path, nuclei: bool, dropped: Counter[str]) -> list[tuple[Feature, Drawn]]:
    """The objects of a file that are cells, or regions to ignore, with their polygons; what is left out is counted.

    People draw an annotation around the place in which QuPath detects cells: one that holds several detections is no
    cell. Nor is one without a class that holds several other annotations.
    """
    features = _features(path, nuclei, dropped)
    found = [(feature, drawn) for feature in features if (drawn := feature.drawn(dropped))]
    is_annotation = np.array([feature.kind == "annotation" for feature, _ in found], bool)
    if not is_annotation.any():
        return found
    centers = np.array([drawn.polygons[0][0].mean(axis=0) for _, drawn in found])
    detections, annotations = (_by_x(centers[chosen]) for chosen in (~is_annotation, is_annotation))
    cells = []
    for feature, drawn in found:
        if feature.kind == "annotation" and not feature.is_ignored:
            holds_annotations = feature.class_name is None and _held(drawn, annotations, 3) > 2  # itself is one
            if holds_annotations or _held(drawn, detections, 2) > 1:
                dropped["annotation around other objects"] += 1
                continue
        cells.append((feature, drawn))
    return cells


def _by_x(points: np.ndarray) -> np.ndarray:
    return points[np.argsort(points[:, 0])]


def _held(drawn: Drawn, points: np.ndarray, enough: int) -> int:
    """How many of some points, which are sorted by x, lie in the polygons of an object, counted up to ``enough``."""
    count = 0
    for rings in drawn.polygons:
        low, high = np.searchsorted(points[:, 0], (rings[0][:, 0].min(), rings[0][:, 0].max()))
        count += count_inside(rings, points[low:high], enough)
    return min(count, enough)


def _features(path: Path, nuclei: bool, dropped: Counter[str]) -> list[Feature]:
    """The objects of a file that may be cells, or regions to ignore; what is left out is counted.

    With ``nuclei`` cells have the geometry of their nucleus.

    Raises:
        InputError: the file is damaged, or holds no features.
    """
    data = read_json(path)
    if isinstance(data, dict):
        data = data.get("features") if data.get("type") == "FeatureCollection" else [data]
    if not isinstance(data, list) or not all(isinstance(item, dict) and item.get("type") == "Feature" for item in data):
        raise InputError(f"{path}: holds no GeoJSON features")
    return [feature for item in data if (feature := _feature(item, nuclei, dropped))]


def _feature(item: Mapping[str, Any], nuclei: bool, dropped: Counter[str]) -> Feature | None:
    properties = item.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = _kind(item, properties)
    if kind not in KINDS:
        dropped[f"object of type {kind}, which is no cell"] += 1
        return None
    name, color = classification(properties.get("classification"))
    if _base(name) == REGION:
        dropped["region of class Region*, which is no cell"] += 1
        return None
    nucleus = item.get("nucleusGeometry") if kind == "cell" else None
    if nuclei and kind == "cell" and nucleus is None:
        dropped["cell without a nucleus"] += 1
        return None
    takes_nucleus = nuclei and kind == "cell"
    geometry = nucleus if takes_nucleus else item.get("geometry")
    if _is_on_another_plane(geometry):
        dropped["object on another plane (z or t) than the first"] += 1
        return None
    return Feature(kind, name, color, geometry, is_whole=nucleus is not None and not takes_nucleus)


def _is_on_another_plane(geometry: Any) -> bool:
    """Whether QuPath says that a geometry lies in another slice or time point of a stack than the first."""
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    return isinstance(plane, dict) and any(plane.get(axis) not in (None, 0) for axis in ("z", "t"))


def _kind(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """``annotation``, ``detection``, ``cell``, ``tile`` …, in the words of QuPath since 0.4 or of before.

    Features of other programs are annotations.
    """
    said = properties.get("objectType", properties.get("object_type"))
    if isinstance(said, str):
        return said.strip().lower()
    number = item.get("id")
    word = number.lower() if isinstance(number, str) else ""  # PathDetectionObject
    return word.removeprefix("path").removesuffix("object") if word.endswith("object") else "annotation"


def _base(name: str | None) -> str:
    """The first part of the name of a class: ``ignore*`` for ``Ignore*: Positive``."""
    return (name or "").split(":")[0].strip().lower()


def classification(value: Any) -> tuple[str | None, str | None]:
    """The name of a class, ``None`` without one, and its colour as ``#rrggbb``, if it has one."""
    if isinstance(value, str):
        return value.strip() or None, None
    if not isinstance(value, dict):
        return None, None
    names = value.get("names")
    if isinstance(names, list) and all(isinstance(part, str) for part in names):
        name = ": ".join(part.strip() for part in names)
    else:
        name = value["name"].strip() if isinstance(value.get("name"), str) else ""
    color, packed = hex_color(value.get("color")), value.get("colorRGB")
    if color is None and type(packed) is int:
        color = f"#{packed & 0xFFFFFF:06x}"  # above it lies alpha, and the number may be negative
    return name or None, color


def _polygons(geometry: Any, dropped: Counter[str]) -> Iterator[list[Ring]]:
    """The polygons of a geometry, each its outer ring and its holes; other shapes are counted."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        for part in parts if isinstance(parts, list) else []:
            yield from _polygons(part, dropped)
        return
    if kind not in ("Polygon", "MultiPolygon"):
        dropped[f"{kind}, which has no area" if isinstance(kind, str) else "object without a geometry"] += 1
        return
    given = geometry.get("coordinates")
    for rings in [given] if kind == "Polygon" else given if isinstance(given, list) else [None]:
        read = [to_ring(ring) for ring in rings] if isinstance(rings, list) else []
        if not read or read[0] is None:
            dropped["polygon that cannot be read"] += 1
            continue
        dropped["hole that cannot be read"] += sum(ring is None for ring in read)
        yield [ring for ring in read if ring is not None]
