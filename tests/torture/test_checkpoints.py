"""Checkpoints under kill -9, full disks, damage, and files that others wrote."""

import os
import pickle
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from src.common.errors import InputError
from src.config.flags import build
from src.config.settings import TrainConfig
from src.data.classes import HOMEWORK_CLASSES
from src.engine.checkpoint import Checkpoint, Progress, Snapshot, read_checkpoint, read_progress, write_checkpoint
from src.engine.run_folder import checkpoint_to_resume
from src.network.tensor_files import seal

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
DAMAGES = 200


CONFIG = build(TrainConfig, {"norm": "batch", "head_norm": "on", "anchors": "8,16,32,64,128"})


def checkpoint_of(number: int, size: int = 1000) -> Checkpoint:
    """A checkpoint all of whose values are ``number``."""
    weights = {"weight": torch.full((size,), float(number))}
    snapshot = Snapshot(weights, {}, {}, Progress(step=number), {}, {}, 1)
    return Checkpoint(CONFIG, HOMEWORK_CLASSES, weights, snapshot=snapshot)


def write_content(path: Path, **changes: Any) -> None:
    """Write a checkpoint's file with other parts than the program would give it."""
    write_checkpoint(path, checkpoint_of(1))
    content = torch.load(path, weights_only=True)
    torch.save({**content, **changes}, path)
    seal(path)


def in_child(work: Any) -> int:
    """Fork, do some work and return the child's process id."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # the parent's threads are not in a forked child
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def save_for_ever(folder: Path, first: int) -> None:
    number = first
    while True:
        write_checkpoint(folder / "last.pt", checkpoint_of(number, 300_000), folder / "previous.pt")
        number += 1


def changed_at(path: Path) -> int:
    """The time of a file in ns; 0 while it is being replaced."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def wait_until_written(path: Path, before: int) -> None:
    """Wait until a file is there with another time than ``before``."""
    deadline = time.monotonic() + 20
    while changed_at(path) in (0, before):
        assert time.monotonic() < deadline, path
        time.sleep(0.001)


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_saves_goes_on_from_the_last_good_one(tmp_path: Path, kills: int) -> None:
    rng, step = random.Random(0), 0
    write_checkpoint(tmp_path / "last.pt", checkpoint_of(0, 300_000))
    torn = 0
    for _ in range(kills):
        before = changed_at(tmp_path / "last.pt")
        child = in_child(partial(save_for_ever, tmp_path, step + 1))
        wait_until_written(tmp_path / "last.pt", before)  # a large process forks slowly
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn += len(list(tmp_path.glob(".last.pt.*")))
        for leftover in tmp_path.glob(".last.pt.*"):
            leftover.unlink()
        found = checkpoint_to_resume("auto", tmp_path)
        assert found is not None
        assert found.snapshot is not None
        number = found.snapshot.progress.step
        assert number > step and (found.weights["weight"] == number).all()
        step = number
    assert torn > 0 or kills < 20  # some kills did hit a file that was being written


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(path, checkpoint_of(1))
    before = path.read_bytes()

    def save_too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_checkpoint(path, checkpoint_of(2, 100_000), tmp_path / "previous.pt")
        except InputError as error:
            (tmp_path / "said").write_text(str(error))

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(save_too_much), 0)[1]) == 0
    assert (tmp_path / "said").read_text().startswith(f"{path}: cannot be written (")
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "said"]


FILLS_ITS_DISK = """
import sys
from pathlib import Path
from src.common.errors import run_command
from src.engine.checkpoint import write_checkpoint
from tests.checkpoints import snapshot_of
from tests.torture.test_checkpoints import checkpoint_of

path = Path(sys.argv[1]) / "last.pt"
write_checkpoint(path, checkpoint_of(1))
try:
    run_command(lambda: write_checkpoint(path, checkpoint_of(2, 1_000_000), path.with_name("previous.pt")))
finally:
    assert snapshot_of(path).progress.step == 1 and [p.name for p in path.parent.iterdir()] == ["last.pt"]
"""


def test_a_disk_without_room_leaves_the_old_file(tmp_path: Path) -> None:
    disk = f"mount -t tmpfs -o size=512k tmpfs {shlex.quote(str(tmp_path))} && exec "
    if subprocess.run(["unshare", "-m", "sh", "-c", disk + "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk of his own")
    inside = disk + shlex.join([sys.executable, "-c", FILLS_ITS_DISK, str(tmp_path)])
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and f"error: {tmp_path}/last.pt: cannot be written (" in done.stderr, done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"last\.pt: cannot be written"):
        write_checkpoint(tmp_path / "file" / "last.pt", checkpoint_of(1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"last\.pt: cannot be written"):
        write_checkpoint(tmp_path / "last.pt", checkpoint_of(1))


def damage(whole: bytes, rng: random.Random) -> bytes:
    """Cut a file, flip one of its bits, or append to it."""
    kind = rng.choice(("cut", "flip", "flip", "append"))
    if kind == "cut":
        return whole[: rng.randrange(len(whole))]
    if kind == "append":
        return whole + rng.randbytes(rng.randint(1, 100))
    place = rng.randrange(len(whole))
    return whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]


def test_a_damaged_checkpoint_is_never_used(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "previous.pt", checkpoint_of(1))
    write_checkpoint(tmp_path / "good.pt", checkpoint_of(2))
    whole, rng, unnoticed = (tmp_path / "good.pt").read_bytes(), random.Random(0), 0
    for _ in range(DAMAGES):
        (tmp_path / "last.pt").write_bytes(damage(whole, rng))
        with pytest.raises(InputError, match=r"last\.pt: "):
            read_checkpoint(tmp_path / "last.pt")
        found = checkpoint_to_resume("auto", tmp_path)
        assert found and found.snapshot and found.snapshot.progress.step == 1
        try:
            torch.load(tmp_path / "last.pt", weights_only=True)
            unnoticed += 1
        except Exception:
            continue
    assert unnoticed > 20  # the tries can fail: without the digest these would have been loaded


class Payload:
    """Code that a pickle would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_strangers_checkpoint_runs_no_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "evil.pt"
    for number, hidden in enumerate((Payload(marker), {"model": Payload(marker)}, [1, {"a": (Payload(marker),)}])):
        torch.save(hidden, path)
        seal(path)
        with pytest.raises(InputError, match=r"evil\.pt: is not a checkpoint"):
            read_checkpoint(path)
        path.write_bytes(pickle.dumps(hidden))
        with pytest.raises(InputError, match=r"evil\.pt: "):
            read_checkpoint(path)
        assert not marker.exists(), number
    torch.save(Payload(marker), path)
    torch.load(path, weights_only=False)  # the tries can fail: this is what they would do
    assert marker.exists()


def test_a_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "y")
    seal(path)
    with pytest.raises(InputError, match=r"a\.pt: is not a checkpoint"):
        read_checkpoint(path)


SPARSE = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([1.0, 2.0]), (3,))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.tensor([1.0, float("nan")])}, "weight holds NaN"),
        ({"weight": torch.tensor([float("inf")])}, "weight holds NaN or infinite"),
        ({"weight": SPARSE}, "weight is not a dense tensor"),
        ({"weight": torch.tensor([complex(float("nan"), 1)])}, "weight is complex"),
        ({"weight": torch.zeros(1).expand(10**12)}, "or larger than what is stored"),
        ({"weight": 3}, "not a dict of tensors"),
        ([torch.zeros(3)], "not a checkpoint of this program"),
    ],
)
def test_weights_that_no_training_leaves_are_refused(tmp_path: Path, state: Any, reason: str) -> None:
    for part in ("model", "ema"):
        write_content(tmp_path / "odd.pt", **{part: state})
        with pytest.raises(InputError, match=rf"odd\.pt: .*{reason}"):
            read_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize(
    "part", [{"settings": 5}, {"classes": None}, {"checksums": None}, {"split": []}, {"ema": torch.zeros(1)}]
)
def test_a_checkpoint_of_other_parts_is_refused(tmp_path: Path, part: dict[str, Any]) -> None:
    write_content(tmp_path / "odd.pt", **part)
    with pytest.raises(InputError, match=r"odd\.pt: is not a checkpoint of this program"):
        read_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize(
    "values", [{"epoch": "x"}, {"batch": -7}, {"step": 1.5}, {"finished": 1}, {"unknown": 1}, {"seconds": float("nan")}]
)
def test_a_place_that_no_run_reaches_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_progress({**asdict(Progress()), **values})
    assert read_progress(asdict(Progress(epoch=2, batch=3))) == Progress(epoch=2, batch=3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "norm is auto"),
        ({"norm": "batch", "head_norm": "on"}, "anchors is auto"),
        ({"norm": "nonsense"}, "norm"),
        ({"tile_size": "wide"}, "tile_size|tile-size"),
    ],
)
def test_settings_that_no_run_leaves_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write_content(tmp_path / "odd.pt", settings=changes)
    with pytest.raises(InputError, match=rf"odd\.pt: its settings are not .*({reason})"):
        read_checkpoint(tmp_path / "odd.pt")
