"""Find overlapping objects in time and memory that grow with their number, not with that of all pairs."""

from collections.abc import Sequence

import numpy as np

from src.geometry.instances import Instance, intersection


def overlapping_pairs(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of boxes that share a pixel.

    Boxes are sorted into square bins about as wide as an average box, so that the work grows with the number of boxes
    and of pairs. A pair that meets in several bins counts in the one with its intersection's first corner.

    Args:
        boxes: ``(N, 4)`` int rows ``top, left, bottom, right``, max exclusive, none negative or empty.

    Returns:
        Two int arrays of indices into ``boxes``; pair i is ``first[i], second[i]``, each pair once.
    """
    if not len(boxes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    sides = boxes[:, 2:] - boxes[:, :2]
    bin_size = int(np.ceil(max(sides.mean(), np.sqrt(sides.prod(axis=1, dtype=float).mean()))))
    box, bins = _binned(boxes, bin_size)
    key = bins[:, 0] * (bins[:, 1].max() + 1) + bins[:, 1]
    order = np.argsort(key, kind="stable")
    box, bins, key = box[order], bins[order], key[order]
    following = np.arange(1, len(key) + 1)
    counts = np.searchsorted(key, key, side="right") - following
    entry = np.repeat(following - 1, counts)
    first, second = box[entry], box[ranges(following, counts)]
    corner = np.maximum(boxes[first, :2], boxes[second, :2])
    meets = (corner < np.minimum(boxes[first, 2:], boxes[second, 2:])).all(axis=1)
    meets &= (corner // bin_size == bins[entry]).all(axis=1)
    return first[meets], second[meets]


def shared_pixels(instances: Sequence[Instance], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(P,)`` numbers of pixels that the masks of the pairs ``first[i], second[i]`` share."""
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return np.array([intersection(instances[a], instances[b]) for a, b in pairs], np.int64)


def _binned(boxes: np.ndarray, bin_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every box with every bin it touches: ``(E,)`` indices of boxes and ``(E, 2)`` rows and columns of bins."""
    start = boxes[:, :2] // bin_size
    span = (boxes[:, 2:] - 1) // bin_size - start + 1
    counts = span.prod(axis=1)
    box = np.repeat(np.arange(len(boxes)), counts)
    step = ranges(np.zeros(len(boxes), np.int64), counts)
    return box, start[box] + np.stack([step // span[box, 1], step % span[box, 1]], axis=1)


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``arange(starts[i], starts[i] + counts[i])`` for each i, joined."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)
