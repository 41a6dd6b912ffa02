"""F1 and accuracy of detection by the IoU that a pair needs, whatever the class, as StarDist and cellpose report them.

Schmidt et al., "Cell detection with star-convex polygons", MICCAI 2018, call TP / (TP + FP + FN) average precision;
StarDist's program, whose definition this is, calls it accuracy. Counts are pooled over all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.label_overlaps import LabelOverlaps
from src.evaluation.weighted import ratio

LIMITS = np.arange(50, 100, 5) / 100  # each the number nearest to its decimals, so that an IoU of 3 / 5 meets 0.6


@dataclass(frozen=True)
class PairCounts:
    """Of I images the pairs and found objects at each limit, ``(I, T)``, and the true objects, ``(I,)``; float64."""

    pairs: np.ndarray
    found: np.ndarray
    truths: np.ndarray


def count_by_iou(images: Sequence[LabelOverlaps]) -> PairCounts:
    """Count the pairs of an IoU of at least each of :data:`LIMITS`, as many one to one as can be.

    A found object without a pair is left out where regions to ignore cover more than half of it.
    """
    pairs, found = np.zeros((2, len(images), len(LIMITS)))
    for row, image in enumerate(images):
        iou = image.iou
        for column, limit in enumerate(LIMITS):
            is_right = _one_to_one(image, iou >= limit)
            pairs[row, column] = np.count_nonzero(is_right)
            found[row, column] = np.count_nonzero(image.counted(is_right))
    return PairCounts(pairs, found, np.array([len(image.true_class) for image in images], np.float64))


def _one_to_one(image: LabelOverlaps, met: np.ndarray) -> np.ndarray:
    """``(P,)`` bool: as many of the pairs ``met`` (P,) bool as can hold at once.

    Above an IoU of one half pairs are one to one already. At one half two objects can share all their pixels with one
    that is as large as both, and neither meets another.
    """
    chosen = np.flatnonzero(met)
    for side in (image.true, image.found):
        chosen = chosen[np.unique(side[chosen], return_index=True)[1]]
    is_chosen = np.zeros(len(met), bool)
    is_chosen[chosen] = True
    return is_chosen


def f1_by_iou(counts: PairCounts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``(N, T)`` F1 and accuracy at each limit; NaN where there are no objects on either side.

    A row for each row of the weights of images (see :mod:`src.evaluation.weighted`).
    """
    pairs = weights @ counts.pairs
    objects = weights @ counts.found + (weights @ counts.truths)[:, None]
    return {"F1": ratio(2 * pairs, objects), "accuracy": ratio(pairs, objects - pairs)}
