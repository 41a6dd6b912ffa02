"""Polygons of COCO files as tools write them: which are usable, and why others are not."""

from collections import Counter
from typing import Any

import numpy as np

from src.evaluation.ground_truth import MAX_OUTLINE

FEWEST_NUMBERS = 6  # three points


def usable_polygons(segmentation: list[Any], side: float, dropped: Counter[str]) -> list[list[float]]:
    """The polygons ``[x1, y1, x2, y2, …]`` of a segmentation; others are counted in ``dropped`` by reason.

    One polygon may also be given without the list around it, and each by its points ``[[x, y], …]``. ``side`` is the
    longer one of the image, in px.
    """
    kept = []
    for polygon in _as_polygons(segmentation):
        reason = _fault(polygon, side)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(polygon)
    return kept


def _as_polygons(segmentation: list[Any]) -> list[Any]:
    if segmentation and not any(isinstance(item, list) for item in segmentation):
        return [segmentation]
    if len(segmentation) > 2 and all(map(_is_point, segmentation)):
        return [_flat(segmentation)]
    return [_flat(item) if isinstance(item, list) and item and all(map(_is_point, item)) else item
            for item in segmentation]  # fmt: skip


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(number, list) for number in value)


def _flat(points: list[list[Any]]) -> list[Any]:
    return [number for point in points for number in point]


def _fault(polygon: Any, side: float) -> str:
    """Why a polygon cannot be drawn; empty for one that can."""
    if not isinstance(polygon, list) or len(polygon) < FEWEST_NUMBERS:
        return "polygon of fewer than three points"
    if len(polygon) % 2:
        return "polygon with an odd number of coordinates"
    if not all(type(number) in (int, float) and number == number for number in polygon):
        return "polygon with a coordinate that is not a number"
    if not all(-side <= number <= 2 * side for number in polygon):
        return "polygon with a point far outside its image"
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    if np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum() > MAX_OUTLINE:
        return "polygon too long for a cell"
    return ""
