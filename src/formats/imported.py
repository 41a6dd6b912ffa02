"""What all importers share: an image with its objects, and how files are found and opened."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.data.classes import CellClass
from src.data.id_map import check_component
from src.data.intensity import to_uint8
from src.data.tiff import read_image, read_mask
from src.geometry.instances import Instance


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
    """The files below a folder, sorted, without hidden files and those that macOS adds to archives."""
    paths = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob(pattern)))
    return [path for path, parts in paths if not any(part.startswith((".", "__MACOSX")) for part in parts)]


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


def read_picture(path: Path, intensity: str = "full") -> np.ndarray:
    """An image file of any common type as ``(H, W, 3)`` uint8; alpha is dropped, 16 bits are as in a TIFF."""
    if path.suffix.lower() in (".tif", ".tiff", ".svs"):
        return read_image(path, intensity, first_page=path.suffix.lower() == ".svs")
    picture = open_picture(path)
    if not _has_16_bits(path):
        return np.asarray(picture.convert("RGB"))
    # Pillow, which has read the file without a fault, cuts 16 bits off at 8; OpenCV keeps them.
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise InputError(f"{path}: cannot be read as an image of 16 bits")
    pixels = to_uint8(pixels.reshape(*pixels.shape[:2], -1)[..., :3], intensity, path)
    return np.ascontiguousarray(np.broadcast_to(pixels[..., ::-1], (*pixels.shape[:2], 3)))


def _has_16_bits(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits per channel, by its header."""
    with path.open("rb") as file:
        start = file.read(25)
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[24] == 16


def read_labels(path: Path) -> np.ndarray:
    """A label image, TIFF or PNG, as ``(H, W)`` int32 with ids 1..N."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return read_mask(path)
    labels = np.asarray(open_picture(path))
    if labels.ndim != 2:
        raise InputError(f"{path}: has {labels.shape[2]} channels; a label image has one, holding ids")
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32) + int(labels.min() > 0)


def open_picture(path: Path) -> Any:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # our own limit is asked for below, before anything is decoded
    try:
        picture = Image.open(path, formats=("PNG", "JPEG", "BMP"))  # others may start programs, as EPS does
        check_pixels(path, picture.height, picture.width)
        picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error
    return picture


def check_size(path: Path, size: tuple[int, ...], image: np.ndarray, image_path: Path | str = "its image") -> None:
    """Refuse labels of another size than their image."""
    height, width = image.shape[:2]
    if size != (height, width):
        raise InputError(f"{path}: is of {size[0]} x {size[1]} px, but {image_path} is {height} x {width} px")
