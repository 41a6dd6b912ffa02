"""Checkpoints: one function writes them, one reads them. They hold plain numbers, strings and tensors alone."""

from pathlib import Path
from typing import Any

import torch

from src.errors import InputError
from src.files import replacing

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any], previous: Path | None = None) -> None:
    """Write a checkpoint atomically; the file that it replaces is kept as ``previous`` where that is given."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)
        if previous is not None and path.exists():
            path.replace(previous)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises:
        InputError: naming the file and the reason, where it is missing, damaged or no checkpoint of this program.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error of its own: a bad file shows as nearly anything
        raise InputError(
            f"{path}: is damaged or no checkpoint ({(str(error) or repr(error)).splitlines()[0]})"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of this program")
    return content


def checkpoint_to_resume(resume: str | None, folder: Path) -> dict[str, Any] | None:
    """What ``--resume`` names; ``auto`` is the run folder's last good checkpoint. ``None`` in a new run."""
    if resume is None:
        return None
    if resume != "auto":
        return load_checkpoint(Path(resume))
    for path in (folder / "last.pt", folder / "previous.pt"):
        if path.is_file():
            try:
                return load_checkpoint(path)
            except InputError as error:
                print(f"not resumed: {error}", flush=True)
    return None
