"""The run folder: one training at a time writes into it, never over another run, and resumes from what lies there."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.common.errors import InputError
from src.common.files import lock, writing
from src.engine.checkpoint import Checkpoint, read_checkpoint

_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other trainings within the block; it is created, and removed if it stays empty.

    POSIX ties the lock to the process: loader workers do not inherit it, and it ends with a killed run, whose lock file
    stays behind.

    Raises:
        InputError: another training writes into the folder, or it cannot be written.
    """
    path = _lock_path(folder)
    with writing(f"--output-dir {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        try:
            lock(file)
        except OSError as error:
            raise InputError(
                f"--output-dir {folder}: another training is writing into it; name another folder"
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # a folder that was removed meanwhile, or on Windows a file that is open
                path.unlink()
            with suppress(OSError):  # a folder that holds the run
                folder.rmdir()


def _lock_path(folder: Path) -> Path:
    """In the folder; on Windows, which does not rename folders with open files, beside it."""
    return folder / _LOCK if os.name == "posix" else folder.with_name(f".{folder.name}{_LOCK}")


def keep_earlier_run(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Rename a locked folder that holds another run than the checkpoint's, so that no run is overwritten.

    In a folder whose run is resumed, half-written files of a killed process are removed.
    """
    if checkpoint and Path(checkpoint.source).parent.resolve() == folder.resolve():
        for left in folder.glob(".*.tmp*"):
            left.unlink(missing_ok=True)
    elif (folder / "last.pt").exists():
        number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
        kept = folder.rename(folder.with_name(f"{folder.name}.{number}"))
        folder.mkdir()
        if (kept / _LOCK).exists():
            (kept / _LOCK).rename(folder / _LOCK)
        print(f"{folder} holds an earlier run: it is now {kept}")


def checkpoint_to_resume(resume: str | None, folder: Path) -> Checkpoint | None:
    """The checkpoint that ``--resume`` names; ``auto`` is the run folder's last good one. ``None`` in a new run.

    Raises:
        InputError: it cannot be read, or holds weights alone.
    """
    if resume is None:
        return None
    if resume != "auto":
        return _with_snapshot(read_checkpoint(Path(resume)))
    reasons = []
    for path in (folder / "last.pt", folder / "previous.pt"):
        if path.exists():
            try:
                return _with_snapshot(read_checkpoint(path))
            except InputError as error:
                reasons.append(str(error))
                print(f"not resumed: {error}", flush=True)
    if reasons:  # a new run would overwrite what may still be rescued by hand
        raise InputError(f"--resume auto: no checkpoint can be used; without --resume a new run begins: {reasons[0]}")
    return None


def _with_snapshot(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.snapshot is None:
        last = Path(checkpoint.source).with_name("last.pt")
        raise InputError(
            f"--resume {checkpoint.source}: holds weights alone, for prediction; resume from {last}, "
            f"or start a new run with --weights {checkpoint.source}"
        )
    return checkpoint
