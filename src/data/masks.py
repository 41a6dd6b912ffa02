"""Reading of instance masks, TIFF or PNG: the pixels of each cell."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.common.errors import InputError
from src.data import pictures, tiff
from src.data.tiff import Header

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


def read_mask(path: str | Path) -> np.ndarray:
    """Read an instance mask as ``(H, W)`` int32: 0 is background, the rest as :func:`read_cells` has it."""
    return read_cells(path).to_mask()


def read_cells(path: str | Path) -> CellPixels:
    """Read an instance mask: 0 is background, ids are renumbered 1..N in ascending order.

    Any integer or integral float dtype is read; ids may be sparse, huge, or cover several pieces. N may be 0.

    Raises:
        InputError: as :func:`src.data.tiff.read_plane`, a JPEG, which changes ids, and NaN, infinite, negative or
            fractional ids.
    """
    mask = pictures.read_plane(Path(path)) if _is_picture(path) else tiff.read_plane(path)
    _check_ids(mask, path)
    return cell_pixels(mask)


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


def read_mask_header(path: Path) -> Header:
    """Size and channels of a mask without decoding it; errors are as of :func:`read_cells`."""
    return pictures.read_picture_header(path) if _is_picture(path) else tiff.read_header(path)


def _is_picture(path: str | Path) -> bool:
    """Whether a mask is not a TIFF, by its name; a JPEG is refused."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise InputError(f"{path}: JPEG changes the ids of a mask; masks are TIFF or PNG")
    return suffix in (".png", ".bmp")


def _check_ids(mask: np.ndarray, path: str | Path) -> None:
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise InputError(f"{path}: holds NaN or infinite ids")
    if mask.dtype.kind in "if" and mask.min() < 0:
        raise InputError(f"{path}: holds negative ids (lowest {mask.min():g}); ids are integers, 0 is background")
    if mask.dtype.kind == "f":
        fractional = mask[mask != np.floor(mask)]
        if len(fractional):
            raise InputError(f"{path}: holds fractional ids such as {fractional[0]:g}; ids are integers")
