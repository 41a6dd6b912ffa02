"""What all importers share: an image with its objects, and how files are read."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError, counted
from src.common.files import is_system_file
from src.data.classes import CellClass
from src.data.id_map import check_component
from src.data.intensity import ALL_LEVELS, used_levels
from src.data.masks import read_mask_header
from src.data.names import distinct_names
from src.data.pictures import (
    QUARTER_TURNS,
    TIFF_SUFFIXES,
    UPRIGHT,
    exif_orientation,
    is_wide,
    read_picture,
    read_size,
    turn,
)
from src.data.tiff import read_header
from src.evaluation.coco_polygons import ToldSize
from src.formats.places import PICTURES
from src.geometry.instances import Instance

NOTE_TURNED = "picture that was turned by its EXIF tag; --orientation raw leaves it as it is stored"
NOTE_PIECES = "cell in several pieces; --split-pieces makes each piece a cell"


@dataclass(frozen=True, eq=False)
class Imported:
    """An image ``(H, W, 3)`` uint8 RGB with its objects; those of class ``ANY_CLASS`` are no cells."""

    image: np.ndarray
    instances: list[Instance]


@dataclass(frozen=True)
class ImportSettings:
    """How files are read.

    ``images`` is where the images lie, if not beside their labels, or the only image. ``nuclei`` takes the nuclei of
    QuPath's cells, and ``attribute`` is the one of VIA's that holds the class. ``image_pattern`` and ``mask_pattern``
    tell which files are pairs; ``types`` is a JSON file that names the numbers of MATLAB files. ``image_size`` is the
    (H, W) of images that are not there.
    """

    intensity: str = "full"
    orientation: str = "auto"
    split_pieces: bool = False
    crowds: str = "auto"
    images: Path | None = None
    nuclei: bool = False
    attribute: str | None = None
    image_pattern: str | None = None
    mask_pattern: str | None = None
    types: Path | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """What was found: a reader for each image's name, the classes, and what was dropped or noticed so far, counted.

    ``lines`` are said as they are. ``turned`` are the files with a tag of orientation that is not followed, ``levels``
    the :func:`used_levels` of the images that were read.
    """

    readers: Mapping[str, Callable[[], Imported]]
    classes: tuple[CellClass, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    turned: list[Path] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)


def files_in(folder: Path) -> list[Path]:
    """The files below a folder, sorted, without system files."""
    paths = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob("*")))
    return [path for path, parts in paths if not any(map(is_system_file, parts)) and path.is_file()]


def with_readers(source: Source, images: Sequence[tuple[PurePath, Path, Callable[[], Imported]]]) -> Source:
    """The source with readers for its images, each given as a place that names it, its file, and its reader."""
    names = plain_names(source, [(place, file) for place, file, _ in images])
    return replace(source, readers={name: read for name, (_, _, read) in zip(names, images, strict=True)})


def plain_names(source: Source, images: Sequence[tuple[PurePath, Path]]) -> list[str]:
    """The names of images, each given as a place that names it and its file.

    Names become folders, so they are plain and distinct; it is said where folders or numbers make them so.
    """
    names = distinct_names([place for place, _ in images])
    longer = [
        (file, name) for (place, file), name in zip(images, names, strict=True) if name != PICTURES.sub("", place.name)
    ]
    for name, (_, file) in zip(names, images, strict=True):
        check_component(name, file)
    if longer:
        source.lines.append(
            f"{counted(len(longer), 'image')} got a longer name, because the file's name occurs more than once, such as"
            f" {longer[0][1]} for {longer[0][0]}"
        )
    return names


def drop(source: Source, what: str, files: Sequence[Path]) -> None:
    """Count files that are left out, with one for an example."""
    if files:
        source.dropped[f"{what}, such as {min(files)}"] += len(files)


def say_unread(source: Source, files: Sequence[Path], read: Collection[Path]) -> None:
    """Say which of a folder's files are not read."""
    known = set(read)
    unread = [path for path in files if path not in known]
    if unread:
        source.lines.append(f"warning: {counted(len(unread), 'file')} not read, such as {unread[0]}")


def read_stored(path: Path, source: Source, settings: ImportSettings) -> np.ndarray:
    """An image file as ``(H, W, 3)`` uint8 as it is stored; a TIFF's tag of orientation is noted."""
    pixels = read_picture(path, settings.intensity)
    source.levels.append(used_levels(pixels) if is_wide(path) else ALL_LEVELS)
    if path.suffix.lower() in TIFF_SUFFIXES and read_header(path, first_page=True).is_turned:
        source.turned.append(path)
    return pixels


def note_turned_mask(path: Path, source: Source) -> None:
    """Note a mask with a tag of orientation, which is read as it is stored."""
    if read_mask_header(path).is_turned:
        source.turned.append(path)


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
    pixels = read_stored(path, source, settings)
    tag = exif_orientation(path)
    if tag != UPRIGHT:
        turned = turn(pixels, tag)
        fits_both, is_auto = turned.shape == pixels.shape, settings.orientation == "auto"
        if settings.orientation == "turned" or (is_auto and turned.shape[:2] == size):
            pixels = turned
            source.notes[NOTE_TURNED] += is_auto and fits_both
    check_size(labels, size, pixels, path)
    return pixels


def shown_size(path: Path, labels: ToldSize, source: Source, orientation: str) -> tuple[int, int]:
    """The (H, W) of an image whose labels do not say it: turned by its EXIF tag, unless ``orientation`` is ``raw``.

    What the labels tell comes first: the size of an RLE, and points that lie in the picture only as it is stored.
    """
    height, width = read_size(path)
    if orientation != "raw" and height != width and exif_orientation(path) in QUARTER_TURNS:
        is_stored = labels.size == (height, width) or (
            labels.size is None and labels.fits(height, width) and not labels.fits(width, height)
        )
        if orientation == "turned" or not is_stored:
            source.notes[NOTE_TURNED] += orientation == "auto" and labels.size is None
            return width, height
    return height, width


def check_size(path: Path, size: tuple[int, ...], image: np.ndarray, image_path: Path | str = "its image") -> None:
    """Refuse labels of another size than their image."""
    height, width = image.shape[:2]
    if size != (height, width):
        raise InputError(f"{path}: is of {size[0]} x {size[1]} px, but {image_path} is {height} x {width} px")
