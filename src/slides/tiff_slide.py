"""Tiled and pyramidal TIFF, BigTIFF and OME-TIFF, read tile by tile through tifffile."""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence, Set
from operator import add
from pathlib import Path

import numpy as np
import tifffile

from src.common.errors import InputError, one_line
from src.common.limits import check_pixels
from src.data.tiff import check_colors, planes
from src.data.tiff_streams import HEAD, check_codec, claimed_pixels
from src.slides.slide import WHITE, Level, StoredTile, plausible_mpp

CACHED_BYTES = 256 * 2**20  # of decoded tiles, which neighbouring regions share
PLAIN_KINDS = ("generic", "shaped", "uniform", "ome")  # of tifffile's series, which are of no scanner
OME_UNITS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "mm": 1e3, "cm": 1e4}  # in µm
UNITS = {2: 25_400.0, 3: 10_000.0}  # µm per inch and per cm, by the number of TIFF's ResolutionUnit


class TiffSlide:
    """A slide in a TIFF file whose pages are stored in tiles or strips, 8 bits per channel, grey or RGB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._broken: set[StoredTile] = set()
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._file, self._pages = _open(path)
        self.levels: Sequence[Level] = [Level(page.imagelength, page.imagewidth) for page in self._pages]
        self.mpp = _mpp(self._file, self._pages[0])

    @property
    def broken(self) -> Set[StoredTile]:
        """The stored tiles that could not be decoded so far."""
        with self._lock:
            return frozenset(self._broken)

    def close(self) -> None:
        """Close the file, and forget its decoded tiles."""
        self._file.close()
        self.forget_tiles()

    def forget_tiles(self) -> None:
        """Give up the memory of decoded tiles that are kept for neighbouring regions."""
        with self._lock:
            self._cache.clear()
            self._cached_bytes = 0

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A region of a level, ``(height, width, 3)`` uint8 RGB; stored tiles that are broken or missing are white."""
        page = self._pages[level]
        rows, columns = page.chunks[:2]
        region = np.full((height, width, 3), WHITE, np.uint8)
        across = math.ceil(page.imagewidth / columns)
        for row in range(top // rows, math.ceil((top + height) / rows)):
            for column in range(left // columns, math.ceil((left + width) / columns)):
                part = self._segment(level, row * across + column)
                y, x = row * rows, column * columns
                above, before = max(top, y), max(left, x)
                below, behind = min(top + height, y + len(part)), min(left + width, x + part.shape[1])
                if above < below and before < behind:
                    region[above - top : below - top, before - left : behind - left] = part[
                        above - y : below - y, before - x : behind - x
                    ]
        return region

    def _segment(self, level: int, index: int) -> np.ndarray:
        """A stored tile, from the cache or decoded."""
        with self._lock:
            found = self._cache.get((level, index))
            if found is not None:
                self._cache.move_to_end((level, index))
                return found
        decoded = self._decode(level, index)
        with self._lock:
            if (level, index) not in self._cache:
                self._cache[level, index] = decoded
                self._cached_bytes += decoded.nbytes
            while self._cached_bytes > CACHED_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return decoded

    def _decode(self, level: int, index: int) -> np.ndarray:
        page = self._pages[level]
        empty = np.full((0, 0, 3), WHITE, np.uint8)
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:  # sparse files leave out the background
            return empty
        with self._lock:
            self._file.filehandle.seek(offset)
            data = self._file.filehandle.read(count)
        if len(data) < count:
            raise InputError(f"{self.path}: is truncated, or became shorter while it was read")
        try:
            if claimed_pixels(page, data[:HEAD]) > 2 * math.prod(page.chunks[:2]):
                raise ValueError("claims to hold more than its tile")
            decoded, _, shape = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
            if decoded is None:
                return empty
            pixels = np.asarray(decoded).reshape(-1, *np.asarray(decoded).shape[-3:])[0][: shape[1], : shape[2]]
            return _as_rgb(pixels, page)
        except Exception:  # a damaged tile raises anything
            with self._lock:
                self._broken.add((level, index))
            return empty


def _open(path: Path) -> tuple[tifffile.TiffFile, list[tifffile.TiffPage]]:
    """A file with the pages of its magnifications.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        file = tifffile.TiffFile(path, _multifile=False)  # no other files are opened on behalf of this one
    except Exception as error:  # damaged files raise anything
        raise InputError(f"{path}: cannot be read as a TIFF slide ({one_line(error)})") from error
    try:
        return file, _levels(file, path)
    except InputError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise InputError(f"{path}: cannot be read as a TIFF slide ({one_line(error)})") from error


def _levels(file: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPage]:
    """The pages of the first image's magnifications, largest first, checked but not decoded."""
    if not file.series:
        raise InputError(f"{path}: is truncated or damaged (it holds no image)")
    first, *others = file.series
    pages = [level.keyframe for level in first.levels]
    _check_images(file, path)
    # Other kinds define their levels; of these, tifffile finds only levels with equal steps of 2 to 4.
    if first.kind in ("generic", "shaped"):
        pages += [other.keyframe for other in others if _is_level(other.keyframe, pages[0])]
        pages.sort(key=lambda page: page.imagelength, reverse=True)
    for page in pages:
        _check_page(page, path)
    return [page for page in pages if page.imagelength and page.imagewidth]


def _check_images(file: tifffile.TiffFile, path: Path) -> None:
    """Refuse a stack of planes, and a file of no scanner whose first image is not the largest.

    Which of its images is the slide is not clear there; the formats of scanners define it.

    Raises:
        InputError: naming the file.
    """
    count = planes(file)
    if count > 1:
        raise InputError(f"{path}: holds {count:,} pages or planes of one size; a slide is a single RGB or grey image")
    first, *others = file.series
    page = first.keyframe
    for other in (series.keyframe for series in others if first.kind in PLAIN_KINDS):
        if other.imagelength * other.imagewidth >= page.imagelength * page.imagewidth:
            raise InputError(
                f"{path}: holds an image of {other.imagelength} x {other.imagewidth} px behind the first, which has"
                f" {page.imagelength} x {page.imagewidth} px and should be the only one of its size"
            )


def _is_level(page: tifffile.TiffPage, full: tifffile.TiffPage) -> bool:
    """Whether a page says that it is reduced, is stored as the full one is, and has its size divided by some number.

    Both sides may be rounded up or down, so that they are off by less than 1 px.
    """
    height, width = page.imagelength, page.imagewidth
    return (
        page.subfiletype == tifffile.FILETYPE.REDUCEDIMAGE
        and page.is_tiled == full.is_tiled
        and (page.dtype, page.samplesperpixel, page.photometric) == (full.dtype, full.samplesperpixel, full.photometric)
        and height < full.imagelength
        and width < full.imagewidth
        and full.imagelength * (width - 1) < full.imagewidth * (height + 1)
        and full.imagewidth * (height - 1) < full.imagelength * (width + 1)
    )


def _check_page(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse a page that is not grey or RGB of 8 bits, or whose parts are not decoded or are too large for it.

    Raises:
        InputError: naming the file.
    """
    if page.samplesperpixel > 1 and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
        raise InputError(f"{path}: stores its channels as separate planes; only interleaved channels are read")
    if page.dtype != np.uint8 or page.samplesperpixel not in (1, 3, 4):
        raise InputError(
            f"{path}: has {page.samplesperpixel} channels of {page.dtype}; slides are grey or RGB of 8 bits"
        )
    check_colors(page, path)
    try:
        check_codec(page)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    check_pixels(f"{path}: a stored tile", *page.chunks[:2])
    stored = list(map(add, page.dataoffsets, page.databytecounts))
    if len(stored) < math.prod(page.chunked) or max(stored, default=0) > page.parent.filehandle.size:
        raise InputError(f"{path}: is truncated or damaged (part of the image data is missing)")


def _as_rgb(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    rgb = np.broadcast_to(pixels[..., :3], (*pixels.shape[:2], 3))
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        rgb = 255 - rgb
    return np.ascontiguousarray(rgb)


def _mpp(file: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """The resolution by OME-XML, Aperio's description, or the TIFF's own tags."""
    for read in (_ome_mpp, _aperio_mpp):
        found = read(file, page)
        if found is not None:
            return found
    unit = page.tags.get("ResolutionUnit")
    values = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    if unit is None or int(unit.value) not in UNITS or any(tag is None for tag in values):
        return None
    per_unit = [tag.value[0] / tag.value[1] if tag.value[1] else 0.0 for tag in values if tag is not None]
    return plausible_mpp([UNITS[int(unit.value)] / value if value else None for value in per_unit])


def _aperio_mpp(file: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    parts = (part.partition("=") for part in page.description.split("|")) if file.is_svs else ()
    values = {name.strip(): value.strip() for name, _, value in parts}
    try:
        return plausible_mpp([float(values["MPP"])])
    except (KeyError, ValueError):
        return None


def _ome_mpp(file: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    if not file.is_ome:
        return None
    from defusedxml.ElementTree import fromstring

    try:
        pixels = next(one for one in fromstring(file.ome_metadata).iter() if one.tag.rpartition("}")[2] == "Pixels")
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
        sizes = [float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "XY"]
        return plausible_mpp([size * OME_UNITS[unit] for size, unit in zip(sizes, units, strict=True)])
    except Exception:  # XML of any kind may stand there
        return None
