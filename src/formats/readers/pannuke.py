"""PanNuke as it is published: folds of images and masks in NumPy files, which may be larger than memory."""

import re
from collections import Counter
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.data.classes import name_classes
from src.data.masks import cell_pixels, check_ids
from src.data.names import distinct_names
from src.formats.imported import Imported, ImportSettings, Source, files_in, say_unread, with_readers
from src.formats.places import Key, key_of, keyed, pair
from src.geometry.instances import from_label_map

# The first channels of a mask; a last one is the background.
PANNUKE_CLASSES = name_classes(["neoplastic", "inflammatory", "connective", "dead", "epithelial"])
IMAGES, MASKS, TYPES = "images.npy", "masks.npy", "types.npy"


class Fold(NamedTuple):
    """The files of a fold."""

    image_file: Path
    mask_file: Path

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """The images ``(N, H, W, 3)`` and masks ``(N, H, W, 6)``, mapped; what is read of them counts as memory."""
        images, masks = open_array(self.image_file, 3), open_array(self.mask_file, len(PANNUKE_CLASSES) + 1)
        if images.shape[:3] != masks.shape[:3]:
            raise InputError(f"{self.mask_file}: is of shape {masks.shape}, but {self.image_file} of {images.shape}")
        return images, masks


def import_pannuke(folder: Path, settings: ImportSettings) -> Source:
    """Folds of PanNuke anywhere below a folder: ``images.npy`` and ``masks.npy``, in one folder or two of like places.

    Images are called after their fold and place in it, from 0 on: ``fold1_0000``. One image is in
    memory at a time, and nothing is unpickled.
    """
    everything = files_in(folder)
    files = {
        name: keyed([(key_of(folder, path, ""), path) for path in everything if path.name.lower() == name], name)
        for name in (IMAGES, MASKS, TYPES)
    }
    masks_of = pair(files[IMAGES], files[MASKS], by_stem=False)
    for name, used in ((IMAGES, {files[IMAGES][key] for key in masks_of}), (MASKS, set(masks_of.values()))):
        if lonely := sorted(set(files[name].values()) - used):
            raise InputError(f"{lonely[0]}: has no {MASKS if name == IMAGES else IMAGES} that belongs to it")
    source, found = Source({}, PANNUKE_CLASSES), []
    for name, key in zip(_fold_names(folder, list(files[IMAGES])), files[IMAGES], strict=True):
        fold = Fold(files[IMAGES][key], masks_of[key])
        count = len(fold.open()[0])
        if key in files[TYPES]:
            source.lines.append(f"{name}: {_count_types(files[TYPES][key], count)}")
        for index in range(count):
            found.append((PurePath(f"{name}_{index:04d}"), fold.image_file, partial(_read, fold, index)))
    say_unread(source, everything, [path for of_name in files.values() for path in of_name.values()])
    return with_readers(source, found)


def _fold_names(folder: Path, keys: list[Key]) -> list[str]:
    """A plain name for each fold, that of its own folder: ``fold1`` for ``Fold 1``."""
    places = [
        PurePath(*(re.sub(r"\s+", "", part).lower() for part in key[:-1] or (folder.resolve().name,))) for key in keys
    ]
    return distinct_names(places)


def open_array(path: Path, channels: int) -> np.ndarray:
    """The ``(N, H, W, channels)`` array of a NumPy file, mapped and not read.

    Raises:
        InputError: a file that is damaged, too short or pickled, has another shape or no numbers, or images that
            are too large.
    """
    array = _load(path, mapped=True)
    if array.ndim != 4 or array.shape[3] != channels or array.dtype.kind not in "buif" or not array.size:
        raise InputError(
            f"{path}: holds {array.dtype} of shape {array.shape}; PanNuke has numbers of (N, 256, 256, {channels})"
        )
    check_pixels(path, array.shape[1], array.shape[2])
    return array


def _load(path: Path, mapped: bool) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a NumPy array ({reason:.200})") from error
    if not isinstance(found, np.ndarray):  # an archive of several
        found.close()
        raise InputError(f"{path}: is no NumPy array but an archive of arrays")
    return found


def _count_types(path: Path, count: int) -> str:
    """How many images are of which tissue."""
    types = _load(path, mapped=True)
    if types.shape != (count,) or types.dtype.kind not in "US":
        raise InputError(
            f"{path}: holds {types.dtype} of shape {types.shape}; expected the tissue of {count} images as text"
        )
    names = [name.decode("latin-1") if isinstance(name, bytes) else name for name in types.tolist()]
    return ", ".join(f"{number} {name}" for name, number in Counter(names).most_common())


def _read(fold: Fold, index: int) -> Imported:
    """One image of a fold with its nuclei; the files are mapped anew, so that what was read before is let go."""
    images, masks = fold.open()
    planes = []
    for channel in range(len(PANNUKE_CLASSES)):
        plane = np.asarray(masks[index, :, :, channel])
        check_ids(plane, f"{fold.mask_file}: image {index}")
        planes.append(cell_pixels(plane).to_mask())
    image = _to_uint8(np.asarray(images[index]), f"{fold.image_file}: image {index}")
    return Imported(image, from_label_map(np.stack(planes)))


def _to_uint8(values: np.ndarray, what: str) -> np.ndarray:
    """Values of 0 to 255 of any type as uint8."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise InputError(f"{what} holds values from {low:g} to {high:g}; PanNuke's are 0 to 255")
    whole = np.rint(values)
    if high <= 1 and not np.array_equal(whole, values):
        raise InputError(f"{what} holds fractions up to {high:g}; PanNuke's values are 0 to 255")
    return whole.astype(np.uint8)
