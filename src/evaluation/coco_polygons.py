"""Polygons of COCO files as tools write them: which can be drawn, and why others cannot."""

from collections import Counter
from typing import Any

import numpy as np

from src.common.values import number

MAX_OUTLINE = 1e6  # px, of the polygons of one object
FEWEST_NUMBERS = 6  # three points
TOO_SHORT = "polygon of fewer than three points"


def with_usable_polygons(annotation: Any, side: float | None, dropped: Counter[str], is_strict: bool) -> Any:
    """An annotation without those of its polygons that cannot be drawn, which ``dropped`` counts by reason.

    ``side`` is the longer one of its image in px, ``None`` where there is no such image. An annotation that is left
    with no polygon becomes ``None``. One without polygons stays as it is. With ``is_strict`` only polygons of fewer
    than three points are left out; what is malformed in another way stays, to be refused.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if not isinstance(segmentation, list) or not segmentation or side is None:
        return annotation
    bad: Counter[str] = Counter()
    polygons = usable_polygons(segmentation, side, bad, is_strict)
    if not polygons:
        dropped[f"annotation whose polygons cannot be drawn ({', '.join(sorted(bad))})"] += 1
        return None
    dropped.update(bad)
    return {**annotation, "segmentation": polygons}


def usable_polygons(segmentation: list[Any], side: float, dropped: Counter[str], is_strict: bool) -> list[Any]:
    """The polygons ``[x1, y1, x2, y2, …]`` of a segmentation; others are counted in ``dropped`` by reason.

    One polygon may also be given without the list around it, and each by its points ``[[x, y], …]``. ``side`` is the
    longer one of the image, in px.
    """
    kept: list[Any] = []
    length = 0.0
    for given in _as_polygons(segmentation):
        polygon = [number(value) for value in given] if isinstance(given, list) else given
        reason = _fault(polygon, side)
        if not reason and length + outline_length(polygon) > MAX_OUTLINE:
            reason = "polygon too long for a cell"
        if reason and not (is_strict and reason != TOO_SHORT):
            dropped[reason] += 1
        else:
            length += 0.0 if reason else outline_length(polygon)
            kept.append(polygon)
    return kept


def outline_length(polygon: list[float]) -> float:
    """The length of an outline as the drawing takes memory by it: of each side the longer of its two extents."""
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def _as_polygons(segmentation: list[Any]) -> list[Any]:
    if segmentation and not any(isinstance(item, list) for item in segmentation):
        return [segmentation]
    if len(segmentation) > 2 and all(map(_is_point, segmentation)):
        return [_flat(segmentation)]
    return [_flat(item) if isinstance(item, list) and item and all(map(_is_point, item)) else item
            for item in segmentation]  # fmt: skip


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(part, list) for part in value)


def _flat(points: list[list[Any]]) -> list[Any]:
    return [coordinate for point in points for coordinate in point]


def _fault(polygon: Any, side: float) -> str:
    """Why a polygon cannot be drawn; empty for one that can."""
    if not isinstance(polygon, list) or len(polygon) < FEWEST_NUMBERS:
        return TOO_SHORT
    if len(polygon) % 2:
        return "polygon with an odd number of coordinates"
    if not all(type(value) in (int, float) and value == value for value in polygon):
        return "polygon with a coordinate that is not a number"
    if not all(-side <= value <= 2 * side for value in polygon):
        return "polygon with a point far outside its image"
    return ""
