"""The eight ways to look at a square lattice, for test-time augmentation, and how their detections become one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """First an optional swap of rows and columns, then optional flips of the rows and of the columns."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False


VIEWS = {
    "none": (View(),),
    "flips": tuple(View(False, rows, columns) for rows in (False, True) for columns in (False, True)),
    "full": tuple(View(swap, rows, cols) for swap in (False, True) for rows in (False, True) for cols in (False, True)),
}


@dataclass(frozen=True, eq=False)
class Detections:
    """What the network says of one tile.

    ``boxes`` (N, 4) float32 xyxy in tile px, max exclusive; ``scores`` (N,) float32 in [0, 1]; ``labels`` (N,)
    int64 in 1..K; ``masks`` (N, M, M) float32 probabilities inside the boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def undo(detections: Detections, view: View, height: int, width: int) -> Detections:
    """Detections in a view of a ``height × width`` tile as detections in the tile itself."""
    boxes, masks = detections.boxes.copy(), detections.masks
    seen_height, seen_width = (width, height) if view.transpose else (height, width)
    if view.flip_rows:
        boxes[:, [1, 3]] = seen_height - boxes[:, [3, 1]]
        masks = masks[:, ::-1]
    if view.flip_columns:
        boxes[:, [0, 2]] = seen_width - boxes[:, [2, 0]]
        masks = masks[:, :, ::-1]
    if view.transpose:
        boxes, masks = boxes[:, [1, 0, 3, 2]], masks.transpose(0, 2, 1)
    return Detections(boxes, detections.scores, detections.labels, masks)


def merge(views: Sequence[Detections], iou_threshold: float = 0.5) -> Detections:
    """Unite the detections of several views of one tile.

    Per class and in score order a detection gathers the best one of each view that overlaps it by ``iou_threshold``
    box IoU or more. Box and mask become their mean, weighted by score; the score becomes the mean over all views, a
    view that saw nothing counting 0, so that what the views agree on ranks first.
    """
    if len(views) == 1:
        return views[0]
    boxes, scores, labels, masks = (
        np.concatenate([getattr(view, name) for view in views]) for name in ("boxes", "scores", "labels", "masks")
    )
    source = np.repeat(np.arange(len(views)), [len(view.scores) for view in views])
    groups = [
        members[group]
        for label in np.unique(labels)
        for members in [np.flatnonzero(labels == label)]
        for group in _clusters(boxes[members], scores[members], source[members], iou_threshold)
    ]
    merged = [_mean(boxes[group], scores[group], masks[group], len(views)) for group in groups]
    order = np.argsort([-score for _, score, _ in merged], kind="stable")
    side = masks.shape[-1]
    return Detections(
        np.array([merged[i][0] for i in order], np.float32).reshape(-1, 4),
        np.array([merged[i][1] for i in order], np.float32),
        np.array([labels[groups[i][0]] for i in order], np.int64),
        np.array([merged[i][2] for i in order], np.float32).reshape(-1, side, side),
    )


def _mean(
    boxes: np.ndarray, scores: np.ndarray, masks: np.ndarray, view_count: int
) -> tuple[np.ndarray, float, np.ndarray]:
    shares = scores / max(scores.sum(), 1e-12)
    return shares @ boxes, float(scores.sum() / view_count), np.tensordot(shares, masks, axes=1)


def _clusters(boxes: np.ndarray, scores: np.ndarray, source: np.ndarray, iou_threshold: float) -> list[np.ndarray]:
    """Indices of the detections of one class that belong together, each cluster's best first, one a view at most."""
    ious = box_iou(boxes, boxes)
    free = np.ones(len(boxes), bool)
    clusters = []
    for best in np.argsort(-scores, kind="stable"):
        if not free[best]:
            continue
        near = np.flatnonzero(free & (ious[best] >= iou_threshold))
        free[near] = False
        near = near[np.lexsort((-ious[best, near], near != best))]
        _, first = np.unique(source[near], return_index=True)
        chosen = near[np.sort(first)]
        clusters.append(chosen)
    return clusters


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(N, M)`` intersection over union of xyxy boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas_a, areas_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return shared / np.maximum(areas_a[:, None] + areas_b[None] - shared, 1e-12)
