"""Resizing of masks: each cell by the area that it covers, so that cells stay where their image's pixels are."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from src.data.masks import CellPixels
from src.geometry.overlaps import ranges

BAND_PIXELS = 2_000_000  # of the new mask that are worked on at once, to bound the memory
UNSURE = (0.2, 0.8)  # share of a pixel that a cell covers, between which the pixel may be the cell's or not
FEWEST_PIXELS = 4  # of a cell whose outline is corrected; of fewer each counts too much


class Runs(NamedTuple):
    """Pixels side by side of one cell: their ``row``, columns ``start`` to ``end`` (exclusive), ``id``; (N,) int64."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    id: np.ndarray


class Parts(NamedTuple):
    """Pixels of the new mask that cells cover: ``place``, ``id`` (M,) int64, the ``share`` (M,), whether ``is_in``."""

    place: np.ndarray
    id: np.ndarray
    share: np.ndarray
    is_in: np.ndarray


def scale_cells(cells: CellPixels, shape: tuple[int, int]) -> CellPixels:
    """Resize a mask to ``shape`` (H, W): a pixel belongs to the cell that covers at least half of it.

    A pixel of which two cells cover half each goes to the one or the other as on a chessboard, so that neighbours do
    not move. Where an outline lies near the middle of pixels, most of which would then fall to the same side, some are
    given to the other, so that the cell's centroid stays. Ids stay; that of a cell that vanishes is unused. Time and
    memory grow with the pixels of the cells, before and after.
    """
    runs = _runs(cells)
    found = [_parts(band, rows, cells.shape, shape) for band, rows in _bands(runs, cells.shape[0], shape)]
    parts = Parts(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    _center(parts, _centers(runs, cells.shape, shape), shape[1])
    return CellPixels(shape, parts.place[parts.is_in], parts.id[parts.is_in].astype(np.int32))


def _centers(runs: Runs, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """The centroid (N + 1, 2) of each id, y and x in px of the new mask; those of the first pixel are 0."""
    lengths = runs.end - runs.start
    areas = np.maximum(np.bincount(runs.id, lengths), 1)
    sums = (np.bincount(runs.id, lengths * middle) for middle in (runs.row + 0.5, (runs.start + runs.end) / 2))
    return np.stack([total / areas * (new[k] / old[k]) - 0.5 for k, total in enumerate(sums)], axis=1)


def _center(parts: Parts, centers: np.ndarray, width: int) -> None:
    """Change ``is_in`` of unsure pixels at the ends of cells, first along columns, then along rows.

    A cell takes or gives away those of which it covers nearest to half, until its centroid is at its place in
    ``centers``.
    """
    ids = parts.id[parts.is_in]
    counts = np.bincount(ids, minlength=len(centers))
    sums = [np.bincount(ids, axis, minlength=len(centers)) for axis in np.divmod(parts.place[parts.is_in], width)]
    unsure = _unsure(parts)
    place = np.divmod(parts.place[unsure], width)
    offset = [place[k] - centers[parts.id[unsure], k] for k in (0, 1)]
    for axis in (0, 1):
        missing = np.where(counts >= FEWEST_PIXELS, centers[:, axis] * counts - sums[axis], 0.0)
        changed = unsure[_needed(parts, unsure, offset[axis], np.abs(offset[1 - axis]), missing)]
        parts.is_in[changed] ^= True
        sign = np.where(parts.is_in[changed], 1, -1)
        counts = counts + np.bincount(parts.id[changed], sign, minlength=len(centers))
        for k, places in enumerate(np.divmod(parts.place[changed], width)):
            sums[k] = sums[k] + np.bincount(parts.id[changed], sign * places, minlength=len(centers))


def _unsure(parts: Parts) -> np.ndarray:
    """Indices of the pixels that may be a cell's or not, without those that another cell may have."""
    is_alone = np.ones(len(parts.place), bool)
    is_same = np.diff(parts.place) == 0
    is_alone[1:] &= ~is_same
    is_alone[:-1] &= ~is_same
    return np.flatnonzero(is_alone & (parts.share > UNSURE[0]) & (parts.share < UNSURE[1]))


def _needed(parts: Parts, unsure: np.ndarray, along: np.ndarray, across: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Which of the unsure pixels are to change so that the sum of each id's offsets ``along`` an axis is right.

    Args:
        unsure: (U,) indices into ``parts``.
        along: (U,) px from the cell's centroid.
        across: (U,) px along the other axis, positive.
        missing: (N + 1,) what the sum of each id lacks, in px.
    """
    ids = parts.id[unsure]
    gain = np.where(parts.is_in[unsure], -along, along)
    chosen = np.flatnonzero((gain * missing[ids] > 0) & (np.abs(along) >= across))
    doubt = np.abs(parts.share[unsure[chosen]] - 0.5)
    chosen = chosen[np.lexsort((across[chosen], doubt, ids[chosen]))]
    ids, gains = ids[chosen], np.abs(gain[chosen])
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    total = np.cumsum(gains)
    before = np.repeat((total - gains)[first], np.diff(first, append=len(ids)))
    return chosen[total - before - gains / 2 <= np.abs(missing[ids])]


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


def _parts(runs: Runs, rows: tuple[int, int], old: tuple[int, int], new: tuple[int, int]) -> Parts:
    """The pixels of the new mask in ``rows``, by place and id, of which a cell covers a fifth or more.

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
    whole = old[0] * old[1]
    kept = covered >= UNSURE[0] * whole
    place, ids = np.divmod(key[first[kept]], most)
    return Parts(place, ids, covered[kept] / whole, _chosen(place, 2 * covered[kept] >= whole, new[1]))


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


def _chosen(places: np.ndarray, is_half: np.ndarray, width: int) -> np.ndarray:
    """Which pixels are a cell's: those of which it covers half, and one of two that do."""
    is_pair = np.zeros(len(places), bool)
    is_pair[:-1] = (np.diff(places) == 0) & is_half[:-1] & is_half[1:]
    is_even = (places // width + places % width) % 2 == 0
    dropped = is_pair & is_even
    dropped[1:] |= (is_pair & ~is_even)[:-1]
    return is_half & ~dropped
