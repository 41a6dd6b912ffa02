"""A slide of 20,000 x 20,000 px is predicted in bounded memory, and goes on where it was killed."""

import time
from pathlib import Path

import pytest

from tests.slides.running import cells_in, content, run, start, tiles_in
from tests.slides.scenes import write_large

pytestmark = pytest.mark.torch
# Decoded tiles that are kept take up to 268 MB; a batch and the tiles that are read ahead, the thumbnail, what was
# decoded last and the cells take about 100. The slide alone has 1,200.
MOST_GROWTH = 500e6  # bytes
HOW = {"TILES": 512, "PER_SHARD": 24}


def test_a_large_slide_that_is_killed_twice(tmp_path: Path) -> None:
    slides, whole, out = tmp_path / "slides", tmp_path / "whole", tmp_path / "out"
    slides.mkdir()
    cells = write_large(slides / "large.tif")
    assert run(slides, whole, COUNT=tmp_path / "all", **HOW)[0] == 0
    for shards in (1, 4):
        child = start(slides, out, COUNT=tmp_path / "counts", SLOW=0.02, **HOW)
        end = time.monotonic() + 120
        while len(list((out / ".large.unfinished").glob("shard-*.npz"))) < shards:
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        child.kill()
        child.communicate()
        assert not (out / "large").exists()
    code, said, _ = run(slides, out, COUNT=tmp_path / "counts", **HOW)
    assert code == 0 and content(out) == content(whole), said
    assert cells_in(out / "large") == cells
    read_ahead, longest_row = 8, 12  # tiles
    assert tiles_in(tmp_path / "counts") <= tiles_in(tmp_path / "all") + 2 * (24 + longest_row + read_ahead)
    peaks = [float(line.split()[1]) for line in (tmp_path / "all").read_text().splitlines() if line.startswith("peak")]
    if not Path("/proc/self/status").exists():
        pytest.skip("asks /proc how much memory was used; the cells are right")
    assert 0 < peaks[0] < MOST_GROWTH
