"""AJI, AJI+ and Dice of an image: how well found objects cover the true ones, whatever their class.

Found objects that panoptic quality leaves out, because regions to ignore cover more than half of them and they match no
cell, are left out here, too. A figure is NaN in an image without an object on either side.
"""

from dataclasses import dataclass

import numpy as np

from src.evaluation.assignment import assign
from src.evaluation.label_overlaps import LabelOverlaps


@dataclass(frozen=True)
class OverlapScores:
    """Figures of one image, in [0, 1] or NaN."""

    aji: float
    aji_plus: float
    dice: float


def overlap_scores(overlaps: LabelOverlaps) -> OverlapScores:
    """The figures of an image."""
    counts = overlaps.counted(overlaps.iou > 0.5)
    kept = counts[overlaps.found]
    true, found, shared, iou = (part[kept] for part in (overlaps.true, overlaps.found, overlaps.shared, overlaps.iou))
    true_area, found_area = int(overlaps.true_area.sum()), overlaps.found_area * counts
    best = _best_of_each(true, iou)
    one_to_one = assign(true, found, 1 - iou, cost_alone=1)  # the largest sum of IoU
    return OverlapScores(
        _jaccard(found[best], shared[best], true_area, found_area),
        _jaccard(found[one_to_one], shared[one_to_one], true_area, found_area),
        _share(2 * int(shared.sum()), true_area + int(found_area.sum())),
    )


def _best_of_each(true: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """For each true object that meets any found one, the pair of the highest IoU; of equals the first."""
    order = np.lexsort((-iou, true))  # stable
    return order[np.diff(true[order], prepend=-1) != 0]


def _jaccard(found: np.ndarray, shared: np.ndarray, true_area: int, found_area: np.ndarray) -> float:
    """Intersections of the pairs over their unions and the areas of all objects that are in none.

    Kumar et al., "A dataset and a technique for generalized nuclear segmentation for computational pathology", IEEE TMI
    2017, take for each true object the found one of the highest IoU (AJI). So one that is the best for several adds its
    area several times, which AJI+ avoids (Graham et al., HoVer-Net, 2019): its pairs are one to one.

    Args:
        found: ``(Q,)`` found objects of the pairs, each of another true object.
        shared: ``(Q,)`` px that they share with these.
        true_area: px of all true objects.
        found_area: ``(M,)`` px of each found object.
    """
    unused = np.ones(len(found_area), bool)
    unused[found] = False
    both = int(shared.sum())
    return _share(both, true_area + int(found_area[found].sum()) - both + int(found_area[unused].sum()))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
