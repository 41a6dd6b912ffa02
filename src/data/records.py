"""Find the images of a data folder with their masks."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.common.errors import InputError, nearest_path
from src.common.files import is_system_file
from src.data import pictures
from src.data.classes import UNKNOWN_CLASS
from src.data.intensity import ALL_LEVELS, used_levels
from src.data.masks import read_mask_header
from src.data.names import ENDINGS
from src.data.pictures import UPRIGHT, read_header_of
from src.data.tiff import Header

SAMPLE_HINT = "make synthetic data with `python -m src.sample --out DIR --images 12 --seed 0`"
IMAGE_NAME = re.compile(rf"image\.{ENDINGS}", re.IGNORECASE)
MASK_NAME = re.compile(rf"class(\d+)\.{ENDINGS}", re.IGNORECASE)  # one with loss is refused when it is read
UNKNOWN_NAME = re.compile(rf"unknown\.{ENDINGS}", re.IGNORECASE)  # a mask of cells of unknown class
OWN_FILES = frozenset(
    {"classes.json", "groups.json", "split.json", "manifest.sha256", "manifest.json"}
)  # of a data folder
AMBIGUOUS_NAME = re.compile(r"ambiguous\.(tiff?|png)", re.IGNORECASE)  # a mask of regions without a class


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files of one image: the names of the image, empty without it, and of its masks by class id in ``folder``.

    Class ids are 1..K, and ``UNKNOWN_CLASS`` for a mask of cells whose class is not known. Classes without cells may
    have no mask. ``ambiguous`` is the name of a mask of regions without a class, ``unread`` are the names of other
    files. ``own_name`` is the name of the image where it is not the folder's. Names take less memory than paths where
    there are very many images.
    """

    folder: Path
    image_name: str
    mask_names: Mapping[int, str]
    ambiguous: str | None = None
    unread: tuple[str, ...] = ()
    own_name: str = ""

    @property
    def name(self) -> str:
        """The name of the image."""
        return self.own_name or self.folder.name

    @property
    def masks(self) -> list[str]:
        """The names of the masks by class, and of that of regions without a class."""
        return [*self.mask_names.values(), *([self.ambiguous] if self.ambiguous else [])]


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data folder: its files and its size in px.

    A picture is turned by its EXIF tag where that gives it the size of its masks. ``is_turned``: a tag of the image or
    of a mask asks viewers to turn it. ``is_wide``: its file has more than 8 bits;
    this is known of files that were opened, and not of those that the cache knows.
    """

    files: ImageFiles
    height: int
    width: int
    is_turned: bool = False
    is_wide: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the image: that of its folder, with those above where two folders have one name."""
        return self.files.name

    @property
    def image(self) -> Path:
        """The path of the image."""
        return self.files.folder / self.files.image_name

    @property
    def is_tiff(self) -> bool:
        """Whether the image is a TIFF, whose channels may be in any order; in pictures red is first."""
        return self.image.suffix.lower() in pictures.TIFF_SUFFIXES

    @property
    def orientation(self) -> int:
        """The EXIF tag by which the image is turned when it is read; a TIFF never is."""
        return pictures.fitting_orientation(self.image, (self.height, self.width))

    @property
    def masks(self) -> dict[int, Path]:
        """The paths of the masks by class id, in its order."""
        return {class_id: self.files.folder / name for class_id, name in self.files.mask_names.items()}

    @property
    def ambiguous(self) -> Path | None:
        """The path of the mask of regions without a class; ``None`` without one."""
        return self.files.folder / self.files.ambiguous if self.files.ambiguous else None

    @property
    def turned_file(self) -> Path | None:
        """The first of the files whose tag asks viewers to turn it and is not followed, if any."""
        masks = [self.files.folder / name for name in self.files.masks]
        if read_header_of(self.image).is_turned and self.orientation == UPRIGHT:
            return self.image
        return next((path for path in masks if read_mask_header(path).is_turned), None)

    def levels_of(self, image: np.ndarray) -> int:
        """The :func:`used_levels` of the decoded image; all for a file of 8 bits."""
        return used_levels(image) if self.is_wide else ALL_LEVELS

    def read(self, intensity: str) -> np.ndarray:
        """The image as ``(H, W, 3)`` uint8 with its channels in the order of the file."""
        return pictures.turn(pictures.read_picture(self.image, intensity), self.orientation)


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


def find_ambiguous(folder: Path, names: Iterable[str]) -> str | None:
    """The mask of regions without a class among the names of a folder's files; two are an :class:`InputError`."""
    found = [name for name in names if AMBIGUOUS_NAME.fullmatch(name)]
    if len(found) > 1:
        raise InputError(f"{folder / found[1]}: is a second mask of ambiguous regions beside {found[0]}")
    return found[0] if found else None


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


def files_of(folder: Path, class_count: int, needs_image: bool = True, name: str = "") -> ImageFiles:
    """The files of an image folder; none is opened. Without ``needs_image`` there may be masks alone.

    ``name`` is that of the image, if absent the folder's.
    """
    names = list_folder(folder, f"{folder}: no such folder")
    masks = find_masks(folder, names, class_count)
    image = find_image(folder, names) if needs_image or any(map(IMAGE_NAME.fullmatch, names)) else ""
    ambiguous = find_ambiguous(folder, names)
    known = {image, ambiguous, *masks.values()}
    unread = tuple(name for name in names if name not in known)
    own_name = name if name != folder.name else ""
    return ImageFiles(folder, image, _shared(tuple(masks.items())), ambiguous, unread, own_name)


def is_known(name: str) -> bool:
    """Whether a file of an image folder has a name that is read."""
    return any(pattern.fullmatch(name) for pattern in (IMAGE_NAME, MASK_NAME, UNKNOWN_NAME, AMBIGUOUS_NAME))


def unread_warnings(images: Iterable[ImageFiles]) -> list[str]:
    """A warning where image folders hold files that nothing reads, such as a mask of a mistyped name."""
    unread = [files.folder / name for files in images for name in files.unread]
    if not unread:
        return []
    return [
        f"warning: {len(unread)} files are not read, such as {unread[0]}; the names are image.tif, class1.tif, …,"
        " unknown.tif and ambiguous.tif, or the same with .png"
    ]


@lru_cache(maxsize=1024)
def _shared(masks: tuple[tuple[int, str], ...]) -> Mapping[int, str]:
    """One object for all images whose masks have equal names, which saves memory."""
    return dict(masks)


def read_record(folder: Path, class_count: int, check_masks: bool = True, name: str = "") -> Record:
    """Read one image folder ``<name>/image.tif`` with ``class1.tif … classK.tif`` beside it.

    Args:
        folder: the image folder.
        class_count: K, without the background.
        check_masks: compare the masks' sizes and channels with the image's (headers only, nothing is decoded).
        name: of the image, if absent the folder's.

    Raises:
        InputError: a folder without an image or with two, an unreadable file, a mask for a class above K, or a mask of
            another size.
    """
    files = files_of(folder, class_count, name=name)
    header = read_header_of(folder / files.image_name)
    is_turned, size = header.is_turned, size_as_read(files, header)
    if check_masks:
        for mask in files.masks:
            is_turned |= _check_mask(folder / mask, size).is_turned
    return Record(files, *size, is_turned, header.is_wide)


def size_as_read(files: ImageFiles, header: Header) -> tuple[int, int]:
    """The (H, W) of an image with this header when it is read: turned by its EXIF tag unless its mask was not."""
    stored = (header.height, header.width)
    if pictures.exif_orientation(files.folder / files.image_name) not in pictures.QUARTER_TURNS:
        return stored
    mask = read_mask_header(files.folder / files.masks[0]) if files.masks else None
    return stored if mask and (mask.height, mask.width) == stored else stored[::-1]


def find_image(folder: Path, names: Iterable[str]) -> str:
    images = [name for name in names if IMAGE_NAME.fullmatch(name)]
    if not images:
        raise InputError(f"{folder}: has no image.tif (or .png, .jpg, .bmp, .webp); each folder holds one image")
    if len(images) > 1:
        raise InputError(f"{folder}: has two images, {images[0]} and {images[1]}; each folder holds one")
    return images[0]


def _check_mask(mask: Path, size: tuple[int, int]) -> Header:
    """The header of a mask that fits its image of ``size`` (H, W)."""
    header = read_mask_header(mask)
    if (header.height, header.width) != size:
        raise InputError(f"{mask}: is {header.height} x {header.width} px, but its image is {size[0]} x {size[1]} px")
    if header.channels != 1:
        raise InputError(f"{mask}: has {header.channels} channels; a mask has one, holding instance ids")
    return header
