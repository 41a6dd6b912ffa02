"""What a WebP file says of itself in its first bytes (RFC 9649), before a decoder takes memory for it."""

from typing import NamedTuple

HEAD = 30  # bytes
_ANIMATED = 0b10  # of the flags of an extended file


class WebPHeader(NamedTuple):
    """The size in px, and whether the file is an animation."""

    height: int
    width: int
    is_animated: bool


def webp_header(head: bytes) -> WebPHeader | None:
    """The header of a WebP file by its first :data:`HEAD` bytes; ``None`` for a file of another type.

    Raises:
        ValueError: a WebP file whose first chunk is none of the three that the format has.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X" and len(head) == HEAD:
        return WebPHeader(_number(head[27:30]) + 1, _number(head[24:27]) + 1, bool(head[20] & _ANIMATED))
    if kind == b"VP8L" and len(head) >= 25 and head[20] == 0x2F:
        bits = _number(head[21:25])
        return WebPHeader((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, False)
    if kind == b"VP8 " and len(head) == HEAD and head[23:26] == b"\x9d\x01\x2a":
        return WebPHeader(_number(head[28:30]) & 0x3FFF, _number(head[26:28]) & 0x3FFF, False)
    raise ValueError("is a damaged WebP file")


def _number(part: bytes) -> int:
    return int.from_bytes(part, "little")
