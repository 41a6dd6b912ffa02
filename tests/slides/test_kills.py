"""Runs over slides that are killed, at random instants or where they touch their output, and go on."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slides.running import content, run, start, tiles_in
from tests.slides.scenes import picture, write_pyramid
from tests.sources import ROOT

pytestmark = pytest.mark.torch
PER_SHARD, PER_ROW = 8, 13  # tiles


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides in folders of their own."""
    folder = tmp_path_factory.mktemp("kills") / "slides"
    for number, site in enumerate(("a", "b")):
        (folder / site).mkdir(parents=True)
        write_pyramid(folder / site / "1.tif", picture(300, 500, number))
    return folder


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_runs_that_are_killed_at_random_end_with_the_same_files(slides: Path, tmp_path: Path, kills: int) -> None:
    """And each kill repeats one shard at most: what the tiles before it had, plus those that were read ahead."""
    whole, out, counts, rng = tmp_path / "whole", tmp_path / "out", tmp_path / "counts", random.Random(0)
    assert run(slides, whole, COUNT=tmp_path / "all")[0] == 0
    for _ in range(kills):
        child = start(slides, out, COUNT=counts, SLOW=0.05)
        seen, end = (tiles_in(counts) if counts.exists() else 0), time.monotonic() + 120
        while child.poll() is None and (tiles_in(counts) if counts.exists() else 0) == seen:
            assert time.monotonic() < end
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 3 / kills if kills > 2 else 0.8))
        child.kill()
        child.communicate()
    code, said, _ = run(slides, out, COUNT=counts)
    assert code == 0 and content(out) == content(whole), said
    assert tiles_in(counts) <= tiles_in(tmp_path / "all") + kills * (PER_SHARD + PER_ROW + 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_runs_that_are_killed_where_they_write_lose_and_leave_nothing(slides: Path, tmp_path: Path, step: int) -> None:
    """The outputs of before, of another setting, stay until those that replace them are whole."""
    small, old = tmp_path / "small", tmp_path / "old"
    small.mkdir()
    write_pyramid(small / "1.tif", picture(160, 220))
    assert run(small, old, "--tissue", "all")[0] == 0
    points = [sys.executable, "-m", "tests.slides.crash_points", small, old, tmp_path, step]
    done = subprocess.run([str(word) for word in points], cwd=ROOT, capture_output=True, text=True, timeout=600)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and len(found) > 40 // step, done.stderr
    assert [one for one in found if not (one["whole"] and one["equal"] and one["code"] == 0)] == []
    assert [one["killed"] for one in found] == [True] * (len(found) - 1) + [False]
