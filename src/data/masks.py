"""Reading of instance masks, TIFF or PNG: the pixels of each cell."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.common.errors import InputError
from src.data import pictures, tiff
from src.data.tiff import Header
from src.geometry.overlaps import ranges

MAX_SMALL_ID = 1 << 24  # ids below are renumbered through a table, others by sorting


class CellPixels(NamedTuple):
    """The pixels of a mask that are not background, which are few.

    ``shape`` is (H, W); ``places`` (P,) int64 are ascending indices into the flattened mask, and ``ids`` (P,) int32 in
    1..N the ids at these places.
    """

    shape: tuple[int, int]
    places: np.ndarray
    ids: np.ndarray

    def to_mask(self) -> np.ndarray:
        """``(H, W)`` int32 with 0 for background."""
        mask = np.zeros(math.prod(self.shape), np.int32)
        mask[self.places] = self.ids
        return mask.reshape(self.shape)


def read_mask(path: str | Path, split_pieces: bool = False) -> np.ndarray:
    """Read an instance mask as ``(H, W)`` int32: 0 is background, the rest as :func:`read_cells` has it."""
    return read_cells(path, split_pieces).to_mask()


def read_cells(path: str | Path, split_pieces: bool = False) -> CellPixels:
    """Read an instance mask: 0 is background, ids are renumbered 1..N in ascending order.

    Any integer or integral float dtype is read; ids may be sparse, huge, or cover several pieces. With
    ``split_pieces`` each connected piece is a cell of its own. N may be 0.

    Raises:
        InputError: as :func:`src.data.tiff.read_plane`, a JPEG or WebP, which may change ids, and NaN, infinite,
            negative or fractional ids.
    """
    mask = pictures.read_plane(Path(path)) if _is_picture(path) else tiff.read_plane(path)
    check_ids(mask, path)
    cells = cell_pixels(mask)
    return connected_pieces(cells) if split_pieces else cells


def cell_pixels(mask: np.ndarray) -> CellPixels:
    """The cells of an ``(H, W)`` mask of integral values, renumbered 1..N in ascending order."""
    places = np.flatnonzero(mask != 0)
    ids = mask.ravel()[places]
    if float(ids.max(initial=0)) < MAX_SMALL_ID:
        small = ids.astype(np.int32)
        present = np.zeros(int(small.max(initial=0)) + 1, bool)
        present[small] = True
        return CellPixels(mask.shape, places, np.cumsum(present, dtype=np.int32)[small])
    return CellPixels(mask.shape, places, (np.unique(ids, return_inverse=True)[1] + 1).astype(np.int32))


def connected_pieces(cells: CellPixels) -> CellPixels:
    """Make each connected piece (by sides or corners) of each cell a cell of its own, in the order of first pixels.

    Time grows with the cells' pixels: runs of them in a row are joined with those of the row above.
    """
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components

    width = cells.shape[1]
    row = cells.places // width
    new = np.ones(len(cells.places), bool)
    new[1:] = (np.diff(cells.places) != 1) | (np.diff(cells.ids) != 0) | (np.diff(row) != 0)
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(cells.places)))
    first, ids = cells.places[starts], cells.ids[starts]
    # Of the runs in the row below those that may touch: from one that ends at the column before or later …
    last = first + lengths - 1
    low = np.searchsorted(last, np.maximum(first + width - 1, (row[starts] + 1) * width))
    # … to one that starts at the column behind or sooner.
    high = np.searchsorted(first, np.minimum(last + width + 1, (row[starts] + 2) * width - 1), side="right")
    counts = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(starts)), counts)
    below = ranges(low, counts)
    joined = ids[above] == ids[below]
    links = coo_matrix((np.ones(joined.sum(), bool), (above[joined], below[joined])), shape=(len(starts),) * 2)
    piece = connected_components(links, directed=False)[1]
    _, first_run, piece = np.unique(piece, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_run)) + 1
    return CellPixels(cells.shape, cells.places, np.repeat(rank[piece].astype(np.int32), lengths))


def count_in_pieces(cells: CellPixels) -> int:
    """The number of cells that lie in several pieces."""
    pieces = connected_pieces(cells).ids
    id_of = np.zeros(int(pieces.max(initial=0)) + 1, np.int64)
    id_of[pieces] = cells.ids
    return int(np.count_nonzero(np.bincount(id_of[1:]) > 1))


def read_mask_header(path: Path) -> Header:
    """Size and channels of a mask without decoding it; errors are as of :func:`read_cells`."""
    header = pictures.read_picture_header(path) if _is_picture(path) else tiff.read_header(path)
    pictures.refuse_lossy(path, header.is_lossy)
    return header


def _is_picture(path: str | Path) -> bool:
    """Whether a mask is not a TIFF, by its name."""
    return Path(path).suffix.lower() in pictures.PICTURE_SUFFIXES


def check_ids(mask: np.ndarray, path: object) -> None:
    """Refuse a mask that is not empty and holds NaN, infinite, negative or fractional ids; ``path`` is named."""
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise InputError(f"{path}: holds NaN or infinite ids")
    if mask.dtype.kind in "if" and mask.min() < 0:
        raise InputError(f"{path}: holds negative ids (lowest {mask.min():g}); ids are integers, 0 is background")
    if mask.dtype.kind == "f":
        fractional = mask[mask != np.floor(mask)]
        if len(fractional):
            raise InputError(f"{path}: holds fractional ids such as {fractional[0]:g}; ids are integers")
