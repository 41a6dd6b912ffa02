"""Which DICOM files are instances of one slide, by their headers (DICOM PS3.5 and PS3.10)."""

import struct
from pathlib import Path
from typing import BinaryIO

DICOM_SUFFIXES = (".dcm", ".dicom")
SERIES = (0x0020, 0x000E)  # Series Instance UID
SYNTAX = (0x0002, 0x0010)  # Transfer Syntax UID
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
IMPLICIT, UNREAD = "1.2.840.10008.1.2", ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big-endian and deflated
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
UNDEFINED = 0xFFFFFFFF  # a length: the value ends with a delimiter
MOST_BYTES = 1024  # of a UID, which has 64 at most
MOST_NESTED = 16  # sequences in sequences

Tag = tuple[int, int]


def series_of(path: Path) -> str | None:
    """The UID of the series of a DICOM file, which all instances of a slide share; ``None`` where it has none."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            if file.read(4) != b"DICM":
                return None
            return _series(file)
    except (OSError, ValueError, struct.error):
        return None


def _series(file: BinaryIO) -> str | None:
    implicit = False
    while (tag := _peek_tag(file)) <= SERIES:
        in_head = tag[0] == SYNTAX[0]
        tag, length = _element(file, implicit and not in_head)
        if tag in (SYNTAX, SERIES):
            uid = file.read(min(length, MOST_BYTES)).rstrip(b"\0 ").decode("ascii")
            if tag == SERIES:
                return uid
            if uid in UNREAD:
                return None
            implicit = uid == IMPLICIT
        else:
            _skip(file, length, implicit)
    return None


def _peek_tag(file: BinaryIO) -> Tag:
    group, element = struct.unpack("<HH", file.read(4))
    file.seek(-4, 1)
    return group, element


def _element(file: BinaryIO, implicit: bool) -> tuple[Tag, int]:
    """The tag and the length of the next element; its value follows."""
    group, element = struct.unpack("<HH", file.read(4))
    if implicit or group == ITEM[0]:  # what structures sequences never says its type
        return (group, element), struct.unpack("<I", file.read(4))[0]
    kind, short = struct.unpack("<2sH", file.read(4))
    return (group, element), struct.unpack("<I", file.read(4))[0] if kind in LONG else short


def _skip(file: BinaryIO, length: int, implicit: bool, depth: int = 0) -> None:
    """Go past a value; one of undefined length is a sequence, or one of its items, up to the delimiter."""
    if length != UNDEFINED:
        file.seek(length, 1)
        return
    if depth > MOST_NESTED:
        raise ValueError("too many sequences in sequences")
    while True:
        tag, inner = _element(file, implicit)
        if tag in (ITEM_END, SEQUENCE_END):
            return
        _skip(file, inner, implicit, depth + 1)
