"""Connected parts of a graph of objects, with a bound on how far a part reaches across the image.

Links of detections, and suppressions of objects, could form chains without an end: a network that sees one cell over a
whole slide makes one. A part that reaches into three bands of rows, or of columns, is a *chain*; in chains, what joins
objects of different bands does not count. So no more than a few bands need to be known to decide about an object.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parts:
    """The part ``(N,)`` of each of N objects, whether it is in a chain ``(N,)``, and which edges count ``(E,)``."""

    part: np.ndarray
    in_chain: np.ndarray
    counts: np.ndarray


def bounded_parts(first: np.ndarray, second: np.ndarray, corners: np.ndarray, in_chain: np.ndarray, band: int) -> Parts:
    """The connected parts of a graph, without the edges of chains that lead into another band.

    Args:
        first: ``(E,)`` edges join ``first[i]`` and ``second[i]``.
        second: see ``first``.
        corners: ``(N, 2)`` top and left of the objects, in px, which say in what bands they are.
        in_chain: ``(N,)`` bool: objects that belong to a chain of which other objects are not here any more.
        band: px of a band.
    """
    part = _connected(first, second, len(corners))
    bands = corners // band
    in_chain = (_spans(part, bands) >= 2) | (np.bincount(part, in_chain, minlength=len(corners)) > 0)[part]
    counts = ~in_chain[first] | (bands[first] == bands[second]).all(axis=1)
    if not counts.all():
        part = _connected(first[counts], second[counts], len(corners))
    return Parts(part, in_chain, counts)


def whole_parts(part: np.ndarray, is_ready: np.ndarray) -> np.ndarray:
    """``(N,)`` bool: the objects of parts of which every object is ready."""
    return (np.bincount(part, ~is_ready, minlength=len(part)) == 0)[part]


def _spans(part: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """``(N,)`` by how many bands the first and the last object of a part are apart, in rows or in columns."""
    lowest = np.full((len(part), 2), np.iinfo(np.int64).max)
    highest = np.zeros((len(part), 2), np.int64)
    np.minimum.at(lowest, part, bands)
    np.maximum.at(highest, part, bands)
    return np.asarray((highest - lowest).max(axis=1)[part])


def _connected(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
