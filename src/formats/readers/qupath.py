"""The objects of QuPath in GeoJSON files."""

import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.common.values import number
from src.formats.drawn import Drawn, hex_color, to_ring
from src.formats.readers.features import read_features
from src.geometry.polygons import Ring, count_inside

KINDS = ("annotation", "detection", "cell")  # objects that may be cells
REGION, IGNORED = "region*", "ignore*"  # QuPath's names for regions that are no cells
SCORE, PROBABILITY = "Score", "Probability of "  # measurements that this program writes


@dataclass(frozen=True, eq=False)
class Feature:
    """An object whose kind is one of ``KINDS``, as a file holds it.

    ``class_name`` is ``None`` where it is not classified. ``color`` is ``#rrggbb``, where its class has one.
    ``geometry`` is GeoJSON that is yet to be checked; ``is_whole`` tells a cell that has a nucleus apart from it.
    ``measured`` holds the score and the probabilities of classes among its measurements, by their names.
    """

    kind: str
    class_name: str | None
    color: str | None
    geometry: Any
    is_whole: bool = False
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_ignored(self) -> bool:
        """Whether it is a region to ignore."""
        return _base(self.class_name) == IGNORED

    def drawn(self, dropped: Counter[str]) -> Drawn | None:
        """Its polygons; ``None`` without any. What has no area is counted."""
        polygons = list(_polygons(self.geometry, dropped))
        return Drawn(self.class_name, polygons, is_ignored=self.is_ignored) if polygons else None


def read_objects(path: Path, nuclei: bool, dropped: Counter[str]) -> Iterator[tuple[Feature, Drawn]]:
    """The objects of a file that are cells, or regions to ignore, with their polygons; what is left out is counted.

    People draw an annotation around the place in which QuPath detects cells: one that holds several detections is no
    cell. Nor is one without a class that holds several other annotations. So annotations come last, and they alone are
    in memory together.
    """
    annotations: list[tuple[Feature, Drawn]] = []
    centers = array("d")  # of detections, x and y
    for feature in _features(path, nuclei, dropped):
        drawn = feature.drawn(dropped)
        if drawn and feature.kind == "annotation":
            annotations.append((replace(feature, geometry=None), drawn))  # which as the file holds it takes much memory
        elif drawn:
            centers.extend(_center(drawn))
            yield feature, drawn
    yield from _cells_among(annotations, np.array(centers).reshape(-1, 2), dropped)


def _cells_among(
    annotations: Sequence[tuple[Feature, Drawn]], detections: np.ndarray, dropped: Counter[str]
) -> Iterator[tuple[Feature, Drawn]]:
    """The annotations that are cells or regions to ignore; ``detections`` (N, 2) are the centres of those."""
    if not annotations:
        return
    others, detections = _by_x(np.array([_center(drawn) for _, drawn in annotations])), _by_x(detections)
    for feature, drawn in annotations:
        holds_annotations = feature.class_name is None and _held(drawn, others, 3) > 2  # itself is one
        if not feature.is_ignored and (holds_annotations or _held(drawn, detections, 2) > 1):
            dropped["annotation around other objects"] += 1
        else:
            yield feature, drawn


def _center(drawn: Drawn) -> np.ndarray:
    return np.asarray(drawn.polygons[0][0].mean(axis=0))


def _by_x(points: np.ndarray) -> np.ndarray:
    return points[np.argsort(points[:, 0])]


def _held(drawn: Drawn, points: np.ndarray, enough: int) -> int:
    """How many of some points, which are sorted by x, lie in the polygons of an object, counted up to ``enough``."""
    count = 0
    for rings in drawn.polygons:
        low, high = np.searchsorted(points[:, 0], (rings[0][:, 0].min(), rings[0][:, 0].max()))
        count += count_inside(rings, points[low:high], enough)
    return min(count, enough)


def _features(path: Path, nuclei: bool, dropped: Counter[str]) -> Iterator[Feature]:
    """The objects of a file that may be cells, or regions to ignore; what is left out is counted.

    With ``nuclei`` cells have the geometry of their nucleus. Raises as :func:`read_features`.
    """
    return (feature for item in read_features(path) if (feature := _feature(item, nuclei, dropped)))


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
    is_whole = nucleus is not None and not takes_nucleus
    return Feature(kind, name, color, geometry, is_whole, _measured(properties.get("measurements")))


def _measured(measurements: Any) -> dict[str, float]:
    """The score and the probabilities, in [0, 1], among measurements in the form of QuPath since 0.4 or of before."""
    if isinstance(measurements, list):
        pairs = [(item.get("name"), item.get("value")) for item in measurements if isinstance(item, dict)]
    else:
        pairs = list(measurements.items()) if isinstance(measurements, dict) else []
    found = {}
    for name, given in pairs:
        value = number(given)
        is_share = type(value) in (int, float) and 0 <= value <= 1
        if is_share and isinstance(name, str) and (name == SCORE or name.startswith(PROBABILITY)):
            found[sys.intern(name)] = float(value)
    return found


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
