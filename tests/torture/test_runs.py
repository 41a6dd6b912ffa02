"""Runs that are told to stop, are killed, and go on: nothing of them is lost, and the losses are the same."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from src.common.files import read_lines
from tests.checkpoints import snapshot_of
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


def starts(out: Path) -> list[int]:
    """The step at which each process that wrote the log began."""
    return [event["step"] for event in read_lines(out / "log.jsonl") if event["event"] == "start"]


def has_steps(out: Path, least: int) -> bool:
    return len(steps(out)) >= least


def wait_for(condition: Any, seconds: float = 120) -> None:
    """Until something holds; a run that never gets there fails the test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the run did not get there"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has just ended
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc for a process's children")
def test_a_killed_worker_ends_the_run_at_once_and_leaves_none_behind(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = command(data, out, {**LONG, "workers": 2})
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)
    wait_for(partial(has_steps, out, 2))
    workers = children(child.pid)
    assert len(workers) >= 2
    killed = time.monotonic()
    os.kill(workers[-1], signal.SIGKILL)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 2 and time.monotonic() - killed < 10, said
    assert re.search(r"error: --workers: (a )?worker", said.splitlines()[-1]) and "Traceback" not in said
    wait_for(lambda: not any(map(is_alive, workers)), 5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc for a process's children")
def test_torchrun_starts_again_where_a_process_was_killed(data: Path, tmp_path: Path) -> None:
    settings = {**TINY, "max_steps": 12, "epochs": 100, "val_every": 4}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*torchrun, *command(data, whole, settings)], check=True, capture_output=True)
    child = subprocess.Popen([*torchrun, *command(data, out, settings, "--resume", "auto")], stderr=subprocess.DEVNULL)
    wait_for(partial(has_steps, out, 4))
    os.kill(max(children(child.pid)), signal.SIGKILL)
    assert child.wait(180) == 0
    assert [event["loss"] for event in steps(whole)] == [event["loss"] for event in steps(out)]
    assert len(steps(out)) == 12 and starts(out)[-1] >= 4  # it did go on, and did not begin anew


@pytest.mark.slow
def test_two_trainings_never_write_into_one_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = subprocess.Popen([sys.executable, *command(data, out, LONG)], stderr=subprocess.DEVNULL)
    try:
        wait_for(partial(has_steps, out, 2))
        for flags in ([], ["--resume", "auto"]):
            other = [sys.executable, *command(data, out, TINY, *flags)]
            refused = subprocess.run(other, capture_output=True, text=True, timeout=120)
            assert refused.returncode == 2
            assert f"error: --output-dir {out}: another training is writing into it" in refused.stderr
        assert len(starts(out)) == 1 and first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert (out / ".lock").exists()  # of a killed run, which keeps nobody out
    subprocess.run([sys.executable, *command(data, out, TINY)], check=True, capture_output=True, timeout=120)
    assert (out / "last.pt").exists() and not (out / ".lock").exists()


@pytest.mark.parametrize(
    ("size", "changes", "code", "reason"),
    [
        ("64k", {}, 2, "error: --workers 2: /dev/shm has too little room"),
        ("64m", {"tile_size": 512, "batch_size": 32}, 2, "error: --workers 2: /dev/shm has too little room"),
        ("64m", {}, 0, ""),
    ],
)
def test_too_little_shared_memory_is_said_before_training(
    data: Path, tmp_path: Path, size: str, changes: dict[str, Any], code: int, reason: str
) -> None:
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "
    if subprocess.run(["unshare", "-m", "sh", "-c", mount + "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a /dev/shm of his own")
    arguments = command(data, tmp_path / "run", {**TINY, "workers": 2, **changes})
    inside = mount + shlex.join([sys.executable, *arguments])
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, timeout=120)
    assert done.returncode == code and reason in done.stderr


FILLS_ITS_DISK = """
import sys
from pathlib import Path
from src.common.errors import run_command
from src.engine.checkpoint import Progress
from src.engine.run_log import RunLog

def main():
    with RunLog(Path(sys.argv[1])) as log:
        while True:
            log.write("step", Progress(step=1), text="x" * 1000)

run_command(main)
"""


def test_a_log_on_a_full_disk_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    disk = f"mount -t tmpfs -o size=128k tmpfs {shlex.quote(str(tmp_path))} && exec "
    if subprocess.run(["unshare", "-m", "sh", "-c", disk + "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk of his own")
    inside = disk + shlex.join([sys.executable, "-c", FILLS_ITS_DISK, str(tmp_path / "run")])
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        done.stderr.splitlines()[-1] == f"error: {tmp_path}/run/log.jsonl: cannot be written (No space left on device)"
    )


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
        step = snapshot_of(out / "last.pt").progress.step
        logged = steps(out)
        assert [event["step"] for event in logged] == list(range(1, step + 1))
        assert step > done
        done = step
    assert slowest < 5 + max(1 / event["images_per_s"] * TINY["batch_size"] for event in logged)


@pytest.mark.slow
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
    assert starts(out)[-1] >= 9  # it did go on, and did not begin anew
    scores = [
        [event["AP50"] for event in read_lines(folder / "log.jsonl") if event["event"] == "val"]
        for folder in (tmp_path / "whole", out)
    ]
    assert scores[0] == scores[1]
