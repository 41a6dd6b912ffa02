"""What all importers share: an image with its objects, and how files are found and opened."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.files import is_system_file
from src.data.classes import CellClass
from src.data.id_map import check_component
from src.geometry.instances import Instance

PICTURES = re.compile(r"\.(tiff?|png|jpe?g|bmp)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Imported:
    """An image ``(H, W, 3)`` uint8 RGB with its objects; those of class ``AMBIGUOUS`` are no cells."""

    image: np.ndarray
    instances: list[Instance]


@dataclass(frozen=True)
class Source:
    """What was found: a reader for each image's name, the classes, and what was dropped or noticed so far, counted."""

    readers: Mapping[str, Callable[[], Imported]]
    classes: tuple[CellClass, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The files below a folder, sorted, without system files."""
    paths = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob(pattern)))
    return [path for path, parts in paths if not any(is_system_file(part) for part in parts)]


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


def check_size(path: Path, size: tuple[int, ...], image: np.ndarray, image_path: Path | str = "its image") -> None:
    """Refuse labels of another size than their image."""
    height, width = image.shape[:2]
    if size != (height, width):
        raise InputError(f"{path}: is of {size[0]} x {size[1]} px, but {image_path} is {height} x {width} px")
