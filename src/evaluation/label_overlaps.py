"""The true and the found objects of an image, painted without overlaps, and which of them share pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.average_precision import covered_shares
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, to_label_map


@dataclass(frozen=True, eq=False)
class LabelOverlaps:
    """N true and M found objects of an image, in which a pixel is of one object of a side, and P pairs of them.

    Only objects with a pixel of their own are counted. ``true_class``, ``found_class``: ``(N,)`` and ``(M,)`` int.
    ``true_area``, ``found_area``: their px, int64. ``is_covered``: ``(M,)`` bool, whether regions to ignore cover more
    than half of a found object. Pair i shares ``shared[i]`` px and is ``true[i], found[i]``, indices in this order;
    ``iou``: ``(P,)`` float64 in (0, 1].
    """

    true_class: np.ndarray
    true_area: np.ndarray
    found_class: np.ndarray
    found_area: np.ndarray
    is_covered: np.ndarray
    true: np.ndarray
    found: np.ndarray
    shared: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair."""
        return self.shared / (self.true_area[self.true] + self.found_area[self.found] - self.shared)

    def counted(self, is_right: np.ndarray) -> np.ndarray:
        """``(M,)`` bool: which found objects count, if the pairs ``is_right`` (P,) bool are right.

        All but those that are in no such pair and that regions to ignore cover by more than half.
        """
        counts = ~self.is_covered
        counts[self.found[is_right]] = True
        return counts


def label_overlaps(truth: ImageTruth, predictions: Sequence[Instance]) -> LabelOverlaps:
    """Paint both sides, overlapping pixels going to the higher score, and count the pixels that objects share.

    Memory is two ``(H, W)`` maps, however many objects there are.
    """
    true_map = to_label_map(truth.instances, truth.height, truth.width)
    found_map = to_label_map(predictions, truth.height, truth.width)
    true_area = np.bincount(true_map.ravel(), minlength=len(truth.instances) + 1)[1:]
    found_area = np.bincount(found_map.ravel(), minlength=len(predictions) + 1)[1:]
    both = (true_map > 0) & (found_map > 0)
    joint = (true_map[both] - np.int64(1)) * len(found_area) + (found_map[both] - 1)
    pairs, shared = np.unique(joint, return_counts=True)
    true, found = np.divmod(pairs, max(len(found_area), 1))
    is_covered = covered_shares(predictions, truth.ignored, together=True) > 0.5
    seen_true, seen_found = true_area > 0, found_area > 0
    return LabelOverlaps(
        _classes(truth.instances)[seen_true],
        true_area[seen_true],
        _classes(predictions)[seen_found],
        found_area[seen_found],
        is_covered[seen_found],
        np.cumsum(seen_true)[true] - 1,
        np.cumsum(seen_found)[found] - 1,
        shared,
    )


def _classes(instances: Sequence[Instance]) -> np.ndarray:
    return np.array([instance.class_id for instance in instances], np.int64)
