"""Resizing of masks: each cell by the area that it covers, so that cells stay where their image's pixels are."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from src.data.masks import CellPixels
from src.geometry.overlaps import ranges

BAND_PIXELS = 2_000_000  # of the new mask that are worked on at once, to bound the memory


class Runs(NamedTuple):
    """Pixels side by side of one cell: their ``row``, columns ``start`` to ``end`` (exclusive), ``id``; (N,) int64."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    id: np.ndarray


def scale_cells(cells: CellPixels, shape: tuple[int, int]) -> CellPixels:
    """Resize a mask to ``shape`` (H, W): a pixel belongs to the cell that covers at least half of it.

    A pixel of which two cells cover half each goes to the one or the other as on a chessboard, so that neighbours do
    not move. Ids stay; that of a cell that vanishes is unused. All is counted in whole numbers, without rounding. Time
    and memory grow with the pixels of the cells, before and after.
    """
    runs = _runs(cells)
    found = [_covered(band, rows, cells.shape, shape) for band, rows in _bands(runs, cells.shape[0], shape)]
    places, ids = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in zip(*found, strict=True))
    return CellPixels(shape, places, ids.astype(np.int32))


def _runs(cells: CellPixels) -> Runs:
    rows, columns = np.divmod(cells.places, cells.shape[1])
    is_start = np.ones(len(rows), bool)
    is_start[1:] = (np.diff(cells.places) != 1) | (np.diff(cells.ids) != 0) | (np.diff(rows) != 0)
    first = np.flatnonzero(is_start)
    lengths = np.diff(first, append=len(rows))
    return Runs(rows[first], columns[first], columns[first] + lengths, cells.ids[first].astype(np.int64))


def _bands(runs: Runs, height: int, shape: tuple[int, int]) -> Iterator[tuple[Runs, tuple[int, int]]]:
    """Bands of rows of the new mask, each with the runs that reach into it; ``height`` is that of the old mask."""
    new_height, width = shape
    step = max(BAND_PIXELS // width, 1)
    for top in range(0, new_height, step):
        bottom = min(top + step, new_height)
        low = np.searchsorted(runs.row, top * height // new_height)
        high = np.searchsorted(runs.row, -(-bottom * height // new_height))
        yield Runs(*(column[low:high] for column in runs)), (top, bottom)


def _covered(
    runs: Runs, rows: tuple[int, int], old: tuple[int, int], new: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Places (P,), ascending, and ids (P,) of the new mask's pixels in ``rows`` of which a cell covers half or more.

    Lengths are in units of which an old pixel has as many as the new mask has pixels on that side, and the reverse.
    """
    run, row, height = _overlaps(runs.row, runs.row + 1, old[0], new[0])
    inside = (rows[0] <= row) & (row < rows[1])
    by_row = np.flatnonzero(inside)[np.argsort(row[inside], kind="stable")]
    run, row, height = run[by_row], row[by_row], height[by_row]
    part, column, width = _overlaps(runs.start[run], runs.end[run], old[1], new[1])
    ids = runs.id[run]
    most = int(ids.max(initial=0)) + 1
    key = (row * new[1] * most + ids)[part] + column * most
    order = np.argsort(key, kind="stable")  # fast, since the places of each row of old pixels are in order
    key, area = key[order], (height[part] * width)[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    covered = np.add.reduceat(area, first) if len(first) else area
    place, ids = np.divmod(key[first[2 * covered >= old[0] * old[1]]], most)
    return _one_per_place(place, ids, new[1])


def _overlaps(start: np.ndarray, end: np.ndarray, old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which new pixels of a side each interval of old ones meets, and over which length.

    Returns:
        The index of the interval, the new pixel and the length, each (M,) int64.
    """
    low, high = start * new, end * new
    first = low // old
    counts = -(-high // old) - first
    index, pixel = np.repeat(np.arange(len(start)), counts), ranges(first, counts)
    return index, pixel, np.minimum(high[index], (pixel + 1) * old) - np.maximum(low[index], pixel * old)


def _one_per_place(places: np.ndarray, ids: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave one of the two ids that a place may have."""
    is_pair = np.zeros(len(places), bool)
    is_pair[:-1] = np.diff(places) == 0
    is_even = (places // width + places % width) % 2 == 0
    dropped = is_pair & is_even
    dropped[1:] |= (is_pair & ~is_even)[:-1]
    return places[~dropped], ids[~dropped]
