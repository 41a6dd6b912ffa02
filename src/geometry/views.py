"""The eight views (flips and quarter turns) of test-time augmentation, and how their detections are merged."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from src.geometry.detections import Detections, resample


@dataclass(frozen=True)
class View:
    """A flip or quarter turn: an optional swap of rows and columns, then optional flips of the rows and the columns."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False


VIEWS = {
    "none": (View(),),
    "flips": tuple(View(False, rows, columns) for rows in (False, True) for columns in (False, True)),
    "full": tuple(View(swap, rows, cols) for swap in (False, True) for rows in (False, True) for cols in (False, True)),
}


def undo(detections: Detections, view: View, height: int, width: int) -> Detections:
    """Detections in a view of a ``height × width`` tile as detections in the tile itself."""
    masks = detections.masks
    if view.flip_rows:
        masks = masks[:, ::-1]
    if view.flip_columns:
        masks = masks[:, :, ::-1]
    if view.transpose:
        masks = masks.transpose(0, 2, 1)
    return replace(detections, masks=masks).with_boxes(lambda boxes: _undo_boxes(boxes, view, height, width))


def _undo_boxes(boxes: np.ndarray, view: View, height: int, width: int) -> np.ndarray:
    boxes = boxes.copy()
    seen_height, seen_width = (width, height) if view.transpose else (height, width)
    if view.flip_rows:
        boxes[:, [1, 3]] = seen_height - boxes[:, [3, 1]]
    if view.flip_columns:
        boxes[:, [0, 2]] = seen_width - boxes[:, [2, 0]]
    return boxes[:, [1, 0, 3, 2]] if view.transpose else boxes


def merge(views: Sequence[Detections], iou_threshold: float = 0.5) -> Detections:
    """Unite the detections of several views of one tile.

    Per class and in score order a detection gathers the best one of each view that overlaps it by ``iou_threshold``
    box IoU or more. Box, mask and class probabilities become their mean, weighted by score; the score becomes the mean
    over all views, a view that saw nothing counting 0, so that what the views agree on ranks first.
    """
    if len(views) == 1:
        return views[0]
    found = Detections(*(np.concatenate([getattr(view, item.name) for view in views]) for item in fields(Detections)))
    source = np.repeat(np.arange(len(views)), [len(view.scores) for view in views])
    groups = [
        members[group]
        for label in np.unique(found.labels)
        for members in [np.flatnonzero(found.labels == label)]
        for group in _clusters(found.boxes[members], found.scores[members], source[members], iou_threshold)
    ]
    return _mean(found, groups, len(views)) if groups else found


def _mean(found: Detections, groups: Sequence[np.ndarray], view_count: int) -> Detections:
    """One detection per group, best first; masks are resampled to the mean of their boxes before they are averaged."""
    members = np.concatenate(groups)
    sizes = np.array([len(group) for group in groups])
    starts = np.cumsum(sizes) - sizes
    scores = found.scores[members]
    sums = np.add.reduceat(scores, starts)
    shares = scores / np.repeat(np.maximum(sums, 1e-12), sizes)
    order = np.argsort(-sums, kind="stable")
    mean = found.with_boxes(lambda boxes: np.add.reduceat(boxes[members] * shares[:, None], starts))
    masks = resample(found.masks[members], found.mask_boxes[members], np.repeat(mean.mask_boxes, sizes, axis=0))
    masks = np.add.reduceat(masks * shares[:, None, None], starts)[order]
    labels = found.labels[members[starts]][order]
    probabilities = np.add.reduceat(found.probabilities[members] * shares[:, None], starts)[order]
    return replace(
        mean, scores=sums[order] / view_count, labels=labels, masks=masks, probabilities=probabilities
    ).with_boxes(lambda boxes: boxes[order])


def _clusters(boxes: np.ndarray, scores: np.ndarray, source: np.ndarray, iou_threshold: float) -> list[np.ndarray]:
    """Groups of detections of one class, as indices, the best of each group first; at most one per view."""
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
