"""Predictions that are killed, or run into a full disk: the old results stay, and what was done is not done again."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import main
from src.common.files import read_lines
from src.config.flags import build
from src.config.settings import TrainConfig
from tests.helpers import TINY, write_dataset

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
OLD = '[{"the results": "of before"}]'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with ``best.pt``; beside it six images."""
    folder = tmp_path_factory.mktemp("predictions")
    data = write_dataset(folder / "train", "abcdef")
    changes = {"data_path": str(data), "output_dir": str(folder / "run"), "cache_dir": str(folder / "cache")}
    main.main(build(TrainConfig, {**TINY, "max_steps": 2, "val_every": 0, "val_fraction": 0.0, **changes}))
    return folder


def command(trained: Path, output: Path, *flags: str) -> list[str]:
    given = {"--ckpt": trained / "run/best.pt", "--test-dir": trained / "train", "--output": output, "--device": "cpu"}
    return [sys.executable, str(ROOT / "inference.py"), *(str(word) for pair in given.items() for word in pair), *flags]


def partial_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial-0.jsonl")


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_killed_prediction_goes_on(trained: Path, tmp_path: Path, kills: int) -> None:
    whole, output, rng = tmp_path / "whole.json", tmp_path / "r.json", random.Random(0)
    subprocess.run(command(trained, whole), check=True, capture_output=True)
    output.write_text(OLD)
    done = 0
    for _ in range(kills):
        child = subprocess.Popen(
            command(trained, output, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 120
        while child.poll() is None and len(read_lines(partial_of(output))) <= done and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert output.read_text() in (OLD, whole.read_text())  # the old results, or all of the new
        if output.read_text() != OLD:  # it was faster than the kill
            break
        assert len(read_lines(partial_of(output))) >= done
        done = len(read_lines(partial_of(output)))
    assert done >= 1 or output.read_text() != OLD
    left = len(read_lines(partial_of(output)))
    finished = subprocess.run(command(trained, output, "--resume"), check=True, capture_output=True, text=True)
    assert f"resumed: {left} of 6 images are done" in finished.stdout
    assert output.read_text() == whole.read_text() and not partial_of(output).exists()


def test_a_full_disk_leaves_the_old_results(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    output.write_text(OLD)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(command(trained, output), capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: {partial_of(output)}: cannot be written (File too large)" in done.stderr
    assert json.loads(output.read_text()) == json.loads(OLD)
