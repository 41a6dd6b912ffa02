"""Objects of an image as cropped masks with their place, and conversion to and from label maps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Instance:
    """One object of an image.

    ``class_id`` is in 1..K and ``score`` in [0, 1] (1 for ground truth). ``mask`` is a ``(h, w)`` bool array cut
    out of the image at row ``top``, column ``left``; it is tight: its first and last row and column hold a True.
    ``probabilities`` are those of the classes 1..K, which sum to 1; empty where they are not known.
    """

    class_id: int
    score: float
    top: int
    left: int
    mask: np.ndarray
    probabilities: tuple[float, ...] = ()

    @property
    def bottom(self) -> int:
        """The first row below the object."""
        return self.top + self.mask.shape[0]

    @property
    def right(self) -> int:
        """The first column right of the object."""
        return self.left + self.mask.shape[1]

    @cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))


def tight(class_id: int, score: float, top: int, left: int, mask: np.ndarray) -> Instance | None:
    """Build an :class:`Instance` from a mask that may have empty borders; ``None`` where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    cropped = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Instance(class_id, score, top + int(rows[0]), left + int(columns[0]), cropped)


def window(instance: Instance, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """The part of an object's mask inside a rectangle that lies within its bounding box, as a view."""
    return instance.mask[top - instance.top : bottom - instance.top, left - instance.left : right - instance.left]


def intersection(a: Instance, b: Instance) -> int:
    """Number of pixels that two objects share."""
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom, right = min(a.bottom, b.bottom), min(a.right, b.right)
    if top >= bottom or left >= right:
        return 0
    return int(np.count_nonzero(window(a, top, left, bottom, right) & window(b, top, left, bottom, right)))


def clip(instance: Instance, top: int, left: int, bottom: int, right: int) -> Instance | None:
    """Crop an object to a rectangle (max exclusive); ``None`` where nothing is left."""
    top, left = max(instance.top, top), max(instance.left, left)
    bottom, right = min(instance.bottom, bottom), min(instance.right, right)
    if top >= bottom or left >= right:
        return None
    part = tight(instance.class_id, instance.score, top, left, window(instance, top, left, bottom, right))
    return part and replace(part, probabilities=instance.probabilities)


def union(parts: Sequence[Instance]) -> Instance:
    """One object that covers all parts, with the class of the first and the highest score."""
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom, right = max(part.bottom for part in parts), max(part.right for part in parts)
    mask = np.zeros((bottom - top, right - left), bool)
    for part in parts:
        mask[part.top - top : part.bottom - top, part.left - left : part.right - left] |= part.mask
    return Instance(parts[0].class_id, max(part.score for part in parts), top, left, mask)


def from_label_map(label_map: np.ndarray) -> list[Instance]:
    """Objects of a ``(K, H, W)`` label map, channel k-1 holding class k's ids (0 is background), by class, then id.

    The time grows with the image and the objects, not with their product.
    """
    from scipy.ndimage import find_objects  # slow to import

    instances = []
    for class_id, labels in enumerate(label_map, start=1):
        for label, box in enumerate(find_objects(labels), start=1):
            if box is not None:
                rows, columns = box
                instances.append(Instance(class_id, 1.0, rows.start, columns.start, labels[box] == label))
    return instances


def extents(label_map: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and tight box of each object of a label map, in one pass over the pixels.

    Args:
        label_map: ``(L, h, w)`` ids in 0..count, each in one layer only; 0 is background.

    Returns:
        Areas ``(count + 1,)`` int64, and boxes ``(count + 1, 4)`` int64, xyxy in px, max exclusive; an id without a
        pixel (and the background) has area 0 and no meaningful box.
    """
    depth, height, width = label_map.shape
    is_start = np.ones((depth * height, width), bool)  # of a run of equal ids along a row
    rows_of_all = label_map.reshape(depth * height, width)
    np.not_equal(rows_of_all[:, 1:], rows_of_all[:, :-1], out=is_start[:, 1:])
    starts = np.flatnonzero(is_start)
    ids = rows_of_all.ravel()[starts]
    kept = np.flatnonzero(ids)  # as indices: picking by a mask as irregular as this takes three times as long
    lengths = np.diff(starts, append=is_start.size)[kept]
    ids = ids[kept]
    rows, left = np.divmod(starts[kept], width)
    top = rows % height
    areas = np.bincount(ids, lengths, minlength=count + 1).astype(np.int64)
    boxes = np.tile((width, 0, 0, 0), (count + 1, 1))
    np.minimum.at(boxes[:, 0], ids, left)
    np.maximum.at(boxes[:, 2], ids, left + lengths)
    boxes[ids[::-1], 1] = top[::-1]  # runs come row by row, and the last one written stays
    boxes[ids, 3] = top + 1
    return areas, boxes


def resolve_overlaps(instances: Sequence[Instance], height: int, width: int, min_share: float = 0.5) -> list[Instance]:
    """Drop objects of which others with a higher score, of any class, leave less than ``min_share`` visible.

    Kirillov et al. ("Panoptic Segmentation", CVPR 2019, section 4.2) turn overlapping detections into a panoptic
    result this way. The objects that are kept stay in order, with their whole masks.
    """
    taken = np.zeros((height, width), bool)
    kept = np.zeros(len(instances), bool)
    for index in sorted(range(len(instances)), key=lambda index: -instances[index].score):
        instance = instances[index]
        place = taken[instance.top : instance.bottom, instance.left : instance.right]
        kept[index] = np.count_nonzero(instance.mask & ~place) >= min_share * instance.area
        if kept[index]:
            place |= instance.mask
    return [instance for instance, is_kept in zip(instances, kept, strict=True) if is_kept]


def confident(instances: Sequence[Instance], min_score: float, height: int, width: int) -> list[Instance]:
    """The objects of at least ``min_score``, without those that others hide: one per cell, to be drawn and counted."""
    return resolve_overlaps([one for one in instances if one.score >= min_score], height, width)


def to_label_map(instances: Iterable[Instance], height: int, width: int) -> np.ndarray:
    """Paint objects into one ``(H, W)`` int32 map: object i gets i + 1; where objects overlap the higher score wins."""
    label_map = np.zeros((height, width), np.int32)
    order = sorted(enumerate(instances, start=1), key=lambda item: item[1].score)
    for label, instance in order:
        label_map[instance.top : instance.bottom, instance.left : instance.right][instance.mask] = label
    return label_map
