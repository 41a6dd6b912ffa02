"""The exact outlines of objects along the edges of their pixels, of many objects at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from src.geometry.instances import Instance
from src.geometry.overlaps import ranges
from src.geometry.polygons import Ring
from src.geometry.stacks import Stack

# How many corners of outlines lie where four pixels meet, by which of them are set: 1 for the one above left, 2 above
# right, 4 below left, 8 below right.
CORNERS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], np.uint8)
FALLING = 9  # of two pixels that touch at a corner alone, the left one is above; 6 is the other diagonal


@dataclass(frozen=True)
class Outlines:
    """The outlines of N objects: polygons of rings of corners.

    Corners are whole numbers of the image, where the first pixel reaches from (0, 0) to (1, 1). A polygon is a piece of
    an object: its outer ring, then its holes. Pieces that touch at a corner alone are pieces of their own, and so are
    such holes; no ring touches itself. A ring begins at the leftmost of its topmost corners and goes down first; rings
    are in the order of their first corners, by rows.

    Attributes:
        corners: (P, 2) int64, x and y, of all rings; the first of a ring is not repeated.
        ring_sizes: (R,) int64, corners of each ring.
        polygon_sizes: (G,) int64, rings of each polygon.
        object_sizes: (N,) int64, polygons of each object.
    """

    corners: np.ndarray
    ring_sizes: np.ndarray
    polygon_sizes: np.ndarray
    object_sizes: np.ndarray

    @cached_property
    def closed(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners with the first of each ring repeated at its end, and the sizes of the rings with it."""
        ends = np.cumsum(self.ring_sizes)
        return np.insert(self.corners, ends, self.corners[ends - self.ring_sizes], axis=0), self.ring_sizes + 1

    def rings(self) -> list[Ring]:
        """The corners of each ring."""
        ends = np.cumsum(self.ring_sizes).tolist()
        return [self.corners[end - size : end] for end, size in zip(ends, self.ring_sizes.tolist(), strict=True)]

    def grouped(self, rings: list) -> Iterator[list[list]]:
        """What there is of each ring, by object and polygon: for each object a list of polygons, lists of rings."""
        ring, polygon, sizes = 0, 0, self.polygon_sizes.tolist()
        for count in self.object_sizes.tolist():
            polygons = []
            for size in sizes[polygon : polygon + count]:
                polygons.append(rings[ring : ring + size])
                ring += size
            polygon += count
            yield polygons


def outlines(instance: Instance) -> list[list[Ring]]:
    """The polygons of one object: per piece its outer ring, then its holes; see :class:`Outlines`."""
    found = trace(Stack.of([instance]))
    return next(found.grouped(found.rings()))


def trace(stack: Stack) -> Outlines:
    """The outlines of the objects of a stack.

    Where outlines turn, a horizontal edge meets a vertical one. Along a row of corners, and along a column, edges join
    the first with the second, the third with the fourth, and so on; rings follow the edges of both kinds in turn.
    """
    pixels = stack.pixels
    _, pieces = cv2.connectedComponents(pixels, connectivity=4)
    beside = pixels[:, :-1] | pixels[:, 1:] << 1
    patterns = beside[:-1] | beside[1:] << 2
    counts = CORNERS[patterns].ravel()
    places = np.flatnonzero(counts > 0)  # of bool it is faster
    places = np.repeat(places, counts[places])
    rows, columns = np.divmod(places, patterns.shape[1])  # the corner's px below right is at rows + 1, columns + 1
    order, starts = _follow(_vertical(columns, _swapped(places, rows, columns, patterns, pieces)))
    sizes = np.diff(starts, append=len(order))
    top, left = rows[order[starts]], columns[order[starts]]
    is_outer = pixels[top + 1, left + 1] == 1
    piece = pieces[top + is_outer, left + 1]  # above a hole is what surrounds it
    polygon = np.zeros(piece.max(initial=0) + 1, np.int64)
    polygon[piece[is_outer]] = np.arange(np.count_nonzero(is_outer))
    by_polygon = np.argsort(polygon[piece], kind="stable")  # the outer ring begins before the holes do
    order, sizes = order[ranges(starts[by_polygon], sizes[by_polygon])], sizes[by_polygon]
    owner = stack.objects_at(top + 1)
    shift = stack.places - np.stack([np.zeros_like(stack.rows), stack.rows - 1], axis=1)
    corners = np.stack([columns[order], rows[order]], axis=1) + np.repeat(shift[owner[by_polygon]], sizes, axis=0)
    polygon_sizes = np.bincount(polygon[piece])
    return Outlines(corners, sizes, polygon_sizes, np.bincount(owner[is_outer], minlength=len(stack)))


def _swapped(
    places: np.ndarray, rows: np.ndarray, columns: np.ndarray, patterns: np.ndarray, pieces: np.ndarray
) -> np.ndarray:
    """``(S,)`` the first of each two corners at one place, with edges to the left and the right, where the second has
    the edge up and the first the edge down.

    Two pixels of one piece keep the outline together there, and those of different pieces keep to themselves.
    """
    first = np.flatnonzero(places[1:] == places[:-1])
    row, column = rows[first], columns[first]
    is_falling = patterns[row, column] == FALLING
    above, below = pieces[row, column + ~is_falling], pieces[row + 1, column + is_falling]
    return first[is_falling == (above == below)]


def _vertical(columns: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """``(P,)`` the corner at the other end of each corner's vertical edge; corners are sorted by rows, then columns."""
    slots = np.arange(len(columns))  # from top to bottom, at one place too
    slots[swapped], slots[swapped + 1] = swapped + 1, swapped
    order = np.argsort(columns.astype(np.min_scalar_type(columns.max(initial=0))), kind="stable")
    other = np.empty_like(slots)
    other[order[::2]], other[order[1::2]] = order[1::2], order[::2]
    return slots[other[slots]]


def _follow(vertical: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(P,)`` the corners ring by ring, and ``(R,)`` where rings begin; a horizontal edge joins corners 2i and 2i + 1.

    A pace, along a vertical edge and then a horizontal one, leads from every other corner of a ring to the next such,
    and from the corners between them around the other way.
    """
    first = _least_ahead(vertical ^ 1)
    is_forward = first < first[vertical]  # so that rings begin with their first corner
    forward, number = np.flatnonzero(is_forward), np.cumsum(is_forward) - 1
    pace, first = number[(vertical ^ 1)[forward]], number[first[forward]]
    sizes = np.bincount(first)
    place = np.cumsum(sizes)[first] - 1 - _paces_left(pace, first)
    order = np.empty((len(forward), 2), np.int64)
    order[place] = np.stack([forward, vertical[forward]], axis=1)
    sizes = 2 * sizes[sizes > 0]
    return order.ravel(), np.cumsum(sizes) - sizes


def _least_ahead(pace: np.ndarray) -> np.ndarray:
    """``(P,)`` the least place of the cycle that each place is in; each pass looks twice as far ahead as the last."""
    least = np.arange(len(pace))
    while ((nearer := least[pace]) < least).any():
        least, pace = np.minimum(least, nearer), pace[pace]
    return least


def _paces_left(pace: np.ndarray, first: np.ndarray) -> np.ndarray:
    """``(P,)`` how many paces lead from each place to the last of its cycle, which begins at ``first``."""
    is_last = pace == first
    left, ahead = (~is_last).astype(np.int64), np.where(is_last, np.arange(len(pace)), pace)
    while (more := left[ahead]).any():
        left, ahead = left + more, ahead[ahead]
    return left
