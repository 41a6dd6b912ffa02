"""Masks from polygons.

Formats differ in where a pixel lies. In regions drawn on slides (:func:`fill`) its centre is at whole numbers; in the
polygons of COCO, of most tools and in ours (:func:`fill_as_coco`, :func:`fill_even_odd`) its corners are.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from src.geometry.instances import Instance, tight
from src.geometry.overlaps import ranges

FAR = 1e6  # px; corners are clipped to it, so that nothing overflows
CORNERS = 128  # of the polygon that stands for an ellipse
MOST_PAIRS = 1_000_000  # of points and edges that are compared at once
MOST_CROSSINGS = 4_000_000  # rows that the edges of an object cross
Ring = np.ndarray  # (N, 2) corners, x and y, the first not repeated


def fill(corners: Ring, class_id: int, height: int, width: int) -> Instance | None:
    """The pixels of a ``height × width`` image whose centres lie in a polygon or on its edge; ``None`` without any.

    ``corners`` (N, 2) float, x and y, where the centre of the first pixel is at (0, 0).
    """
    from skimage.draw import polygon  # slow to import

    corners = corners.clip(-FAR, FAR)
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    if left >= right or top >= bottom:
        return None
    mask = np.zeros((bottom - top, right - left), bool)
    mask[polygon(corners[:, 1] - top, corners[:, 0] - left, mask.shape)] = True
    return tight(class_id, 1.0, int(top), int(left), mask)


def fill_even_odd(rings: Sequence[Ring], class_id: int, height: int, width: int) -> Instance | None:
    """The pixels of a ``height × width`` image whose centres lie in an odd number of rings; ``None`` without any.

    So what lies in a hole is left out, and so is what a ring that crosses itself encloses twice. Rings are (N, 2)
    float, x and y, where the first pixel reaches from (0, 0) to (1, 1); a centre on an edge is inside where the inside
    is right of it or below. Time and memory grow with the rows that edges cross, and with the box around the pixels.

    Raises:
        ValueError: edges cross more than ``MOST_CROSSINGS`` rows in all.
    """
    starts = np.concatenate(rings).clip(-FAR, FAR)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).clip(-FAR, FAR)
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    first, stop = (np.ceil(y - 0.5).clip(0, height).astype(np.int64) for y in (low, high))
    counts = stop - first
    if counts.sum() > MOST_CROSSINGS:
        raise ValueError(f"the edges cross {counts.sum()} rows")
    edge, rows = np.repeat(np.arange(len(counts)), counts), ranges(first, counts)
    (x, y), (dx, dy) = starts[edge].T, (ends - starts)[edge].T
    columns = np.ceil(x + (rows + 0.5 - y) * dx / dy - 0.5).clip(0, width).astype(np.int64)
    if not len(rows):
        return None
    top, left = int(rows.min()), int(columns.min())
    flips = np.zeros((int(rows.max()) + 1 - top, int(columns.max()) + 1 - left), bool)
    np.logical_xor.at(flips, (rows - top, columns - left), True)
    return tight(class_id, 1.0, top, left, np.logical_xor.accumulate(flips, axis=1))


def count_inside(rings: Sequence[Ring], points: np.ndarray, enough: int) -> int:
    """How many of the ``points`` (N, 2) float lie in an odd number of rings, or ``enough``, where that is fewer."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    near = points[((points >= starts.min(axis=0)) & (points <= starts.max(axis=0))).all(axis=1)]
    at_once, count = max(1, MOST_PAIRS // len(starts)), 0
    for first in range(0, len(near), at_once):
        x, y = near[first : first + at_once].T[:, :, None]
        point, edge = np.nonzero((starts[:, 1] <= y) != (ends[:, 1] <= y))
        (left, low), (right, high) = starts[edge].T, ends[edge].T
        is_left_of = x[point, 0] < left + (y[point, 0] - low) * (right - left) / (high - low)
        count += int(np.count_nonzero(np.bincount(point[is_left_of]) % 2))
        if count >= enough:
            return enough
    return count


def ellipse(center: ArrayLike, radii: ArrayLike, angle: float = 0.0) -> Ring:
    """The polygon that stands for an ellipse with these radii along x and y, turned by ``angle`` from x to y."""
    turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    center, radii = (np.asarray(pair, np.float64).clip(-FAR, FAR) for pair in (center, radii))
    x, y = np.cos(turns) * radii[0], np.sin(turns) * radii[1]
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
    return center + np.stack(turned, axis=1)


def fill_as_coco(polygons: Sequence[Sequence[float]], height: int, width: int) -> str:
    """The union of polygons as COCO's tools draw it, as a compressed RLE of a ``height × width`` image.

    Each polygon is ``[x1, y1, x2, y2, …]`` in px, where the first pixel reaches from (0, 0) to (1, 1): for the rings of
    :mod:`src.geometry.outlines` that is exact. COCO's C code takes memory by the length of the edges and does not check
    it, so polygons must not reach far beyond the image.
    """
    from pycocotools import mask as coco_mask

    counts = coco_mask.merge(coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width))["counts"]
    return str(counts.decode("ascii"))
