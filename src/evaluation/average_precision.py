"""Average precision as COCO defines it, in memory that grows with the objects and the pairs of them that overlap.

The definition is that of ``COCOeval`` in pycocotools (Lin et al., "Microsoft COCO: common objects in context", ECCV
2014), whose matrix of all detections by all true objects of an image would take gigabytes where there are thousands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.data.classes import ANY_CLASS
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, clip, intersection, union
from src.geometry.overlaps import overlapping_pairs, shared_pixels

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
RIGHT, WRONG, IGNORED = 1, 0, -1  # outcomes of a detection
_LIMITS = np.minimum(THRESHOLDS, 1 - 1e-10)  # so that an IoU of 1 meets each, whatever the rounding


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """An image's ground truth and the D detections in it.

    ``found`` (D,) holds ``None`` for a detection without a pixel; ``class_ids`` and ``scores`` (D,) are of all.
    """

    truth: ImageTruth
    found: Sequence[Instance | None]
    class_ids: np.ndarray
    scores: np.ndarray


def precision(images: Sequence[ImageObjects], class_count: int, caps: Sequence[float]) -> np.ndarray:
    """Precision at each recall.

    Of detections with equal scores those of an earlier image come first, and in an image those that stand first.

    Args:
        images: all images, in the order that breaks ties.
        class_count: K.
        caps: how many detections of each image and class count, the best ones; infinity for all.

    Returns:
        ``(T, R, K, M)`` float64 over :data:`THRESHOLDS`, :data:`RECALLS`, classes 1..K and caps; -1 for a class without
        true objects.
    """
    image = np.repeat(np.arange(len(images)), [len(one.scores) for one in images])
    class_ids, scores = (np.concatenate([getattr(one, name) for one in images]) for name in ("class_ids", "scores"))
    order = np.lexsort((-scores, class_ids, image))  # stable
    outcomes = _outcomes(images, order)
    image, class_ids, scores = image[order], class_ids[order], scores[order]
    starts = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(class_ids, prepend=-1) != 0))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    values = np.full((len(THRESHOLDS), len(RECALLS), class_count, len(caps)), -1.0)
    for k in range(class_count):
        total = sum(truth.class_id == k + 1 for one in images for truth in one.truth.instances)
        for m, cap in enumerate(caps if total else ()):
            counted = np.flatnonzero((class_ids == k + 1) & (rank < cap))
            ranked = counted[np.argsort(-scores[counted], kind="stable")]
            values[:, :, k, m] = _curves(outcomes[:, ranked], total)
    return values


def _curves(outcomes: np.ndarray, total: int) -> np.ndarray:
    """``(T, R)`` precision at each recall, of the outcomes ``(T, D)`` of detections, best first."""
    right, wrong = (np.cumsum(outcomes == outcome, axis=1, dtype=np.float64) for outcome in (RIGHT, WRONG))
    values = right / np.maximum(right + wrong, 1)
    values = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]  # the best at this recall or a higher one
    curves = np.zeros((len(outcomes), len(RECALLS)))
    for curve, value, recall in zip(curves, values, right / total, strict=True):
        place = np.searchsorted(recall, RECALLS)
        curve[place < len(recall)] = value[place[place < len(recall)]]
    return curves


def _outcomes(images: Sequence[ImageObjects], order: np.ndarray) -> np.ndarray:
    """``(T, D)`` int8: the outcome of each detection, in ``order``, at each threshold.

    In this order a detection takes, of the true objects that are left, the one that it meets best; of equals the last.
    One that takes none is ignored where a region to ignore covers a share of it that reaches the threshold.
    """
    outcomes = np.full((len(THRESHOLDS), len(order)), WRONG, np.int8)
    candidates = _candidates(images)
    taken: list[set[int]] = [set() for _ in _LIMITS]
    for place, detection in enumerate(order.tolist()):
        if detection not in candidates:
            continue
        for row, limit in enumerate(_LIMITS.tolist()):
            best, chosen = limit, -1
            for truth, iou in candidates[detection]:
                if iou >= best and truth not in taken[row]:
                    best, chosen = iou, truth
            if chosen >= 0:
                taken[row].add(chosen)
                outcomes[row, place] = RIGHT
    covered = np.concatenate([covered_shares(one.found, one.truth.ignored) for one in images])[order]
    outcomes[(outcomes == WRONG) & (covered >= _LIMITS[:, None])] = IGNORED
    return outcomes


def covered_shares(found: Sequence[Instance | None], regions: Sequence[Instance], together: bool = False) -> np.ndarray:
    """``(D,)`` float64: the largest share of each detection that one region of its class, or of any, covers.

    With ``together`` the share that all these regions cover.
    """
    shares = np.zeros(len(found))
    numbers = [number for number, instance in enumerate(found) if instance is not None]
    if not regions or not numbers:
        return shares
    objects = [*(instance for instance in found if instance is not None), *regions]
    boxes = np.array([(one.top, one.left, one.bottom, one.right) for one in objects], np.int64)
    first, second = overlapping_pairs(boxes)
    first, second = np.minimum(first, second), np.maximum(first, second)
    crossing = (first < len(numbers)) & (second >= len(numbers))
    over: dict[int, list[Instance]] = {}
    for place, other in zip(first[crossing].tolist(), second[crossing].tolist(), strict=True):
        if objects[other].class_id in (ANY_CLASS, objects[place].class_id):
            over.setdefault(place, []).append(objects[other])
    for place, near in over.items():
        instance = objects[place]
        if together:
            pieces = [clip(region, instance.top, instance.left, instance.bottom, instance.right) for region in near]
            near = [union(parts)] if (parts := [piece for piece in pieces if piece is not None]) else []
        shares[numbers[place]] = max((intersection(instance, one) for one in near), default=0) / instance.area
    return shares


def _candidates(images: Sequence[ImageObjects]) -> dict[int, list[tuple[int, float]]]:
    """Per detection the true objects of its class that it meets at the lowest threshold, in their order, with the IoU.

    Detections and true objects are numbered through all images.
    """
    found = [(image, number, instance) for image, one in enumerate(images) for number, instance in enumerate(one.found)]
    offset = np.cumsum([0, *(len(one.found) for one in images)])
    seen = [(image, int(offset[image]) + number, instance) for image, number, instance in found if instance is not None]
    truths = [(image, instance) for image, one in enumerate(images) for instance in one.truth.instances]
    objects = [*(instance for _, _, instance in seen), *(instance for _, instance in truths)]
    of_image = np.array([*(image for image, _, _ in seen), *(image for image, _ in truths)], np.int64)

    first, second = overlapping_pairs(_apart(objects, of_image))
    crossing = (first < len(seen)) != (second < len(seen))
    detection, truth = np.minimum(first, second)[crossing], np.maximum(first, second)[crossing]
    area = np.array([instance.area for instance in objects], np.int64)
    shared = shared_pixels(objects, detection, truth)
    iou = shared / (area[detection] + area[truth] - shared)
    met = np.flatnonzero(iou >= _LIMITS[0])
    candidates: dict[int, list[tuple[int, float]]] = {}
    for pair in met[np.argsort(truth[met], kind="stable")].tolist():
        candidates.setdefault(seen[detection[pair]][1], []).append((int(truth[pair]), float(iou[pair])))
    return candidates


def _apart(objects: Sequence[Instance], of_image: np.ndarray) -> np.ndarray:
    """``(N, 4)`` boxes ``top, left, bottom, right`` of objects, moved so that images and classes do not overlap."""
    boxes = np.array([(one.top, one.left, one.bottom, one.right) for one in objects], np.int64).reshape(-1, 4)
    classes = np.array([one.class_id for one in objects], np.int64)
    _, group = np.unique(np.stack([of_image, classes], axis=1), axis=0, return_inverse=True)
    boxes[:, ::2] += (group.reshape(-1) * boxes[:, 2].max(initial=0))[:, None]
    return boxes
