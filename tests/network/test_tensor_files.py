"""A sealed file is one that nobody changed."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.network.tensor_files import is_intact, seal

pytestmark = pytest.mark.torch


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("content", "0123456789" * 20)
    assert not is_intact(path)
    seal(path)
    return path


def test_a_sealed_zip_is_a_zip(sealed: Path) -> None:
    assert is_intact(sealed)
    with zipfile.ZipFile(sealed) as file:
        assert file.read("content") == b"0123456789" * 20 and file.testzip() is None


def test_every_flipped_bit_shows(sealed: Path) -> None:
    whole = sealed.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        sealed.write_bytes(damaged)
        assert not is_intact(sealed), place


def test_every_other_length_shows(sealed: Path) -> None:
    whole = sealed.read_bytes()
    for damaged in (*(whole[:length] for length in range(len(whole))), whole + b"\0", whole + whole[-64:]):
        sealed.write_bytes(damaged)
        assert not is_intact(sealed)


def test_only_a_zip_is_sealed_and_only_once(sealed: Path, tmp_path: Path) -> None:
    before = sealed.read_bytes()
    with pytest.raises(ValueError, match="zip"):
        seal(sealed)
    assert sealed.read_bytes() == before
    (tmp_path / "text").write_bytes(np.arange(9, dtype=np.uint8).tobytes())
    with pytest.raises(ValueError, match="zip"):
        seal(tmp_path / "text")
