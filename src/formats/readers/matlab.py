"""MATLAB files as HoVer-Net and others store nuclei: variables by name, and the nuclei of an instance map."""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.data.masks import CellPixels, cell_pixels, check_ids
from src.geometry.instances import Instance, from_label_map


class Nuclei(NamedTuple):
    """The N nuclei of an instance map: ``ids`` (N,) as they stand there, ascending, and in that order the rest.

    ``pixels`` holds their pixels, numbered 1..N.
    """

    ids: np.ndarray
    pixels: CellPixels
    instances: list[Instance]


def variables_in(path: Path) -> set[str]:
    """The names of the variables of a MATLAB file."""
    from scipy.io import whosmat

    with _reading(path):
        return {name for name, _, _ in whosmat(path)}


def load_variables(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Some variables of a MATLAB file of numbers; their sizes are checked before they are read.

    Raises:
        InputError: a damaged file, one of version 7.3, or a variable that is missing, too large or holds no numbers.
    """
    from scipy.io import loadmat, whosmat

    with _reading(path):
        shapes = {name: shape for name, shape, _ in whosmat(path) if name in names}
        for name in names:
            if name not in shapes:
                raise InputError(f"{path}: holds no {name}")
            check_pixels(f"{path}: its {name}", shapes[name][0], math.prod(shapes[name][1:]))
        found = loadmat(path, variable_names=list(names))
    for name in names:
        if not isinstance(found.get(name), np.ndarray) or found[name].dtype.kind not in "buif":
            raise InputError(f"{path}: its {name} is no array of numbers")
    return {name: found[name] for name in names}


def nuclei_of(inst_map: np.ndarray, path: Path) -> Nuclei:
    """The nuclei of an ``(H, W)`` instance map, where 0 is background; ids may have gaps.

    Raises:
        InputError: another shape, and ids that are fractional, negative, NaN or infinite.
    """
    if inst_map.ndim != 2 or not inst_map.size:
        raise InputError(f"{path}: its inst_map is of shape {inst_map.shape}; it must be one plane of ids")
    check_ids(inst_map, path)
    pixels = cell_pixels(inst_map)
    return Nuclei(np.unique(inst_map[inst_map != 0]), pixels, from_label_map(pixels.to_mask()[None]))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except NotImplementedError as error:  # what SciPy raises for the version that is HDF5
        raise InputError(
            f"{path}: is of MATLAB's version 7.3, which is not read; in MATLAB save it anew:"
            f" x = load('{path.name}'); save('{path.name}', '-struct', 'x', '-v7')"
        ) from error
    except Exception as error:  # a damaged file raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: cannot be read as a MATLAB file ({reason:.200})") from error
