"""Reading of PNG, JPEG, BMP and WebP files, of images as well as masks."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.data.intensity import to_uint8
from src.data.tiff import Header, read_header, read_image
from src.data.webp import HEAD as WEBP_HEAD
from src.data.webp import webp_header

UPRIGHT = 1  # of EXIF's orientations 1 to 8
QUARTER_TURNS = range(5, 9)  # which swap height and width
TIFF_SUFFIXES = (".tif", ".tiff", ".svs")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # of Pillow; others may start programs, as EPS does
LOSSY = ("JPEG", "WEBP")  # a WebP without loss may still hold values that its encoder changed ("near lossless")
PLANES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's modes of one channel


def read_picture(path: Path, intensity: str = "full") -> np.ndarray:
    """An image file of any common type as ``(H, W, 3)`` uint8; alpha is dropped, 16 bits are as in a TIFF."""
    if path.suffix.lower() in TIFF_SUFFIXES:
        return read_image(path, intensity, first_page=path.suffix.lower() == ".svs")
    picture = open_picture(path)
    if not _has_16_bits(path):
        return np.asarray(picture.convert("RGB"))
    return _decode_16_bits(path.read_bytes(), path, intensity)


def decode_picture(content: bytes, what: object, intensity: str = "full") -> np.ndarray:
    """As :func:`read_picture`, of the bytes of a PNG, JPEG or BMP file that another file holds; ``what`` names it."""
    picture = open_picture(what, content)
    if not _is_png_of_16_bits(content[:25]):
        return np.asarray(picture.convert("RGB"))
    return _decode_16_bits(content, what, intensity)


def _decode_16_bits(content: bytes, what: object, intensity: str) -> np.ndarray:
    """A PNG that Pillow, which cuts 16 bits off at 8, has read without a fault; OpenCV keeps them."""
    encoded = np.frombuffer(content, np.uint8)
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise InputError(f"{what}: cannot be read as an image of 16 bits")
    pixels = to_uint8(pixels.reshape(*pixels.shape[:2], -1)[..., :3], intensity, str(what))
    return np.ascontiguousarray(np.broadcast_to(pixels[..., ::-1], (*pixels.shape[:2], 3)))


def exif_orientation(path: Path) -> int:
    """How a viewer turns a picture by its EXIF tag, 1 to 8; :data:`UPRIGHT` for other files and without a tag."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return UPRIGHT
    with _opened(path) as picture:
        return _orientation(picture)


def fitting_orientation(path: Path, size: tuple[int, int]) -> int:
    """The EXIF tag by which a picture is turned; :data:`UPRIGHT` where that would give it another (H, W) than ``size``.

    A square picture and a half turn fit either way: these are turned, as viewers do.
    """
    tag = exif_orientation(path)
    is_stored_so = tag in QUARTER_TURNS and read_size(path) != size[::-1]
    return UPRIGHT if is_stored_so else tag


def _orientation(picture: Any) -> int:
    tag = picture.getexif().get(0x0112, UPRIGHT)
    return tag if tag in range(1, 9) else UPRIGHT


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image ``(H, W, …)`` as a viewer shows it by its EXIF orientation (CIPA DC-008, 4.6.4 A)."""
    if orientation in QUARTER_TURNS:
        pixels = pixels.swapaxes(0, 1)
    flipped = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(pixels, flipped))


def read_plane(path: Path) -> np.ndarray:
    """The values of a mask as ``(H, W)``; of a palette its indices."""
    picture = open_mask(path)
    if picture.mode not in PLANES:
        raise InputError(f"{path}: has {len(picture.getbands())} channels; a mask has one, holding instance ids")
    return np.asarray(picture)


def read_size(path: Path) -> tuple[int, int]:
    """The (H, W) of an image file of any common type, without decoding pixels."""
    header = read_header_of(path)
    return header.height, header.width


def read_header_of(path: Path) -> Header:
    """The header of an image file of any common type, without decoding pixels."""
    is_tiff = path.suffix.lower() in TIFF_SUFFIXES
    return read_header(path, first_page=path.suffix.lower() == ".svs") if is_tiff else read_picture_header(path)


def read_rgb(path: str | Path, intensity: str, swap_channels: bool, orientation: int = UPRIGHT) -> np.ndarray:
    """An image file of any common type as ``(H, W, 3)`` uint8 RGB.

    ``swap_channels`` tells that TIFF files hold BGR, which other types never do; ``orientation`` is the EXIF tag by
    which a picture is turned.
    """
    path = Path(path)
    image = turn(read_picture(path, intensity), orientation)
    is_swapped = swap_channels and path.suffix.lower() in TIFF_SUFFIXES
    return np.ascontiguousarray(image[..., ::-1]) if is_swapped else image


def read_picture_header(path: Path) -> Header:
    """Size and number of channels, without decoding pixels."""
    with _opened(path) as picture:
        channels = 1 if picture.mode in PLANES else len(picture.getbands())
        is_turned = _orientation(picture) != UPRIGHT
        dtype = "uint16" if _has_16_bits(path) else "uint8"
        return Header(picture.height, picture.width, channels, dtype, is_turned, picture.format in LOSSY)


def is_wide(path: Path) -> bool:
    """Whether an image file has more than 8 bits per channel."""
    if path.suffix.lower() in TIFF_SUFFIXES:
        return read_header(path, first_page=True).is_wide
    return _has_16_bits(path)


def open_mask(path: Path) -> Any:
    """A decoded picture of Pillow's; a JPEG or WebP is an :class:`InputError`, whatever its name."""
    picture = open_picture(path)
    refuse_lossy(path, picture.format in LOSSY)
    return picture


def refuse_lossy(path: Path | str, is_lossy: bool) -> None:
    """Refuse a mask of a lossy compression."""
    if is_lossy:
        raise InputError(
            f"{path}: JPEG, WebP and other lossy compression changes the ids of a mask; masks are TIFF or PNG"
        )


def open_picture(path: object, content: bytes | None = None) -> Any:
    """A decoded picture of Pillow's, of a file or of the ``content`` that ``path`` then only names."""
    with _opened(path, content) as picture:
        picture.load()
        return picture


@contextmanager
def _opened(path: object, content: bytes | None = None) -> Iterator[Any]:
    """A picture whose pixels are not decoded yet; any error while it is open becomes an InputError."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit is asked for below, before anything is decoded
    try:
        file: Any = path if content is None else io.BytesIO(content)
        with Path(file).open("rb") if content is None else io.BytesIO(content) as stream:
            _check_webp(path, stream.read(WEBP_HEAD))
        with Image.open(file, formats=FORMATS) as picture:
            check_pixels(path, picture.height, picture.width)
            yield picture
    except (OSError, ValueError, SyntaxError) as error:
        is_unknown = content is not None and isinstance(error, UnidentifiedImageError)
        reason = "it is no PNG, JPEG, BMP or WebP" if is_unknown else error
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error


def _check_webp(path: object, head: bytes) -> None:
    """Refuse a WebP that is too large, whose decoder takes memory when it is opened, and an animation."""
    header = webp_header(head)
    if header:
        check_pixels(path, header.height, header.width)
    if header and header.is_animated:
        raise InputError(f"{path}: is an animation; only single images are read")


def _has_16_bits(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits per channel, by its header."""
    with path.open("rb") as file:
        return _is_png_of_16_bits(file.read(25))


def _is_png_of_16_bits(start: bytes) -> bool:
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[24] == 16
