"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019) with its two factors, for things only.

PQ = SQ * RQ: segmentation quality SQ is the mean IoU of the matched pairs, recognition quality RQ the F1 of detection.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.average_precision import covered_shares
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, to_label_map


@dataclass(frozen=True)
class Matches:
    """The matches of one image: of P pairs their IoU and classes, and the classes of all N true and M found objects.

    ``iou``: ``(P,)`` float64 in (0.5, 1]. ``true_class``, ``found_class``: ``(P,)`` int; a pair may differ in class.
    ``truths``: ``(N,)`` int, ``found``: ``(M,)`` int. Only objects with a pixel of their own are counted.
    """

    iou: np.ndarray
    true_class: np.ndarray
    found_class: np.ndarray
    truths: np.ndarray
    found: np.ndarray


def match(truth: ImageTruth, predictions: Sequence[Instance]) -> Matches:
    """Pair true and predicted objects of IoU > 0.5; a pair is unique, because each side is painted without overlaps.

    Overlapping pixels go to the higher score. A prediction without a pair is left out where regions to ignore cover
    more than half of it. Memory is two ``(H, W)`` maps, however many objects there are.
    """
    true_map = to_label_map(truth.instances, truth.height, truth.width)
    found_map = to_label_map(predictions, truth.height, truth.width)
    true_area = np.bincount(true_map.ravel(), minlength=len(truth.instances) + 1)
    found_area = np.bincount(found_map.ravel(), minlength=len(predictions) + 1)
    both = (true_map > 0) & (found_map > 0)
    joint = true_map[both] * np.int64(len(found_area)) + found_map[both]
    pairs, shared = np.unique(joint, return_counts=True)
    true_label, found_label = np.divmod(pairs, len(found_area))
    iou = shared / (true_area[true_label] + found_area[found_label] - shared)
    hit = iou > 0.5
    true_classes, found_classes = _classes(truth.instances), _classes(predictions)
    counts = found_area[1:] > 0
    counts[covered_shares(predictions, truth.ignored, together=True) > 0.5] = False
    counts[found_label[hit] - 1] = True
    return Matches(
        iou[hit],
        true_classes[true_label[hit]],
        found_classes[found_label[hit]],
        true_classes[1:][true_area[1:] > 0],
        found_classes[1:][counts],
    )


def agnostic_quality(images: Iterable[Matches]) -> dict[str, float | None]:
    """Mean over images of PQ, SQ and RQ with the class ignored; images without any object are left out."""
    qualities = [
        _quality(image.iou, len(image.truths), len(image.found))
        for image in images
        if len(image.truths) or len(image.found)
    ]
    return {
        key: float(np.mean([quality[key] for quality in qualities])) if qualities else None
        for key in ("PQ", "SQ", "RQ")
    }


def class_quality(images: Sequence[Matches], class_id: int) -> dict[str, float | None]:
    """PQ, SQ and RQ of one class, pooled over all images; ``None`` where the class has no ground truth."""
    truths = sum(int(np.count_nonzero(image.truths == class_id)) for image in images)
    found = sum(int(np.count_nonzero(image.found == class_id)) for image in images)
    if not truths:
        return {"PQ": None, "SQ": None, "RQ": None}
    pairs = [image.iou[(image.true_class == class_id) & (image.found_class == class_id)] for image in images]
    return {**_quality(np.concatenate(pairs), truths, found)}


def _classes(instances: Sequence[Instance]) -> np.ndarray:
    """The class of every label of a painted map; label 0 is the background."""
    return np.array([0, *(instance.class_id for instance in instances)])


def _quality(iou: np.ndarray, truths: int, found: int) -> dict[str, float]:
    segmentation = float(iou.mean()) if len(iou) else 0.0
    recognition = 2 * len(iou) / (truths + found)  # TP / (TP + FP / 2 + FN / 2)
    return {"PQ": segmentation * recognition, "SQ": segmentation, "RQ": recognition}
