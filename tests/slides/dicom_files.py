"""DICOM slides for tests, by the standard: PS3.10 (files), PS3.5 (elements), PS3.3 A.32.8 (VL whole slide image)."""

import struct
from pathlib import Path

import numpy as np

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
LONG = ("OB", "OW", "SQ", "UN", "UT")
NUMBERS = {"US": "<H", "UL": "<I"}
UNDEFINED = 0xFFFFFFFF


def element(tag: int, kind: str, value: object, implicit: bool = False) -> bytes:
    """A data element; numbers by their type, texts padded to an even length."""
    if isinstance(value, int) and kind in NUMBERS:
        data = struct.pack(NUMBERS[kind], value)
    elif isinstance(value, bytes):
        data = value + b"\0" * (len(value) % 2)
    else:
        data = str(value).encode()
        data += (b"\0" if kind == "UI" else b" ") * (len(data) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", len(data)) + data
    if kind in LONG:
        return head + kind.encode() + b"\0\0" + struct.pack("<I", len(data)) + data
    return head + kind.encode() + struct.pack("<H", len(data)) + data


def sequence(tag: int, *items: bytes, defined: bool = True, implicit: bool = False) -> bytes:
    """A sequence of items, their lengths said or not."""
    parts = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(item) if defined else UNDEFINED)
        + item
        + (b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE00D, 0))
        for item in items
    )
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else b"SQ\0\0")
    if defined:
        return head + struct.pack("<I", len(parts)) + parts
    return head + struct.pack("<I", UNDEFINED) + parts + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def write(path: Path, *elements: bytes, syntax: str = EXPLICIT) -> Path:
    """A DICOM file of elements."""
    meta = b"".join(
        [
            element(0x00020001, "OB", b"\0\1"),
            element(0x00020002, "UI", WSI),
            element(0x00020003, "UI", f"1.2.3.{abs(hash(path.name)) % 10**8}"),
            element(0x00020010, "UI", syntax),
            element(0x00020012, "UI", "1.2.3.4"),
        ]
    )
    path.write_bytes(b"\0" * 128 + b"DICM" + element(0x00020000, "UL", len(meta)) + meta + b"".join(elements))
    return path


def write_level(path: Path, image: np.ndarray, series: str, number: int, mpp: float, tile: int = 64) -> Path:
    """One level of a slide, ``(H, W, 3)`` uint8, as an instance with uncompressed tiles."""
    height, width = image.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    padded = np.full((down * tile, across * tile, 3), 255, np.uint8)
    padded[:height, :width] = image
    frames = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2).tobytes()
    spacing = element(0x00280030, "DS", f"{mpp / 1000:.6f}\\{mpp / 1000:.6f}")
    kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 1 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    return write(
        path,
        element(0x00080008, "CS", kind),
        element(0x00080016, "UI", WSI),
        element(0x00080018, "UI", f"{series}.{number}"),
        element(0x00080060, "CS", "SM"),
        element(0x0020000D, "UI", "1.2.3.9"),
        element(0x0020000E, "UI", series),
        element(0x00200013, "IS", number),
        element(0x00200052, "UI", "1.2.3.8"),
        element(0x00209311, "CS", "TILED_FULL"),
        element(0x00280002, "US", 3),
        element(0x00280004, "CS", "RGB"),
        element(0x00280006, "US", 0),
        element(0x00280008, "IS", down * across),
        element(0x00280010, "US", tile),
        element(0x00280011, "US", tile),
        element(0x00280100, "US", 8),
        element(0x00280101, "US", 8),
        element(0x00280102, "US", 7),
        element(0x00280103, "US", 0),
        element(0x00480006, "UL", width),
        element(0x00480007, "UL", height),
        sequence(0x52009229, sequence(0x00289110, spacing)),
        element(0x7FE00010, "OB", frames),
    )
