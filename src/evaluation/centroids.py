"""F1 of detection and of each class by centroids, as the HoVer-Net paper defines them.

Graham et al., "HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue histology images",
Medical Image Analysis 2019: true and found centroids are paired one to one within 12 px at 40x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.assignment import assign
from src.evaluation.average_precision import covered_shares
from src.evaluation.weighted import ratio
from src.geometry.instances import Instance

RADIUS = 12.0  # px at 40x


@dataclass(frozen=True)
class Pairing:
    """The classes of one image's objects: both sides of each pair ``(P,)``, and those left alone on either side."""

    true_class: np.ndarray
    found_class: np.ndarray
    false_negatives: np.ndarray
    false_positives: np.ndarray


@dataclass(frozen=True)
class CentroidCounts:
    """What the F1 is made of: four tables ``(I, 1 + K)`` float64 of I images and K classes.

    ``right`` counts pairs of one class, ``wrong`` objects of the class in pairs of two, ``alone`` those without a pair,
    and ``truths`` all true objects. In column 0 classes are ignored, so that every pair is right.
    """

    right: np.ndarray
    wrong: np.ndarray
    alone: np.ndarray
    truths: np.ndarray


def centroid(instance: Instance) -> tuple[float, float]:
    """Mean row and column of an object's pixels, in px of the image, pixel centres being integers."""
    rows, columns = instance.mask.sum(axis=1), instance.mask.sum(axis=0)
    area = rows.sum()
    return (
        instance.top + float(rows @ np.arange(len(rows)) / area),
        instance.left + float(columns @ np.arange(len(columns)) / area),
    )


def pair(
    truths: Sequence[Instance], found: Sequence[Instance], ignored: Sequence[Instance] = (), radius: float = RADIUS
) -> Pairing:
    """Pair as many centroids as can be within ``radius`` px of each other, at the least sum of distances.

    A found object without a pair is left out where its centroid lies in a region of ``ignored``.
    """
    true_place, found_place = (np.array([centroid(i) for i in side]).reshape(-1, 2) for side in (truths, found))
    true_class, found_class = (np.array([i.class_id for i in side], np.int64) for side in (truths, found))
    true_index, found_index = _pair_places(true_place, found_place, radius)
    alone = np.setdiff1d(np.arange(len(found)), found_index)
    return Pairing(
        true_class[true_index],
        found_class[found_index],
        np.delete(true_class, true_index),
        found_class[alone[~_lie_in(found_place[alone], found_class[alone], ignored)]],
    )


def _lie_in(places: np.ndarray, class_ids: np.ndarray, regions: Sequence[Instance]) -> np.ndarray:
    """``(D,)`` bool: which of the places (row, column) of objects a region holds, of the object's class or of any."""
    pixels = np.rint(places).astype(int).tolist()
    pixel = np.ones((1, 1), bool)
    dots = [Instance(k, 1.0, row, column, pixel) for k, (row, column) in zip(class_ids.tolist(), pixels, strict=True)]
    return covered_shares(dots, regions) > 0


def _pair_places(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the paired rows of ``(N, 2)`` and ``(M, 2)`` places. Memory grows with the pairs within the radius."""
    from scipy.spatial import cKDTree  # slow to import

    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), radius, output_type="coo_matrix")
    cost_alone = radius * (
        min(len(a), len(b)) + 1
    )  # more than all pairs together, so that as many as can be are paired
    chosen = assign(near.row, near.col, near.data, cost_alone)
    return near.row[chosen], near.col[chosen]


def count_pairs(images: Sequence[Pairing], class_count: int) -> CentroidCounts:
    """The tables of some images."""
    tables = np.zeros((4, len(images), 1 + class_count))
    for row, image in enumerate(images):
        agrees = image.true_class == image.found_class
        missed, false = image.false_negatives, image.false_positives
        members = (
            image.true_class[agrees],
            np.concatenate([image.true_class[~agrees], image.found_class[~agrees]]),
            np.concatenate([missed, false]),
            np.concatenate([image.true_class, missed]),
        )
        for table, ids in zip(tables, members, strict=True):
            table[row, 1:] = np.bincount(ids, minlength=1 + class_count)[1 : 1 + class_count]
        pairs = len(image.true_class)
        tables[:, row, 0] = pairs, 0, len(missed) + len(false), pairs + len(missed)
    return CentroidCounts(*tables)


def detection_f1(counts: CentroidCounts, weights: np.ndarray) -> np.ndarray:
    """``(N,)`` F1 of finding objects, whatever their class, over all images; NaN where there are none on either side.

    A row for each row of the weights of images (see :mod:`src.evaluation.weighted`).
    """
    right, alone = weights @ counts.right[:, 0], weights @ counts.alone[:, 0]
    return ratio(2 * right, 2 * right + alone)


def class_f1(counts: CentroidCounts, weights: np.ndarray) -> np.ndarray:
    """``(N, K)`` F1 of each class over all images; NaN without ground truth.

    ``2 TP / (2 TP + 2 FP_class + 2 FN_class + FP_detection + FN_detection)``: a pair of the wrong class weighs twice
    as much as a missed object or a false positive.
    """
    right, wrong, alone, truths = (
        weights @ table[:, 1:] for table in (counts.right, counts.wrong, counts.alone, counts.truths)
    )
    return np.where(truths > 0, ratio(2 * right, 2 * right + 2 * wrong + alone), np.nan)
