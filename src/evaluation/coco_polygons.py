"""Polygons of COCO files as tools write them: which can be drawn, and why others cannot."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.common.values import integer, number
from src.evaluation.results import sizes_of

MAX_OUTLINE = 1e6  # px, of the polygons of one object
FEWEST_NUMBERS = 6  # three points


def with_usable_polygons(annotation: Any, side: float | None, dropped: Counter[str]) -> Any:
    """An annotation without those of its polygons that cannot be drawn, which ``dropped`` counts by reason.

    ``side`` is the longer one of its image in px, ``None`` where there is no such image. An annotation without a
    segmentation, or without a polygon that is left, becomes ``None``. An RLE stays as it is.
    """
    segmentation = annotation.get("segmentation", {}) if isinstance(annotation, dict) else {}
    if segmentation is None or segmentation == []:
        dropped["annotation without a segmentation"] += 1
        return None
    if not isinstance(segmentation, list) or side is None:
        return annotation
    bad: Counter[str] = Counter()
    polygons = usable_polygons(segmentation, side, bad)
    if not polygons:
        dropped[f"annotation whose polygons cannot be drawn ({', '.join(sorted(bad))})"] += 1
        return None
    dropped.update(bad)
    return {**annotation, "segmentation": polygons}


def usable_polygons(segmentation: list[Any], side: float, dropped: Counter[str]) -> list[Any]:
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
        if reason:
            dropped[reason] += 1
        else:
            length += outline_length(polygon)
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
        return "polygon of fewer than three points"
    if len(polygon) % 2:
        return "polygon with an odd number of coordinates"
    if not all(type(value) in (int, float) and value == value for value in polygon):
        return "polygon with a coordinate that is not a number"
    if not all(-side <= value <= 2 * side for value in polygon):
        return "polygon with a point far outside its image"
    return ""


@dataclass(frozen=True)
class ToldSize:
    """What annotations tell of the size of their image: the (H, W) of an RLE, and the furthest point (y, x) in px."""

    size: tuple[int, int] | None = None
    furthest: tuple[float, float] = (0.0, 0.0)

    def fits(self, height: int, width: int) -> bool:
        """Whether all points lie in an image of this size, but for a pixel, as tools round them."""
        return self.furthest[0] <= height + 1 and self.furthest[1] <= width + 1


def told_sizes(annotations: Any) -> dict[int, ToldSize]:
    """What the annotations of a COCO file tell of each image's size, by its id; malformed ones tell nothing."""
    items = [item for item in annotations if isinstance(item, dict)] if isinstance(annotations, list) else []
    found = {image_id: ToldSize(size) for image_id, size in sizes_of(items).items()}
    for item in items:
        image_id, segmentation = integer(item.get("image_id")), item.get("segmentation")
        if type(image_id) is not int or not isinstance(segmentation, list):
            continue
        before = found.get(image_id, ToldSize())
        y, x = before.furthest
        for polygon in usable_polygons(segmentation, MAX_OUTLINE, Counter()):
            y, x = max(y, *polygon[1::2]), max(x, *polygon[::2])
        found[image_id] = replace(before, furthest=(y, x))
    return found
