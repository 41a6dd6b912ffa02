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


@dataclass(frozen=True, eq=False)
class Ranked:
    """The D detections of one class in I images, best first, as a cap leaves them, with what AP needs of them.

    ``image``: ``(D,)`` the image of each. ``right``: at each of :data:`THRESHOLDS` the places of those that are right.
    ``ignored``: likewise ``(D,)`` bool, or ``None`` where none is. ``truths``: ``(I,)`` true objects of each image.
    """

    image: np.ndarray
    right: Sequence[np.ndarray]
    ignored: Sequence[np.ndarray | None]
    truths: np.ndarray


def rank(images: Sequence[ImageObjects], class_count: int, caps: Sequence[float]) -> list[list[Ranked]]:
    """Match the detections of each image, and rank those of all images.

    Of detections with equal scores those of an earlier image come first, and in an image those that stand first.

    Args:
        images: all images, in the order that breaks ties.
        class_count: K.
        caps: how many detections of each image and class count, the best ones; infinity for all.

    Returns:
        What was found of classes 1..K, for each cap.
    """
    image = np.repeat(np.arange(len(images)), [len(one.scores) for one in images])
    class_ids, scores = (np.concatenate([getattr(one, name) for one in images]) for name in ("class_ids", "scores"))
    order = np.lexsort((-scores, class_ids, image))  # stable
    outcomes = _outcomes(images, order)
    image, class_ids, scores = image[order], class_ids[order], scores[order]
    starts = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(class_ids, prepend=-1) != 0))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    ranked = []
    for number in range(1, class_count + 1):
        truths = np.array(
            [sum(truth.class_id == number for truth in one.truth.instances) for one in images], np.float64
        )
        own = np.flatnonzero(class_ids == number)
        own = own[np.argsort(-scores[own], kind="stable")]
        of_caps = (own[place[own] < cap] for cap in caps)
        ranked.append([_ranked(image[counted], outcomes[:, counted], truths) for counted in of_caps])
    return ranked


def _ranked(image: np.ndarray, outcomes: np.ndarray, truths: np.ndarray) -> Ranked:
    right = [np.flatnonzero(row == RIGHT) for row in outcomes]
    ignored = [is_ignored if (is_ignored := row == IGNORED).any() else None for row in outcomes]
    return Ranked(image, right, ignored, truths)


def precision(images: Sequence[ImageObjects], class_count: int, caps: Sequence[float]) -> np.ndarray:
    """Precision at each recall; see :func:`rank` for the arguments.

    Returns:
        ``(T, R, K, M)`` float64 over :data:`THRESHOLDS`, :data:`RECALLS`, classes 1..K and caps; -1 for a class without
        true objects.
    """
    values = np.full((len(THRESHOLDS), len(RECALLS), class_count, len(caps)), -1.0)
    for k, of_caps in enumerate(rank(images, class_count, caps)):
        for m, ranked in enumerate(of_caps):
            if ranked.truths.any():
                values[:, :, k, m] = _curves(ranked, np.ones(len(images)))
    return values


def average_precisions(ranked: Ranked, weights: np.ndarray) -> np.ndarray:
    """``(N, 3)`` AP over IoU 0.50:0.95, at 0.50 and at 0.75 of one class; NaN where it has no true objects.

    A row for each row of the weights of images (see :mod:`src.evaluation.weighted`).
    """
    values = np.full((len(weights), 3), np.nan)
    for row in np.flatnonzero(weights @ ranked.truths):
        curves = _curves(ranked, weights[row])
        values[row] = curves.mean(), curves[0].mean(), curves[5].mean()
    return values


def _curves(ranked: Ranked, weights: np.ndarray) -> np.ndarray:
    """``(T, R)`` precision at each recall, if the images count as ``weights`` (I,) says.

    It is computed at right detections alone: between two of them precision falls and recall stays.
    """
    weight = weights[ranked.image]
    seen, total = np.cumsum(weight), weights @ ranked.truths
    curves = np.zeros((len(ranked.right), len(RECALLS)))
    for curve, places, ignored in zip(curves, ranked.right, ranked.ignored, strict=True):
        right = np.cumsum(weight[places])
        judged = (seen if ignored is None else np.cumsum(np.where(ignored, 0, weight)))[places]
        value = right / np.maximum(judged, 1)
        value = np.maximum.accumulate(value[::-1])[::-1]  # the best at this recall or a higher one
        place = np.searchsorted(right / total, RECALLS)
        curve[place < len(right)] = value[place[place < len(right)]]
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
