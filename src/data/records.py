"""Find the images of a data folder with their masks."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from src.common.errors import InputError, nearest_path
from src.common.files import is_system_file
from src.data.classes import UNKNOWN_CLASS
from src.data.intensity import ALL_LEVELS, used_levels
from src.data.masks import read_mask_header
from src.data.tiff import Header, read_header

SAMPLE_HINT = "make synthetic data with `python -m src.sample --out DIR --images 12 --seed 0`"
IMAGE_NAME = re.compile(r"image\.tiff?", re.IGNORECASE)
MASK_NAME = re.compile(r"class(\d+)\.(tiff?|png|bmp|jpe?g)", re.IGNORECASE)  # a JPEG is refused when it is read
UNKNOWN_NAME = re.compile(r"unknown\.(tiff?|png|bmp|jpe?g)", re.IGNORECASE)  # a mask of cells of unknown class
OWN_FILES = frozenset(
    {"classes.json", "groups.json", "split.json", "manifest.sha256", "manifest.json"}
)  # of a data folder
AMBIGUOUS_NAME = re.compile(r"ambiguous\.(tiff?|png)", re.IGNORECASE)  # a mask of regions without a class


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files of one image: the names of the image, empty without it, and of its masks by class id in ``folder``.

    Class ids are 1..K, and ``UNKNOWN_CLASS`` for a mask of cells whose class is not known. Classes without cells may
    have no mask. ``ambiguous`` is the name of a mask of regions without a class, ``unread`` are the names of other
    files. Names take less memory than paths where there are very many images.
    """

    folder: Path
    image_name: str
    mask_names: Mapping[int, str]
    ambiguous: str | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data folder: its files and its size in px.

    ``is_turned``: a tag of the image or of a mask asks viewers to turn it. ``is_wide``: its file has more than 8 bits;
    this is known of files that were opened, and not of those that the cache knows.
    """

    files: ImageFiles
    height: int
    width: int
    is_turned: bool = False
    is_wide: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the image's folder."""
        return self.files.folder.name

    @property
    def image(self) -> Path:
        """The path of the image."""
        return self.files.folder / self.files.image_name

    @property
    def masks(self) -> dict[int, Path]:
        """The paths of the masks by class id, in its order."""
        return {class_id: self.files.folder / name for class_id, name in self.files.mask_names.items()}

    @property
    def ambiguous(self) -> Path | None:
        """The path of the mask of regions without a class; ``None`` without one."""
        return self.files.folder / self.files.ambiguous if self.files.ambiguous else None

    @property
    def turned_file(self) -> Path:
        """The first of the files whose tag asks viewers to turn it; the image where none says so."""
        masks = [*self.masks.values(), *([self.ambiguous] if self.ambiguous else [])]
        if read_header(self.image).is_turned:
            return self.image
        return next((path for path in masks if read_mask_header(path).is_turned), self.image)

    def levels_of(self, image: np.ndarray) -> int:
        """The :func:`used_levels` of the decoded image; all for a file of 8 bits."""
        return used_levels(image) if self.is_wide else ALL_LEVELS


def image_folders(data_path: str | Path) -> list[Path]:
    """The image folders of a data folder, sorted by name; an :class:`InputError` where there are none."""
    names = list_folder(Path(data_path), _missing_data(data_path), os.DirEntry.is_dir)
    if not names:
        raise InputError(f"{data_path}: holds no image folders (<name>/image.tif); {SAMPLE_HINT}")
    return [Path(data_path) / name for name in names]


def find_masks(folder: Path, names: Iterable[str], class_count: int) -> dict[int, str]:
    """The masks ``class1.tif … classK.tif`` and ``unknown.tif`` among a folder's files, by class id and in its order.

    Raises:
        InputError: a class above K, or two masks of one class.
    """
    masks: dict[int, str] = {}
    for name in names:
        match = MASK_NAME.fullmatch(name)
        if not match and not UNKNOWN_NAME.fullmatch(name):
            continue
        class_id = int(match[1]) if match else UNKNOWN_CLASS
        if match and not 1 <= class_id <= class_count:
            raise InputError(
                f"{folder / name}: there is no class {class_id}; classes are 1 to {class_count} (see --classes; in"
                " main.py also --num-classes, which counts the background)"
            )
        if class_id in masks:
            of = f"class {class_id}" if match else "cells of unknown class"
            raise InputError(f"{folder / name}: is a second mask of {of} beside {masks[class_id]}")
        masks[class_id] = name
    return dict(sorted(masks.items()))


class Turnable(Protocol):
    """An image with a path, of which is known whether a tag asks viewers to turn it."""

    @property
    def image(self) -> Path:
        """The path of the image."""

    @property
    def is_turned(self) -> bool:
        """Whether its tag asks viewers to turn it."""


def turned_warnings(images: Iterable[Turnable]) -> list[str]:
    """A warning where TIFF files have a tag of orientation, by which viewers turn them and this program does not."""
    turned = [image for image in images if image.is_turned]
    if not turned:
        return []
    first = turned[0].turned_file if isinstance(turned[0], Record) else turned[0].image
    return [turned_warning(first, len(turned) - 1)]


def turned_warning(first: Path, others: int) -> str:
    """A warning about files with a tag of orientation: one of them, and how many others there are."""
    return (
        f"warning: {first} {f'and {others} more have' if others else 'has'} a tag of orientation;"
        " pixels are read as they are stored, so masks and results lie as these do"
    )


def find_ambiguous(folder: Path, names: Iterable[str]) -> str | None:
    """The mask of regions without a class among the names of a folder's files; two are an :class:`InputError`."""
    found = [name for name in names if AMBIGUOUS_NAME.fullmatch(name)]
    if len(found) > 1:
        raise InputError(f"{folder / found[1]}: is a second mask of ambiguous regions beside {found[0]}")
    return found[0] if found else None


def _missing_data(data_path: str | Path) -> str:
    return (
        f"{data_path}: no such folder; the homework's data belong at ./hw3-data-release/train/<name>/image.tif with"
        f" class1.tif … beside it, or {SAMPLE_HINT} and name the folder DIR/train"
    )


def list_folder(
    folder: Path, missing: str, wanted: Callable[[os.DirEntry[str]], bool] = lambda entry: True
) -> list[str]:
    """The sorted names of a folder's ``wanted`` entries, but for system files; ``missing`` is the error without it."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not is_system_file(entry.name) and wanted(entry))
    except FileNotFoundError as error:
        raise InputError(missing + nearest_path(folder)) from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder ({error.strerror})") from error


def files_of(folder: Path, class_count: int, needs_image: bool = True) -> ImageFiles:
    """The files of an image folder; none is opened. Without ``needs_image`` there may be masks alone."""
    names = list_folder(folder, f"{folder}: no such folder")
    masks = find_masks(folder, names, class_count)
    image = find_image(folder, names) if needs_image or any(map(IMAGE_NAME.fullmatch, names)) else ""
    ambiguous = find_ambiguous(folder, names)
    known = {image, ambiguous, *masks.values()}
    unread = tuple(name for name in names if name not in known)
    return ImageFiles(folder, image, _shared(tuple(masks.items())), ambiguous, unread)


def is_known(name: str) -> bool:
    """Whether a file of an image folder has a name that is read."""
    return any(pattern.fullmatch(name) for pattern in (IMAGE_NAME, MASK_NAME, UNKNOWN_NAME, AMBIGUOUS_NAME))


def unread_warnings(images: Iterable[ImageFiles]) -> list[str]:
    """A warning where image folders hold files that nothing reads, such as a mask of a mistyped name."""
    unread = [files.folder / name for files in images for name in files.unread]
    if not unread:
        return []
    return [
        f"warning: {len(unread)} files are not read, such as {unread[0]}; the names are image.tif, class1.tif or"
        " class1.png, …, unknown.tif and ambiguous.tif"
    ]


@lru_cache(maxsize=1024)
def _shared(masks: tuple[tuple[int, str], ...]) -> Mapping[int, str]:
    """One object for all images whose masks have equal names, which saves memory."""
    return dict(masks)


def read_record(folder: Path, class_count: int, check_masks: bool = True) -> Record:
    """Read one image folder ``<name>/image.tif`` with ``class1.tif … classK.tif`` beside it.

    Args:
        class_count: K, without the background.
        check_masks: compare the masks' sizes and channels with the image's (headers only, nothing is decoded).

    Raises:
        InputError: a folder without ``image.tif``, an unreadable file, a mask for a class above K, or a mask of another
            size.
    """
    files = files_of(folder, class_count)
    header = read_header(folder / files.image_name)
    is_turned = header.is_turned
    if check_masks:
        for name in filter(None, (*files.mask_names.values(), files.ambiguous)):
            is_turned |= _check_mask(folder / name, header).is_turned
    return Record(files, header.height, header.width, is_turned, header.is_wide)


def find_image(folder: Path, names: Iterable[str]) -> str:
    images = [name for name in names if IMAGE_NAME.fullmatch(name)]
    if not images and any(folder.glob("*/image.tif*")):
        raise InputError(f"{folder}: has no image.tif but folders with one: did you mean {folder} itself?")
    if len(images) != 1:
        raise InputError(f"{folder}: has {'two' if images else 'no'} image.tif; each folder holds one image")
    return images[0]


def _check_mask(mask: Path, image: Header) -> Header:
    """The header of a mask that fits its image."""
    header = read_mask_header(mask)
    if (header.height, header.width) != (image.height, image.width):
        raise InputError(
            f"{mask}: is {header.height} x {header.width} px, but its image is {image.height} x {image.width} px"
        )
    if header.channels != 1:
        raise InputError(f"{mask}: has {header.channels} channels; a mask has one, holding instance ids")
    return header
