"""What the compressed streams inside a TIFF say of their own size, which need not be what the file's header says."""

import math
import struct

import tifffile

_CODECS = tifffile.COMPRESSION
JPEG = frozenset({_CODECS.JPEG})
JPEG_2000 = frozenset({_CODECS.JPEG2000, _CODECS.APERIO_JP2000_RGB, _CODECS.APERIO_JP2000_YCBC})
# These unpack no more than the header asks for.
BOUNDED = frozenset({
    _CODECS.NONE, _CODECS.LZW, _CODECS.ADOBE_DEFLATE, _CODECS.DEFLATE, _CODECS.PACKBITS, _CODECS.ZSTD, _CODECS.LZMA,
    _CODECS.CCITTRLE, _CODECS.CCITTFAX3, _CODECS.CCITTFAX4,
})  # fmt: skip
HEAD = 1 << 16  # bytes of a stream within which its size must stand


def is_lossy(page: tifffile.TiffPage) -> bool:
    """Whether the page's compression changes values: JPEG, or JPEG 2000 by the irreversible transform."""
    if page.compression not in JPEG_2000:
        return page.compression not in BOUNDED
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0])
    return jpeg_2000_is_lossy(file.read(min(page.databytecounts[0], HEAD)))


def stream_pixels(page: tifffile.TiffPage) -> int:
    """The most px that the stream of any strip or tile claims to hold; 0 where the codec is bounded by the header.

    Raises:
        ValueError: a codec that is not read, or a stream that does not say its size.
    """
    if page.compression in BOUNDED:
        return 0
    most, file = 0, page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(offset)
        most = max(most, claimed_pixels(page, file.read(min(count, HEAD))))
    return most


def check_codec(page: tifffile.TiffPage) -> None:
    """Refuse a compression that is not read.

    Raises:
        ValueError: naming it.
    """
    if page.compression not in BOUNDED | JPEG | JPEG_2000:
        raise ValueError(f"is compressed by {_CODECS(page.compression).name}, which is not read")


def claimed_pixels(page: tifffile.TiffPage, head: bytes) -> int:
    """The px that the stream of one strip or tile claims to hold, by its beginning; as :func:`stream_pixels`."""
    check_codec(page)
    if page.compression in BOUNDED:
        return 0
    return math.prod(jpeg_size(head) if page.compression in JPEG else jpeg_2000_size(head))


def jpeg_size(head: bytes) -> tuple[int, int]:
    """Height and width in the frame header of a JPEG stream (ITU-T T.81, B.2.2), found from segment to segment."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], struct.unpack(">H", head[place + 2 : place + 4])[0]
        if marker == 0xFF:  # fill
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return struct.unpack(">HH", head[place + 5 : place + 9])
        else:
            place += 2 + length
    raise ValueError("holds a JPEG stream that does not say its size")


def jpeg_2000_size(head: bytes) -> tuple[int, int]:
    """Height and width in the SIZ segment of a JPEG 2000 codestream (ITU-T T.800, A.5.1)."""
    place = head.find(b"\xff\x4f\xff\x51")
    if place < 0 or place + 24 > len(head):
        raise ValueError("holds a JPEG 2000 stream that does not say its size")
    right, bottom, left, top = struct.unpack(">4I", head[place + 8 : place + 24])
    return max(bottom - top, 0), max(right - left, 0)


def jpeg_2000_is_lossy(head: bytes) -> bool:
    """Whether the COD segment of a JPEG 2000 codestream (ITU-T T.800, A.6.1) names the irreversible transform, 0."""
    place = head.find(b"\xff\x52", max(head.find(b"\xff\x4f\xff\x51"), 0))
    return place < 0 or place + 14 > len(head) or head[place + 13] == 0
