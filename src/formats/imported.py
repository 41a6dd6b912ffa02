"""What all importers share: an image with its objects, and how files are found and opened."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.files import is_system_file
from src.data.classes import CellClass
from src.data.id_map import check_component
from src.data.pictures import TIFF_SUFFIXES, UPRIGHT, exif_orientation, read_picture, turn
from src.data.tiff import read_header
from src.geometry.instances import Instance

NOTE_TURNED = "pictures that were turned by their EXIF tag; --orientation raw leaves them as they are stored"
PICTURES = re.compile(r"\.(tiff?|png|jpe?g|bmp)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Imported:
    """An image ``(H, W, 3)`` uint8 RGB with its objects; those of class ``ANY_CLASS`` are no cells."""

    image: np.ndarray
    instances: list[Instance]


@dataclass(frozen=True)
class ImportSettings:
    """How files are read; ``images`` is where those of a COCO file lie, if not beside it."""

    intensity: str = "full"
    orientation: str = "auto"
    split_pieces: bool = False
    crowds: str = "auto"
    images: Path | None = None


@dataclass(frozen=True)
class Source:
    """What was found: a reader for each image's name, the classes, and what was dropped or noticed so far, counted.

    ``lines`` are said as they are.
    """

    readers: Mapping[str, Callable[[], Imported]]
    classes: tuple[CellClass, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The files below a folder, sorted, without system files."""
    paths = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob(pattern)))
    return [path for path, parts in paths if not any(is_system_file(part) for part in parts)]


def with_suffix(path: Path, suffixes: Sequence[str]) -> Path | None:
    """The file of this name with the first of these endings, in small or capital letters; ``None`` without one."""
    candidates = (path.with_suffix(form) for suffix in suffixes for form in (suffix, suffix.upper()))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def is_there(path: Path) -> bool:
    """Whether the file exists; ``False`` also for a name that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def add(readers: dict[str, Callable[[], Imported]], name: str, path: Path, read: Callable[[], Imported]) -> None:
    """Add the reader of an image; names become folders, so they are plain and unique."""
    check_component(name, path)
    if name in readers:
        raise InputError(f"{path}: is a second image of the name {name}")
    readers[name] = read


def read_matching(
    path: Path, labels: Path, size: tuple[int, int], source: Source, settings: ImportSettings
) -> np.ndarray:
    """An image file as ``(H, W, 3)`` uint8, turned by its EXIF tag where its labels, of ``size``, were drawn so.

    Viewers turn a picture by this tag, and so do most annotation tools, but others do not. The size of the labels
    tells, but for a square picture and half turns: these are turned unless ``settings.orientation`` is ``raw``, and
    noted.

    Raises:
        InputError: the image has another size than ``labels``.
    """
    pixels = read_picture(path, settings.intensity)
    if path.suffix.lower() in TIFF_SUFFIXES and read_header(path).is_turned:
        source.lines.append(f"warning: {path}: has a tag of orientation; its pixels are read as they are stored")
    tag = exif_orientation(path)
    if tag != UPRIGHT:
        turned = turn(pixels, tag)
        fits_both, is_auto = turned.shape == pixels.shape, settings.orientation == "auto"
        if settings.orientation == "turned" or (is_auto and turned.shape[:2] == size):
            pixels = turned
            source.notes[NOTE_TURNED] += is_auto and fits_both
    check_size(labels, size, pixels, path)
    return pixels


def check_size(path: Path, size: tuple[int, ...], image: np.ndarray, image_path: Path | str = "its image") -> None:
    """Refuse labels of another size than their image."""
    height, width = image.shape[:2]
    if size != (height, width):
        raise InputError(f"{path}: is of {size[0]} x {size[1]} px, but {image_path} is {height} x {width} px")
