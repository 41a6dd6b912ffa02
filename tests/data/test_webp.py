"""WebP: read as an image, measured before it is decoded, and refused as a mask."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import InputError
from src.data.masks import read_mask, read_mask_header
from src.data.pictures import exif_orientation, read_picture, read_size
from src.data.webp import HEAD, WebPHeader, webp_header

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def save(path: Path, pixels: np.ndarray = PIXELS, **options: object) -> Path:
    Image.fromarray(pixels).save(path, "WEBP", **options)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(1)}, {"lossless": True, "exif": exif(1)}])
def test_the_header_tells_the_size_of_every_kind(options: dict, tmp_path: Path) -> None:
    path = save(tmp_path / "x.webp", **options)
    assert webp_header(path.read_bytes()[:HEAD]) == WebPHeader(20, 30, False)
    assert read_size(path) == (20, 30)
    if "lossless" in options:
        assert np.array_equal(read_picture(path), PIXELS)


def test_other_files_have_no_webp_header() -> None:
    assert webp_header(b"\x89PNG\r\n\x1a\n" + bytes(22)) is None and webp_header(b"") is None


def test_alpha_is_dropped_and_a_tag_of_orientation_is_seen(tmp_path: Path) -> None:
    pixels = np.dstack([PIXELS, np.full((20, 30), 255, np.uint8)])
    path = save(tmp_path / "x.webp", pixels, lossless=True, exif=exif(6))
    assert np.array_equal(read_picture(path), PIXELS) and exif_orientation(path) == 6


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("name", ["class1.webp", "class1.png"])
def test_masks_are_refused_by_content(name: str, lossless: bool, tmp_path: Path) -> None:
    path = save(tmp_path / name, PIXELS[..., 0], lossless=lossless)
    for read in (read_mask, read_mask_header):
        with pytest.raises(InputError, match=rf"{name}: .*WebP"):
            read(path)


def test_animations_and_damaged_files_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a\.webp: is an animation"):
        read_picture(tmp_path / "a.webp")
    content = save(tmp_path / "x.webp").read_bytes()
    for damaged in (content[:25], content[:60], content[:12] + b"XXXX" + content[16:], b""):
        (tmp_path / "x.webp").write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.webp: cannot be read as an image"):
            read_picture(tmp_path / "x.webp")


def test_a_huge_claimed_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side = struct.pack("<I", 65_000 - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    (tmp_path / "x.webp").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)
    with pytest.raises(InputError, match=r"65000 x 65000 px.*--max-pixels"):
        read_size(tmp_path / "x.webp")
