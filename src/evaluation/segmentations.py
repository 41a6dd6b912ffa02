"""Segmentations of COCO files as compressed RLE: RLE of both kinds and polygons, checked before they are drawn."""

from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.values import integer
from src.evaluation.rle import MAX_PIXELS, compress
from src.geometry.polygons import fill_as_coco


def to_compressed(segmentation: Any, size: list[int], where: str) -> dict[str, Any]:
    """A segmentation in an image of ``size`` (H, W) as a compressed RLE whose counts are yet to be checked.

    Polygons are usable ones (see :func:`src.evaluation.coco_polygons.usable_polygons`).

    Raises:
        InputError: it is malformed or of another size; the message begins with ``where``.
    """
    if isinstance(segmentation, list):
        return {"size": size, "counts": fill_as_coco(segmentation, *size)}
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
