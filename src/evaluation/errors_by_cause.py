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

    ``truth_of`` (M,) is the true cell that each detection found, of its class and at IoU >= 0.5, or ``NONE``. Higher
    scores match first and a cell is found once, as in COCO's AP50; ``detection_of`` (N,) is the inverse. ``any_truth``
    (M,) and ``any_detection`` (N,) are the same for detections of at least ``threshold``, whatever their class.
    """

    truths: list[Instance]
    detections: list[Instance]
    threshold: float
    truth_of: np.ndarray
    detection_of: np.ndarray
    any_truth: np.ndarray
    any_detection: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # truth, detection, IoU, share of the smaller

    @property
    def confident(self) -> list[Instance]:
        """The detections whose score reaches the threshold."""
        return [cell for cell in self.detections if cell.score >= self.threshold]

    @property
    def is_confident(self) -> np.ndarray:
        """``(M,)`` whether a detection's score reaches the threshold."""
        return np.array([cell.score >= self.threshold for cell in self.detections], bool)

    def false_negatives(self) -> np.ndarray:
        """Indices of the true cells that no confident detection of their class found."""
        return np.flatnonzero((self.detection_of == NONE) | ~np.append(self.is_confident, False)[self.detection_of])

    def false_positives(self) -> np.ndarray:
        """Indices of the confident detections that found nothing."""
        return np.flatnonzero(self.is_confident & (self.truth_of == NONE))

    def f1(self) -> float:
        """F1 of the confident detections at IoU 0.5, class included; 1 where there is nothing on either side."""
        sure = int(np.count_nonzero(self.is_confident))
        hits = int(np.count_nonzero(self.is_confident & (self.truth_of != NONE)))
        return 2 * hits / (len(self.truths) + sure) if self.truths or sure else 1.0


def match_detections(truths: Sequence[Instance], detections: Sequence[Instance], threshold: float) -> Outcomes:
    """Match the detections of an image to its true cells. Time grows with the cells that meet, not with all pairs."""
    truth, detection, iou, share = _meetings(truths, detections)
    scores = np.array([cell.score for cell in detections])
    true_class, found_class = (np.array([c.class_id for c in side], np.int64) for side in (truths, detections))
    order = np.lexsort((-iou, detection, -scores[detection])) if len(detection) else np.zeros(0, np.int64)
    order = order[iou[order] >= IOU]
    same = order[true_class[truth[order]] == found_class[detection[order]]]
    sure = order[scores[detection[order]] >= threshold]
    truth_of, detection_of = _greedy(truth[same], detection[same], len(truths), len(detections))
    any_truth, any_detection = _greedy(truth[sure], detection[sure], len(truths), len(detections))
    pairs = (truth, detection, iou, share)
    return Outcomes(list(truths), list(detections), threshold, truth_of, detection_of, any_truth, any_detection, pairs)


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
    truth_of, detection_of = np.full(found, NONE), np.full(truths, NONE)
    for a, b in zip(truth.tolist(), detection.tolist(), strict=True):
        if truth_of[b] == NONE and detection_of[a] == NONE:
            truth_of[b], detection_of[a] = a, b
    return truth_of, detection_of


def confusion(images: Sequence[Outcomes], class_count: int) -> np.ndarray:
    """``(K + 1, K + 1)`` counts of confident detections: true class down, found class across, 0 the background."""
    matrix = np.zeros((class_count + 1, class_count + 1), np.int64)
    for image in images:
        for index, cell in enumerate(image.truths):
            other = image.any_detection[index]
            matrix[cell.class_id, image.detections[other].class_id if other != NONE else 0] += 1
        for index in np.flatnonzero(image.is_confident & (image.any_truth == NONE)).tolist():
            matrix[0, image.detections[index].class_id] += 1
    return matrix


def cause_of_miss(image: Outcomes, truth: int, height: int, width: int) -> str:
    """Why a true cell was missed, judged by the confident detections and the image's border."""
    sure = image.is_confident
    which = (image.pairs[0] == truth) & sure[image.pairs[1]]
    others, iou, share = (column[which] for column in image.pairs[1:])
    cell = image.truths[truth]
    if any(iou[k] >= IOU and image.detections[others[k]].class_id != cell.class_id for k in range(len(others))):
        return "wrong class"
    inside = [k for k in range(len(others)) if share[k] >= 0.5]
    if len([k for k in inside if image.detections[others[k]].area < cell.area]) >= 2:
        return "split"
    larger = [int(others[k]) for k in inside if image.detections[others[k]].area > 1.5 * cell.area]
    if any(_holds_several(image, other) for other in larger):
        return "merged"
    if cell.top == 0 or cell.left == 0 or cell.bottom == height or cell.right == width:
        return "edge"
    return "outline too far off" if (iou >= TOUCH).any() else "not seen"


def cause_of_false_positive(image: Outcomes, detection: int, height: int, width: int) -> str:
    """Why a confident detection is a false positive."""
    which = image.pairs[1] == detection
    truths, iou, share = image.pairs[0][which], image.pairs[2][which], image.pairs[3][which]
    cell = image.detections[detection]
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
    smaller = np.array([image.truths[t].area < image.detections[detection].area for t in image.pairs[0][which]], bool)
    return int(np.count_nonzero(smaller & (image.pairs[3][which] >= 0.5))) >= 2
