"""Match the detections of an image to its true cells, and name the cause of each error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.geometry.instances import Instance, intersection
from src.geometry.overlaps import overlapping_pairs

IOU = 0.5
TOUCH = 0.1  # IoU from which an error counts as a poor outline rather than as a missing cell
NONE = -1


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The N true cells and M detections of one image.

    ``truth_of`` (M,): the true cell that a detection found, of its class and of IoU >= 0.5, or ``NONE``; the higher
    score comes first, and a cell is found once, as in COCO's AP50. ``found_by`` (N,) is the way back. ``any_truth``
    (M,) and ``any_found`` (N,): the same where a cell counts as found whatever its class, by the detections of at least
    ``threshold``.
    """

    truths: list[Instance]
    found: list[Instance]
    threshold: float
    truth_of: np.ndarray
    found_by: np.ndarray
    any_truth: np.ndarray
    any_found: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # truth, detection, IoU, share of the smaller

    @property
    def is_sure(self) -> np.ndarray:
        """``(M,)`` whether a detection's score reaches the threshold."""
        return np.array([cell.score >= self.threshold for cell in self.found], bool)

    def false_negatives(self) -> np.ndarray:
        """Indices of the true cells that no sure detection of their class found."""
        return np.flatnonzero((self.found_by == NONE) | ~np.append(self.is_sure, False)[self.found_by])

    def false_positives(self) -> np.ndarray:
        """Indices of the sure detections that found nothing."""
        return np.flatnonzero(self.is_sure & (self.truth_of == NONE))

    def f1(self) -> float:
        """F1 of the sure detections at IoU 0.5, class included; 1 where there is nothing on either side."""
        sure = int(np.count_nonzero(self.is_sure))
        hits = int(np.count_nonzero(self.is_sure & (self.truth_of != NONE)))
        return 2 * hits / (len(self.truths) + sure) if self.truths or sure else 1.0


def match_detections(truths: Sequence[Instance], found: Sequence[Instance], threshold: float) -> Outcomes:
    """Match the detections of an image to its true cells. Time grows with the cells that meet, not with all pairs."""
    truth, detection, iou, share = _meetings(truths, found)
    scores = np.array([cell.score for cell in found])
    true_class, found_class = (np.array([c.class_id for c in side], np.int64) for side in (truths, found))
    order = np.lexsort((-iou, detection, -scores[detection])) if len(detection) else np.zeros(0, np.int64)
    order = order[iou[order] >= IOU]
    same = order[true_class[truth[order]] == found_class[detection[order]]]
    sure = order[scores[detection[order]] >= threshold]
    truth_of, found_by = _greedy(truth[same], detection[same], len(truths), len(found))
    any_truth, any_found = _greedy(truth[sure], detection[sure], len(truths), len(found))
    pairs = (truth, detection, iou, share)
    return Outcomes(list(truths), list(found), threshold, truth_of, found_by, any_truth, any_found, pairs)


def _meetings(truths: Sequence[Instance], found: Sequence[Instance]) -> tuple[np.ndarray, ...]:
    """True cell, detection, IoU and share of the smaller of every pair that shares pixels."""
    both = [*truths, *found]
    boxes = np.array([(cell.top, cell.left, cell.bottom, cell.right) for cell in both], np.int64).reshape(-1, 4)
    first, second = overlapping_pairs(boxes)
    first, second = np.minimum(first, second), np.maximum(first, second)
    mixed = (first < len(truths)) & (second >= len(truths))
    first, second = first[mixed], second[mixed]
    shared = np.array([intersection(both[a], both[b]) for a, b in zip(first, second, strict=True)], np.float64)
    areas = np.array([cell.area for cell in both], np.float64)
    meets = shared > 0
    first, second, shared = first[meets], second[meets], shared[meets]
    iou = shared / (areas[first] + areas[second] - shared)
    return first, second - len(truths), iou, shared / np.minimum(areas[first], areas[second])


def _greedy(truth: np.ndarray, detection: np.ndarray, truths: int, found: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in the order given, each side at most once."""
    truth_of, found_by = np.full(found, NONE), np.full(truths, NONE)
    for a, b in zip(truth.tolist(), detection.tolist(), strict=True):
        if truth_of[b] == NONE and found_by[a] == NONE:
            truth_of[b], found_by[a] = a, b
    return truth_of, found_by


def confusion(images: Sequence[Outcomes], class_count: int) -> np.ndarray:
    """``(K + 1, K + 1)`` counts of sure detections: true class down, found class across, 0 the background."""
    matrix = np.zeros((class_count + 1, class_count + 1), np.int64)
    for image in images:
        for index, cell in enumerate(image.truths):
            other = image.any_found[index]
            matrix[cell.class_id, image.found[other].class_id if other != NONE else 0] += 1
        for index in np.flatnonzero(image.is_sure & (image.any_truth == NONE)).tolist():
            matrix[0, image.found[index].class_id] += 1
    return matrix


def cause_of_miss(image: Outcomes, truth: int, height: int, width: int) -> str:
    """Why a true cell was missed, judged by the confident detections and the image's border."""
    sure = image.is_sure
    which = (image.pairs[0] == truth) & sure[image.pairs[1]]
    others, iou, share = (column[which] for column in image.pairs[1:])
    cell = image.truths[truth]
    if any(iou[k] >= IOU and image.found[others[k]].class_id != cell.class_id for k in range(len(others))):
        return "wrong class"
    inside = [k for k in range(len(others)) if share[k] >= 0.5]
    if len([k for k in inside if image.found[others[k]].area < cell.area]) >= 2:
        return "split"
    if any(image.found[others[k]].area > 1.5 * cell.area and _holds_several(image, int(others[k])) for k in inside):
        return "merged"
    if cell.top == 0 or cell.left == 0 or cell.bottom == height or cell.right == width:
        return "edge"
    return "outline too far off" if (iou >= TOUCH).any() else "not seen"


def cause_of_false_positive(image: Outcomes, detection: int, height: int, width: int) -> str:
    """Why a confident detection is a false positive."""
    which = image.pairs[1] == detection
    truths, iou, share = image.pairs[0][which], image.pairs[2][which], image.pairs[3][which]
    cell = image.found[detection]
    if (iou >= IOU).any():
        wrong = all(image.truths[t].class_id != cell.class_id for t in truths[iou >= IOU])
        return "wrong class" if wrong else "found twice"
    if _holds_several(image, detection):
        return "merged"
    if any(share[k] >= 0.5 and cell.area < image.truths[truths[k]].area for k in range(len(truths))):
        return "part of a cell"
    if cell.top == 0 or cell.left == 0 or cell.bottom == height or cell.right == width:
        return "edge"
    return "outline too far off" if (iou >= TOUCH).any() else "no cell there, or none was labelled"


def _holds_several(image: Outcomes, detection: int) -> bool:
    """Whether a detection covers most of two true cells or more."""
    which = image.pairs[1] == detection
    smaller = np.array([image.truths[t].area < image.found[detection].area for t in image.pairs[0][which]], bool)
    return int(np.count_nonzero(smaller & (image.pairs[3][which] >= 0.5))) >= 2
