"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019) with its two factors, for things only.

PQ = SQ * RQ: segmentation quality SQ is the mean IoU of the matched pairs, recognition quality RQ the F1 of detection.
Figures are ``(N, …)`` arrays, a row for each row of the weights of images (see :mod:`src.evaluation.weighted`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.label_overlaps import LabelOverlaps
from src.evaluation.weighted import mean_of_known, mean_over_images, ratio


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


@dataclass(frozen=True)
class PanopticCounts:
    """What PQ is made of: four tables ``(I, 1 + K)`` float64 of I images and K classes.

    ``iou`` is the sum over the matched pairs, ``pairs`` their number, ``truths`` and ``found`` the numbers of objects.
    Column 0 counts all, with the class ignored; in column k both objects of a pair are of class k.
    """

    iou: np.ndarray
    pairs: np.ndarray
    truths: np.ndarray
    found: np.ndarray


def match(overlaps: LabelOverlaps) -> Matches:
    """Pair true and found objects of IoU > 0.5; a pair is unique, because neither side has overlaps.

    A found object without a pair is left out where regions to ignore cover more than half of it.
    """
    iou = overlaps.iou
    hit = iou > 0.5
    return Matches(
        iou[hit],
        overlaps.true_class[overlaps.true[hit]],
        overlaps.found_class[overlaps.found[hit]],
        overlaps.true_class,
        overlaps.found_class[overlaps.counted(hit)],
    )


def count_matches(images: Sequence[Matches], class_count: int) -> PanopticCounts:
    """The tables of some images."""
    tables = np.zeros((4, len(images), 1 + class_count))
    for row, image in enumerate(images):
        agrees = image.true_class == image.found_class
        classes = image.true_class[agrees]
        tables[0, row, 1:] = np.bincount(classes, image.iou[agrees], minlength=1 + class_count)[1 : 1 + class_count]
        for table, ids in zip(tables[1:], (classes, image.truths, image.found), strict=True):
            table[row, 1:] = np.bincount(ids, minlength=1 + class_count)[1 : 1 + class_count]
        tables[:, row, 0] = image.iou.sum(), len(image.iou), len(image.truths), len(image.found)
    return PanopticCounts(*tables)


def agnostic_quality(counts: PanopticCounts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``(N,)`` means over images of PQ, SQ and RQ with the class ignored; images without any object are left out."""
    of_images = _quality(counts.iou[:, 0], counts.pairs[:, 0], counts.truths[:, 0] + counts.found[:, 0])
    return {key: mean_over_images(values, weights) for key, values in of_images.items()}


def class_quality(counts: PanopticCounts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``(N, K)`` PQ, SQ and RQ of each class, pooled over all images; NaN where a class has no ground truth.

    The mean of this PQ over the classes is mPQ+ (Graham et al., "CoNIC Challenge", Medical Image Analysis 2024).
    """
    sums = (weights @ table[:, 1:] for table in (counts.iou, counts.pairs, counts.truths, counts.found))
    return _class_quality(*sums)


def mean_image_quality(counts: PanopticCounts, weights: np.ndarray) -> np.ndarray:
    """``(N,)`` mPQ: the mean over images of the mean PQ of the classes that have true objects in the image.

    As in Gamper et al., "PanNuke Dataset Extension, Insights and Baselines", 2020: a class without true objects in an
    image is left out there, even where objects were found of it, and so is an image without true objects.
    """
    tables = (table[:, 1:] for table in (counts.iou, counts.pairs, counts.truths, counts.found))
    return mean_over_images(mean_of_known(_class_quality(*tables)["PQ"]), weights)


def _class_quality(iou: np.ndarray, pairs: np.ndarray, truths: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    return {key: np.where(truths > 0, value, np.nan) for key, value in _quality(iou, pairs, truths + found).items()}


def _quality(iou: np.ndarray, pairs: np.ndarray, objects: np.ndarray) -> dict[str, np.ndarray]:
    """Of ``objects`` true and found ones together; NaN where there are none."""
    segmentation = np.where(objects > 0, iou / np.maximum(pairs, 1), np.nan)
    recognition = ratio(2 * pairs, objects)  # TP / (TP + FP / 2 + FN / 2)
    return {"PQ": segmentation * recognition, "SQ": segmentation, "RQ": recognition}
