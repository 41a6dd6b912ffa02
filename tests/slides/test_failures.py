"""What breaks while slides are predicted is named, the other slides go on, and no cell is wrong."""

import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from src.common.errors import InputError
from src.engine import slide_run
from src.engine.slide_options import SlideOptions
from src.engine.slide_prediction import choose_tiles, predict_slide
from src.engine.slide_run import predict_slides
from src.geometry.instances import Instance
from src.geometry.stitch import Stitcher
from src.geometry.tile_detections import TileDetections
from src.slides.claims import claimed
from src.slides.finding import open_slide
from src.slides.scaled import ScaledSlide
from src.slides.shards import Shards
from src.slides.slide import Slide
from src.slides.tiff_slide import TiffSlide
from src.slides.tissue import all_tissue
from tests.slides.conftest import OpenTiff
from tests.slides.running import arguments, content
from tests.slides.scenes import DarkFinder, picture, write_pyramid
from tests.slides.test_prediction import CLASSES, options, predictor
from tests.sources import ROOT

pytestmark = pytest.mark.torch


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two slides, of several shards each."""
    monkeypatch.setattr("src.engine.slide_prediction.TILES_PER_SHARD", 8)
    return [write_pyramid(tmp_path / f"{name}.tif", picture(200, 300, seed)) for seed, name in enumerate("ab")]


def predict(slides: list[Path], how: SlideOptions) -> dict[Path, str]:
    return predict_slides(predictor(), CLASSES, slides, how)


class FailingSlide(TiffSlide):
    """A reader that fails after some regions; no region may be read after it was closed."""

    def __init__(self, path: Path, error: Callable[[], Exception] | None = None) -> None:
        super().__init__(path)
        self.reads, self.error = 0, error
        self.is_closed, self.in_use, self.read_after_close = False, 0, False

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        self.reads += 1
        if self.error and self.reads > 12 and threading.current_thread() is not threading.main_thread():
            raise self.error()
        self.in_use += 1
        time.sleep(0.002)
        self.read_after_close |= self.is_closed
        self.in_use -= 1
        return super().read(level, top, left, height, width)

    def close(self) -> None:
        self.is_closed = True
        self.read_after_close |= self.in_use > 0
        super().close()


class StrangeError(Exception):
    """As zipfile.BadZipFile or struct.error: none of the usual ones."""


@pytest.mark.parametrize("error", [InputError("it broke"), OSError(5, "it broke"), StrangeError("it broke\nbadly")])
def test_a_reader_that_dies_in_a_thread(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def opened(path: Path) -> Slide:
        return FailingSlide(path, (lambda: error) if path.name == "a.tif" else None)

    monkeypatch.setattr(slide_run, "open_slide", opened)
    failed = predict(slides, options(tmp_path / "out"))
    (reason,) = failed.values()
    assert reason.startswith(f"{slides[0]}: ") and "it broke" in reason and "\n" not in reason
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."] == ["b"]
    monkeypatch.setattr(slide_run, "open_slide", open_slide)
    assert predict(slides, options(tmp_path / "out")) == {}
    predict(slides, options(tmp_path / "whole"))
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_warnings_count_the_tiles_of_their_own_slide(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And none of the slide before, which failed half way."""

    class LimitedFinder(DarkFinder):
        def __init__(self) -> None:
            super().__init__()
            self.limits_reached: Counter[str] = Counter()

        def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
            self.limits_reached.update({"tiles": len(tiles), "--detections-per-tile": len(tiles)})
            return super().forward(tiles)

    def opened(path: Path) -> Slide:
        return FailingSlide(path, (lambda: InputError("it broke")) if path.name == "a.tif" else None)

    monkeypatch.setattr(slide_run, "open_slide", opened)
    failed = predict_slides(replace(predictor(), models=[LimitedFinder()]), CLASSES, slides, options(tmp_path / "out"))
    assert list(failed) == slides[:1]
    tiles = json.loads((tmp_path / "out" / "b" / "summary.json").read_text())["tiles"]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "--detections-per-tile" in line)
    assert line.startswith(f"{slides[1]}: ") and f" {tiles} of {tiles} " in line


def test_no_thread_reads_from_a_slide_that_is_closed(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide would crash the process."""
    opened: list[FailingSlide] = []

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(slide_run, "open_slide", lambda path: opened.append(FailingSlide(path)) or opened[-1])
    monkeypatch.setattr("src.slides.shards.np.savez", no_room)
    failed = predict(slides, options(tmp_path / "out"))
    assert all("No space left" in failed[path] and str(path) in failed[path] for path in slides)
    assert len(opened) == 2 and all(one.is_closed and not one.read_after_close for one in opened)
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_slide_that_becomes_shorter_is_not_read_as_white(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = slides[0].read_bytes()

    def opened(path: Path) -> Slide:
        slide = open_slide(path)
        if path == slides[0]:
            os.truncate(path, len(whole) // 3)
        return slide

    monkeypatch.setattr(slide_run, "open_slide", opened)
    failed = predict(slides, options(tmp_path / "out"))
    assert list(failed) == slides[:1] and "truncated" in failed[slides[0]]
    failed = predict(slides, options(tmp_path / "out"))  # the file of now, which is cut off from the beginning
    assert list(failed) == slides[:1] and str(slides[0]) in failed[slides[0]]
    slides[0].write_bytes(whole)
    monkeypatch.setattr(slide_run, "open_slide", open_slide)
    assert predict(slides, options(tmp_path / "out")) == {}


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: write_pyramid(path, picture(200, 300, 7))])
def test_a_slide_that_is_removed_or_replaced_meanwhile_is_named(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    def opened(path: Path) -> Slide:
        slide = open_slide(path)
        if path == slides[0]:
            path.rename(path.with_suffix(".moved"))  # what is open can be read on
            path.with_suffix(".moved").unlink()
            write_pyramid(path, picture(200, 300, 7))
            change(path)
        return slide

    monkeypatch.setattr(slide_run, "open_slide", opened)
    failed = predict(slides, options(tmp_path / "out"))
    assert list(failed) == slides[:1] and str(slides[0]) in failed[slides[0]]
    assert not (tmp_path / "out" / "a").exists() and (tmp_path / "out" / "b").exists()


def predicted_shards(slide: Path, folder: Path, tiff: OpenTiff) -> Shards:
    scaled = ScaledSlide(tiff(slide), 1.0)
    shards = Shards(folder, 1)
    predict_slide(predictor(), scaled, choose_tiles(scaled, all_tissue(scaled.slide), 64, 24), shards)
    return shards


def cells_of(shards: Shards) -> list[tuple[object, ...]]:
    return [(one.top, one.left, one.score, one.mask.tobytes()) for part in shards.cells() for one in part]


@pytest.mark.parametrize("failing", [4, 6, 9])
def test_an_error_while_tiles_are_stitched_loses_no_cells(
    tmp_path: Path, tiff: OpenTiff, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The tiles behind it wait in turn already; in a slide as narrow as this they complete rows, and thus shards."""
    monkeypatch.setattr("src.engine.slide_prediction.TILES_PER_SHARD", 1)
    slide, steps, advance = write_pyramid(tmp_path / "a.tif", picture(600, 90)), count(1), Stitcher.advance

    def advance_or_fail(self: Stitcher, new: TileDetections, frontier: int) -> list[Instance]:
        if next(steps) == failing:
            raise MemoryError
        return advance(self, new, frontier)

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(Stitcher, "advance", advance_or_fail)
        with pytest.raises(MemoryError):
            predicted_shards(slide, tmp_path / "shards", tiff)
    found = cells_of(predicted_shards(slide, tmp_path / "shards", tiff))
    assert found == cells_of(predicted_shards(slide, tmp_path / "whole", tiff)) and len(found) > 5


@pytest.mark.parametrize("seed", range(12))
def test_damaged_shards_are_predicted_again(
    slides: list[Path], tmp_path: Path, tiff: OpenTiff, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    shards, rng = predicted_shards(slides[0], tmp_path / "shards", tiff), np.random.default_rng(seed)
    expected, paths = cells_of(shards), sorted((tmp_path / "shards").glob("*.npz"))
    assert len(paths) >= 3
    path = paths[int(rng.integers(len(paths)))]
    data = bytearray(path.read_bytes())
    damages = [
        lambda: path.write_bytes(data[: int(rng.integers(len(data)))]),
        lambda: path.write_bytes(rng.bytes(len(data))),
        path.unlink,
        lambda: path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2)),
    ]
    damages[seed % 4]()
    if path.exists() or path != paths[-1]:  # that the last one is missing nobody can see
        with pytest.raises(InputError, match=r"shard-\d+\.npz"):
            cells_of(shards)
    assert cells_of(predicted_shards(slides[0], tmp_path / "shards", tiff)) == expected
    assert seed % 4 == 2 or path.name in capsys.readouterr().out


def test_a_flipped_bit_in_a_shard_is_noticed_or_harmless(slides: list[Path], tmp_path: Path, tiff: OpenTiff) -> None:
    shards, rng = predicted_shards(slides[0], tmp_path / "shards", tiff), np.random.default_rng(0)
    expected, path = cells_of(shards), sorted((tmp_path / "shards").glob("*.npz"))[1]
    whole, noticed = path.read_bytes(), 0
    for place in rng.integers(len(whole), size=200):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            assert cells_of(shards) == expected
        except InputError as error:
            assert path.name in str(error)
            noticed += 1
    assert noticed > 100


def test_shards_that_lost_their_job_are_not_used(slides: list[Path], tmp_path: Path, tiff: OpenTiff) -> None:
    """A removal that was interrupted, before a run with other settings."""
    predicted_shards(slides[0], tmp_path / "shards", tiff)
    (tmp_path / "shards" / "job.json").unlink()
    assert Shards(tmp_path / "shards", 2).state() is None


def test_a_damaged_job_or_summary_is_named(slides: list[Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "out" / ".a.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "job.json").write_bytes(b"\xff\0{")
    failed = predict(slides[:1], options(tmp_path / "out"))
    assert str(unfinished / "job.json") in failed[slides[0]]
    (unfinished / "job.json").unlink()
    assert predict(slides[:1], options(tmp_path / "out")) == {}
    (tmp_path / "out" / "a" / "summary.json").write_text("{")
    failed = predict(slides[:1], options(tmp_path / "out"))
    assert str(tmp_path / "out" / "a" / "summary.json") in failed[slides[0]]


def test_a_full_disk_while_outputs_are_written_leaves_the_shards(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("src.formats.writers.geojson.GeoJsonCells.add", no_room)
    out = tmp_path / "out"
    failed = predict(slides[:1], options(out))
    assert failed[slides[0]].startswith(f"{slides[0]}: {out / 'a'}") and "No space left" in failed[slides[0]]
    assert [path.name for path in out.iterdir()] == [".a.unfinished"]
    monkeypatch.undo()
    monkeypatch.setattr("src.engine.slide_prediction.detect_batches", lambda *_: (i for i in ()))  # all is there
    assert predict(slides[:1], options(out)) == {}
    assert [path.name for path in out.iterdir()] == ["a"]


@pytest.mark.parametrize("most", [4_000, 9_000])
def test_a_disk_that_is_full_is_one_line_per_slide_and_exit_code_1(
    slides: list[Path], tmp_path: Path, most: int
) -> None:
    """Files of ``most`` bytes at most, in place of a small disk: a shard does not fit, or an overview."""
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    command = [sys.executable, "-m", "tests.slides.command", *arguments(tmp_path, out)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout, done.stderr
    lines = done.stdout.splitlines()
    for path in slides:
        assert sum(line.startswith(f"{path}: ") and "File too large" in line for line in lines) == 1
    assert all(path.name.endswith(".unfinished") for path in out.iterdir())
    assert not [path for path in out.rglob("*") if "tmp" in path.name]
    shards = [len(list((out / f".{name}.unfinished").glob("shard-*.npz"))) for name in "ab"]
    assert shards == ([0, 0] if most == 4_000 else [3, 3])


def test_a_slide_that_another_process_predicts_is_left_to_it(slides: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    holding = (
        "import sys\nfrom pathlib import Path\nfrom src.slides.claims import claimed\n"
        "with claimed(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(out / "a")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    failed = predict(slides, options(out))
    assert list(failed) == slides[:1] and "another process" in failed[slides[0]]
    other.kill()
    other.communicate()
    assert (out / ".a.lock").exists()  # which keeps nobody out
    assert predict(slides, options(out)) == {}
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]


def test_where_files_cannot_be_locked_slides_are_predicted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr("src.slides.claims.lock", no_locks)
    with claimed(tmp_path / "a"):
        assert (tmp_path / ".a.lock").exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_is_removed_while_it_is_looked_up_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, which has just ended."""
    of_file = os.fstat

    def end_another(descriptor: int) -> os.stat_result:
        monkeypatch.undo()
        (tmp_path / ".a.lock").unlink()
        return of_file(descriptor)

    monkeypatch.setattr("src.slides.claims.os.fstat", end_another)
    with claimed(tmp_path / "a"):
        assert (tmp_path / ".a.lock").exists()


def test_what_is_no_folder_of_outputs_is_never_replaced(slides: list[Path], tmp_path: Path) -> None:
    """Such as the pixels of an MRXS slide, in a folder of its name, where slides and outputs lie in one folder."""
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "Data0000.dat").write_bytes(b"pixels")
    failed = predict(slides, options(tmp_path / "out"))
    assert list(failed) == slides[:1] and str(tmp_path / "out" / "a") in failed[slides[0]]
    assert (tmp_path / "out" / "a" / "Data0000.dat").read_bytes() == b"pixels"


def test_a_summary_alone_makes_no_folder_of_outputs(slides: list[Path], tmp_path: Path) -> None:
    """Other programs call a file so, too."""
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "summary.json").write_text("{}")
    failed = predict(slides, options(tmp_path / "out"))
    assert list(failed) == slides[:1] and (tmp_path / "out" / "a" / "summary.json").read_text() == "{}"


def test_files_that_lie_beside_outputs_are_never_lost(slides: list[Path], tmp_path: Path) -> None:
    how, others = options(tmp_path / "out"), tmp_path / "out" / "a" / "corrected.geojson"
    assert not predict(slides, how)
    others.write_text("by hand")
    (others.parent / ".DS_Store").write_bytes(b"")
    assert not predict(slides, how)  # nothing is replaced
    failed = predict(slides, replace(how, job=2))
    assert list(failed) == slides[:1] and others.name in failed[slides[0]] and others.read_text() == "by hand"
    others.unlink()
    assert not predict(slides, replace(how, job=2))
