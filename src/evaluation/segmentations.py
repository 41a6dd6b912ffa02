"""Segmentations of COCO files as compressed RLE: RLE of both kinds and polygons, checked before they are drawn."""

from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.values import integer, number
from src.evaluation.coco_polygons import FEWEST_NUMBERS, MAX_OUTLINE, outline_length
from src.evaluation.rle import MAX_PIXELS, compress
from src.geometry.polygons import fill_as_coco


def to_compressed(segmentation: Any, size: list[int], where: str) -> dict[str, Any]:
    """A segmentation in an image of ``size`` (H, W) as a compressed RLE whose counts are yet to be checked.

    Raises:
        InputError: it is malformed or of another size; the message begins with ``where``.
    """
    if isinstance(segmentation, list):
        return _rasterise(segmentation, size, where)
    if not isinstance(segmentation, dict) or plain_size(segmentation) != size:
        raise InputError(f"{where}: its segmentation is neither polygons nor an RLE of the image's size {size}")
    counts = segmentation.get("counts")
    if not isinstance(counts, list):
        return {**segmentation, "size": size}
    counts = [integer(count) for count in counts]
    if any(type(count) is not int or not 0 <= count <= MAX_PIXELS for count in counts):
        raise InputError(f"{where}: its counts must be whole numbers, at least 0")
    return {"size": size, "counts": compress(np.array(counts, np.int64), np.array([0, len(counts)]))[0]}


def plain_size(segmentation: Any) -> Any:
    """The size of an RLE, with whole numbers as ``int``; what is malformed stays as it is."""
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    return [integer(side) for side in size] if isinstance(size, list) else size


def _rasterise(polygons: list[Any], size: list[int], where: str) -> dict[str, Any]:
    """Draw polygons ``[x1, y1, x2, y2, …]`` in px, once they are known to be safe to draw."""
    reach, length = max(size), 0.0
    polygons = [list(map(number, polygon)) if isinstance(polygon, list) else polygon for polygon in polygons]
    for polygon in polygons or [None]:
        if not isinstance(polygon, list) or len(polygon) < FEWEST_NUMBERS or len(polygon) % 2:
            raise InputError(f"{where}: a polygon needs three points or more, as [x1, y1, x2, y2, …]")
        if not all(type(value) in (int, float) and -reach <= value <= 2 * reach for value in polygon):
            raise InputError(f"{where}: a polygon has a point that is not a number or far outside its image")
        length += outline_length(polygon)
    if length > MAX_OUTLINE:  # pycocotools takes memory by it, and does not ask whether it got any
        raise InputError(f"{where}: its polygons are {length:.0f} px long, too long for a cell")
    return {"size": size, "counts": fill_as_coco(polygons, *size)}
