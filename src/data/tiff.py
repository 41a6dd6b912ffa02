"""Reading and writing TIFF files: the only place that decodes TIFF.

Only single 2-D images are read, and sizes are checked before memory is allocated. Every reason why a file cannot be
used is an :class:`InputError` of one line that names the file.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from src.common.errors import InputError, one_line
from src.common.files import replacing
from src.common.limits import check_pixels, max_pixels
from src.data.intensity import check_intensity, to_uint8
from src.data.tiff_streams import is_lossy, stream_pixels

# tifffile's own warnings about odd tags; what matters reaches the user as an InputError.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

MAX_DECODERS = 4  # threads that unpack the strips of one file …
MIN_SHARED = 1_000_000  # … of so many compressed bytes; a mask, which holds next to nothing, one unpacks sooner
MOST_PAGES = 32  # of a file whose first page is read: the levels of a pyramid, a thumbnail, a label
ORIENTATION = 274  # the number of the tag
PLAIN_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB")


@dataclass(frozen=True)
class Header:
    """The header of a TIFF's one image: ``height`` and ``width`` in px, ``channels`` (1 is grey) and NumPy dtype.

    ``is_turned``: its tag of orientation asks viewers to turn it. Pixels are read as they are stored, as other
    scientific readers do. ``is_lossy``: its compression changes values.
    """

    height: int
    width: int
    channels: int
    dtype: str
    is_turned: bool = False
    is_lossy: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether a TIFF has more than 8 bits per channel."""
        return np.dtype(self.dtype).itemsize > 1


def read_header(path: str | Path, first_page: bool = False) -> Header:
    """Read size, channels and dtype without decoding pixels; ``first_page`` as of :func:`read_image`.

    Raises:
        InputError: an unreadable or truncated file, a stack of pages or planes, 2 or more than 4 channels, or more
            pixels than the limit.
    """
    with _open_page(path, first_page) as page:
        tag = page.tags.get(ORIENTATION)
        is_turned = tag is not None and tag.value not in (0, 1)
        size, channels = (page.imagelength, page.imagewidth), page.samplesperpixel
        return Header(*size, channels, str(page.dtype), is_turned, is_lossy(page))


def first_page_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a file's first page by its header, whatever they are; (0, 0) where it is no TIFF."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            return file.pages.first.imagelength, file.pages.first.imagewidth
    except Exception:  # damaged files raise anything; who decodes them says what is wrong
        return 0, 0


def read_image(path: str | Path, intensity: str = "full", first_page: bool = False) -> np.ndarray:
    """Read an image as ``(H, W, 3)`` uint8 with its channels in the order stored in the file.

    Grey is repeated to three channels and a fourth channel (alpha) is dropped. Wider types than uint8 are mapped to
    0..255 by ``intensity`` (see :func:`to_uint8`).

    ``first_page`` reads the first page of a file with several, such as an Aperio SVS, whose others are smaller copies.

    Raises:
        InputError: as :func:`read_header` and :func:`to_uint8`; also a file that does not decode, a palette or other
            colour model.
    """
    check_intensity(intensity)
    with _open_page(path, first_page) as page:
        check_colors(page, path)
        pixels = _decode(page)[..., :3]
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    image = to_uint8(pixels, intensity, path)
    if white_is_zero:
        image = 255 - image
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def read_plane(path: str | Path) -> np.ndarray:
    """The values of a mask as ``(H, W)``, of any type.

    Raises:
        InputError: as :func:`read_header`; also a file that does not decode, a lossy compression, or more than one
            channel.
    """
    with _open_page(path) as page:
        if is_lossy(page):
            codec = tifffile.COMPRESSION(page.compression).name
            raise InputError(f"{path}: is compressed by {codec}, which is lossy and changes the ids of a mask")
        if page.samplesperpixel != 1:
            raise InputError(f"{path}: has {page.samplesperpixel} channels; a mask has one, holding instance ids")
        return _decode(page)[..., 0]


def read_description(path: str | Path) -> str:
    """The description of an image, empty without one. Raises as :func:`read_header`."""
    with _open_page(path) as page:
        return str(page.description)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an ``(H, W, 3)`` uint8 RGB image atomically, deflate compressed."""
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, image, photometric="rgb", compression="zlib", metadata=None)


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write an ``(H, W)`` mask of ids in 0..2³²-1 atomically, deflate compressed, as uint16 where they fit."""
    dtype = np.uint16 if mask.max(initial=0) < 1 << 16 else np.uint32
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, mask.astype(dtype), photometric="minisblack", compression="zlib", metadata=None)


@contextmanager
def _open_page(path: str | Path, first_page: bool = False) -> Iterator[tifffile.TiffPage]:
    """The single page of a file, checked but not decoded; any error while it is open becomes an InputError."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: cannot be read (it is not a regular file)")  # reading a pipe would block
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:  # no other files are opened on behalf of this one
            _check_layout(file, path, first_page)
            yield file.pages.first
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error.strerror or error)})") from error
    except Exception as error:  # damaged files raise anything: struct, codec, key, index, memory errors …
        raise InputError(f"{path}: cannot be read as a TIFF image ({one_line(error)})") from error


def _check_layout(file: tifffile.TiffFile, path: str | Path, first_page: bool) -> None:
    page = file.pages.first
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    if height < 1 or width < 1:
        raise InputError(f"{path}: has no pixels ({height} x {width})")
    check_pixels(path, height, width)
    if page.tilelength * page.tilewidth > max_pixels():
        raise InputError(f"{path}: is stored in tiles of {page.tilelength} x {page.tilewidth} px, too many to decode")
    if not first_page and (_has_other_image(file) or planes(file) > 1):
        raise InputError(f"{path}: has several pages or planes; only single 2-D images are read")
    if channels not in (1, 3, 4):
        raise InputError(f"{path}: has {channels} channels; grey, RGB and RGBA are read")
    if page.bitspersample not in (1, 8, 16, 32, 64) or page.dtype is None or page.dtype.kind not in "buif":
        raise InputError(f"{path}: has {page.bitspersample} bits per sample of type {page.dtype}, which is not read")
    _check_data_present(page, path)
    _check_streams(page, path)


def _has_other_image(file: tifffile.TiffFile) -> bool:
    """Whether a page may be another image than the first, and not a smaller copy, a thumbnail or a label of a slide.

    The pages of a stack are alike. A page of another size is passed over, unless the first is a smaller copy of it: by
    its own tag or by its sides. A chain of millions of pages is not followed.
    """
    first = file.pages.first
    size = (first.imagelength, first.imagewidth)
    for number in range(1, MOST_PAGES):
        try:
            page = file.pages[number]
        except IndexError:
            return False
        if not isinstance(page, tifffile.TiffPage):  # of a stack, all of whose frames are alike
            return True
        other = (page.imagelength, page.imagewidth)
        if other == size or (min(np.subtract(other, size)) >= 0 and (first.is_reduced or _is_copy(size, other))):
            return True
    return True


def _is_copy(small: tuple[int, int], large: tuple[int, int]) -> bool:
    """Whether an image may be another at a lower magnification: their sides have the same ratio, but for rounding."""
    return abs(small[0] * large[1] - small[1] * large[0]) <= 2 * max(large)


def planes(file: tifffile.TiffFile) -> int:
    """The number of planes by the description, where ImageJ and others store all of them behind one page."""
    page = file.pages.first
    return max(page.imagedepth, math.prod(file.series[0].shape) // math.prod(page.shape))


def _check_streams(page: tifffile.TiffPage, path: str | Path) -> None:
    """Refuse strips and tiles that decode to more than the header says: some codecs trust the size in the stream."""
    try:
        pixels = stream_pixels(page)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if pixels > 2 * math.prod(page.chunks[:2]):
        raise InputError(f"{path}: is damaged (a part of {math.prod(page.chunks[:2])} px claims to hold {pixels})")


def _check_data_present(page: tifffile.TiffPage, path: str | Path) -> None:
    """Refuse truncated files: the decoder would fill missing strips or tiles with zeros."""
    end = page.parent.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    missing = not page.is_contiguous and len(segments) < math.prod(page.chunked)
    if missing or any(offset <= 0 or count <= 0 or offset + count > end for offset, count in segments):
        raise InputError(f"{path}: is truncated or damaged (part of the image data is missing)")


def check_colors(page: tifffile.TiffPage, path: str | Path) -> None:
    """Refuse colour models other than grey and RGB. JPEG's YCbCr is converted by the decoder."""
    name = tifffile.PHOTOMETRIC(page.photometric).name
    if page.compression == tifffile.COMPRESSION.APERIO_JP2000_YCBC:  # whose tag may say RGB
        raise InputError(f"{path}: holds YCbCr as JPEG 2000, which only OpenSlide reads, as a slide")
    if name not in PLAIN_PHOTOMETRICS and not (name == "YCBCR" and page.compression == tifffile.COMPRESSION.JPEG):
        raise InputError(f"{path}: has colour model {name}; grey, RGB and RGBA are read")


def _decode(page: tifffile.TiffPage) -> np.ndarray:
    """The pixels as ``(H, W, S)``, also where the file keeps its channels as planes."""
    pixels = page.asarray(maxworkers=MAX_DECODERS if sum(page.databytecounts) >= MIN_SHARED else 1)
    if page.axes == "SYX":
        return np.moveaxis(pixels, 0, -1)
    return pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
