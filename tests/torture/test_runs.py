"""Runs that are told to stop, are killed, and go on: nothing of them is lost, and the losses are the same."""

import json
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import load_checkpoint
from src.files import read_lines
from tests.helpers import TINY, write_dataset

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
LONG = {**TINY, "max_steps": 100_000, "epochs": 100_000, "val_every": 3, "save_every": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("data") / "train", "abcd")
    (folder.parent / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c", "d"]}))
    return folder


def command(data: Path, out: Path, settings: dict[str, Any], *flags: str) -> list[str]:
    """The command line of a run, its settings in a recipe."""
    paths = {"data_path": str(data), "split": str(data.parent / "split.json"), "output_dir": str(out)}
    values = {**settings, **paths, "cache_dir": str(data.parent / "cache")}
    recipe = out.with_suffix(".toml")
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return [str(ROOT / "main.py"), "--recipe", str(recipe), *flags]


def steps(out: Path) -> list[dict[str, Any]]:
    return [event for event in read_lines(out / "log.jsonl") if event["event"] == "step"]


def has_steps(out: Path, least: int) -> bool:
    return len(steps(out)) >= least


def wait_for(condition: Any, seconds: float = 120) -> None:
    """Until something holds; a run that never gets there fails the test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the run did not get there"
        time.sleep(0.02)


@pytest.mark.parametrize("times", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_run_goes_on(data: Path, tmp_path: Path, times: int) -> None:
    rng, out, done = random.Random(0), tmp_path / "run", 0
    slowest = 0.0
    for turn in range(times):
        arguments = command(data, out, LONG, "--resume", "auto")
        child = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
        wait_for(partial(has_steps, out, done + 1))
        time.sleep(rng.uniform(0, 1.5))
        number = (signal.SIGTERM, signal.SIGINT)[turn % 2]
        child.send_signal(number)
        sent = time.monotonic()
        assert child.wait(60) == 128 + number
        slowest = max(slowest, time.monotonic() - sent)
        progress = load_checkpoint(out / "last.pt")["progress"]
        logged = steps(out)
        assert [event["step"] for event in logged] == list(range(1, progress["step"] + 1))
        assert progress["step"] > done
        done = progress["step"]
    assert slowest < 5 + max(1 / event["images_per_s"] * TINY["batch_size"] for event in logged)


def test_a_run_that_signals_stopped_ends_as_one_left_alone(data: Path, tmp_path: Path) -> None:
    settings = {**TINY, "max_steps": 12, "epochs": 100, "val_every": 2}
    subprocess.run([sys.executable, *command(data, tmp_path / "whole", settings)], check=True, capture_output=True)
    out = tmp_path / "stopped"
    for least in (1, 5, 9):
        arguments = command(data, out, settings, "--resume", "auto")
        child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)
        wait_for(partial(has_steps, out, least))
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) in (0, 143)
    subprocess.run([sys.executable, *command(data, out, settings, "--resume", "auto")], check=True, capture_output=True)
    whole, stopped = steps(tmp_path / "whole"), steps(out)
    assert [event["loss"] for event in whole] == [event["loss"] for event in stopped] and len(whole) == 12
    scores = [
        [event["AP50"] for event in read_lines(folder / "log.jsonl") if event["event"] == "val"]
        for folder in (tmp_path / "whole", out)
    ]
    assert scores[0] == scores[1]
