"""TIFF files that are damaged or made to harm: each is read, or refused in a line that names it; nothing crashes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from src.common.limits import set_max_pixels
from src.data.tiff import read_header, read_image
from tests.torture import mutants

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"


def run_mutants(folder: Path, count: int, seed: int) -> dict[str, int]:
    """The outcomes of a run in a process of its own."""
    arguments = [sys.executable, "-m", "tests.torture.mutants", str(folder), str(count), str(seed)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"the reader ended the process: {done.stderr.splitlines()[-1:]}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["longest_s"] <= mutants.SECONDS
    return dict(result["counts"])


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutants_are_read_or_refused(tmp_path: Path, count: int) -> None:
    counts = run_mutants(tmp_path, count, seed=count)
    assert set(counts) <= {"same", "other pixels", "refused"}
    assert sum(counts.values()) == count and counts["refused"] > count / 4


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data are absent")
def test_mutants_of_real_files_are_read_or_refused(tmp_path: Path) -> None:
    for folder in sorted((REAL / "hw3-format/train").iterdir()):
        for path in folder.glob("*.tif"):
            (tmp_path / folder.name).mkdir(exist_ok=True)
            (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    counts = run_mutants(tmp_path, 1000, seed=1)
    assert set(counts) <= {"same", "other pixels", "refused"} and sum(counts.values()) == 1000


def test_the_mutants_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lets its library's errors through would be found."""
    monkeypatch.setattr(mutants, "read_header", lambda path: read_header(path) and tifffile.imread(path) is None)
    monkeypatch.setattr(mutants, "read", lambda path, is_mask: tifffile.imread(path))
    found = set()
    for _, _, damaged, _, is_mask in mutants.attempts(tmp_path, 100, 0):
        (tmp_path / "mutant.tiff").write_bytes(damaged)
        found.add(mutants.outcome(tmp_path / "mutant.tiff", is_mask, np.zeros(1)).split(":")[0])
    assert "escaped" in found


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((20_000, 20_000), np.uint8), compression="zlib", metadata=None)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"bomb\.tif: is 20000 x 20000 px; more than 100000000 px"):
        read_image(path)
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.zeros((30, 40), np.uint8), metadata=None)
    set_max_pixels(1000)
    with pytest.raises(InputError, match="more than 1000 px"):
        read_image(small)


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), metadata=None)
    whole = path.read_bytes()
    for tag in (256, 257):  # width and height, each a SHORT or LONG in its directory entry
        place = next(i for i in range(len(whole)) if whole[i : i + 2] == tag.to_bytes(2, "little") and i > 7)
        entry = tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
        whole = whole[:place] + entry + (10**6).to_bytes(4, "little") + whole[place + 12 :]
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"huge\.tif: is 1000000 x 1000000 px"):
        read_header(path)


def write_stream(path: Path, codec: int, stream: bytes, side: int = 64) -> Path:
    """A TIFF that says it is ``side`` px per side, and holds one strip with a stream of its own size."""
    tifffile.imwrite(path, np.zeros((side, side, 3), np.uint8), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags, end = file.pages.first.tags, file.filehandle.size
        tags["Compression"].overwrite(codec)
        tags["StripOffsets"].overwrite(end)
        tags["StripByteCounts"].overwrite(len(stream))
    with path.open("ab") as file:
        file.write(stream)
    return path


@pytest.mark.parametrize(("codec", "name"), [(7, "jpeg"), (34712, "jpeg2k")])
def test_a_stream_that_is_larger_than_its_strip_is_not_unpacked(tmp_path: Path, codec: int, name: str) -> None:
    encode = getattr(imagecodecs, f"{name}_encode")
    fitting = write_stream(tmp_path / "a.tif", codec, encode(np.full((64, 64, 3), 200, np.uint8)))
    assert np.abs(read_image(fitting).astype(int) - 200).max() < 3
    bomb = write_stream(tmp_path / "b.tif", codec, encode(np.zeros((2000, 2000, 3), np.uint8)))
    with pytest.raises(InputError, match=r"b\.tif: is damaged \(a part of 4096 px claims to hold 4000000\)"):
        read_image(bomb)
    with pytest.raises(InputError, match=r"c\.tif: holds a JPEG.* stream that does not say its size"):
        read_image(write_stream(tmp_path / "c.tif", codec, b"\xff\xd8" + bytes(50)))


def test_codecs_that_go_by_their_own_size_are_not_read(tmp_path: Path) -> None:
    stream = imagecodecs.webp_encode(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.tif: is compressed by WEBP, which is not read"):
        read_image(write_stream(tmp_path / "a.tif", 50001, stream))


def test_a_chain_of_a_million_pages_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "chain.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), metadata=None)
    whole = bytearray(path.read_bytes())
    first = int.from_bytes(whole[4:8], "little")
    place = first + 2 + 12 * int.from_bytes(whole[first : first + 2], "little")  # of the next page's offset
    start, count = len(whole), 1_000_000
    whole[place : place + 4] = start.to_bytes(4, "little")
    pages = np.zeros(count, [("entries", "<u2"), ("next", "<u4")])
    pages["next"][:-1] = start + 6 * np.arange(1, count)
    path.write_bytes(whole + pages.tobytes())
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"chain\.tif: has several pages"):
        read_image(path)
    assert time.perf_counter() - started < 2


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{0}1">'
    '<Image ID="Image:0"><Pixels ID="P" DimensionOrder="XYCZT" SizeX="8" SizeY="8" SizeC="1" SizeT="1" SizeZ="1"'
    ' Type="uint8"><Channel ID="c" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1">'
    '<UUID FileName="{1}">urn:uuid:{0}2</UUID></TiffData></Pixels></Image></OME>'
)


def test_no_other_file_is_opened_and_no_pipe_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = OME.format("00000000-0000-0000-0000-00000000000", "pipe")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint8), description=text, metadata=None)
    code = "import sys; from src.data.tiff import read_header; read_header(sys.argv[1])"
    for name, words in (("a.tif", ""), ("pipe", "pipe: cannot be read (it is not a regular file)")):
        arguments = [sys.executable, "-c", code, str(tmp_path / name)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert words in done.stderr and (done.returncode == 0) == (not words)
