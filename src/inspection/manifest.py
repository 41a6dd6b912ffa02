"""A list of a folder's files with their digests, by which any later change shows, down to a single bit."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import file_digest, read_json, write_json

NAME = "manifest.json"

Progress = Callable[[list[Path]], Iterable[Path]]  # wraps a list while it is worked through, as tqdm does


def write_manifest(folder: Path, progress: Progress) -> int:
    """Write ``manifest.json`` (path → size and SHA-256) into a folder; the number of files in it."""
    files = {path.relative_to(folder).as_posix(): _state(path) for path in progress(_files(folder))}
    write_json(folder / NAME, {"files": files}, indent=1)
    return len(files)


def verify(folder: Path, progress: Progress) -> list[str]:
    """What is not as in the folder's manifest, a line a file.

    Raises:
        InputError: no manifest, or none that :func:`write_manifest` wrote.
    """
    listed = read_json(folder / NAME)
    files = listed.get("files") if isinstance(listed, dict) else None
    if not isinstance(files, dict):
        raise InputError(f"{folder / NAME}: is no manifest")
    found = _files(folder)
    names = {path.relative_to(folder).as_posix() for path in found}
    problems = [f"{folder / name}: is gone" for name in sorted(files.keys() - names)]
    for path in progress(found):
        name = path.relative_to(folder).as_posix()
        if name not in files:
            problems.append(f"{path}: is not in the manifest")
        elif _state(path) != files[name]:
            problems.append(f"{path}: is not what it was when the manifest was written")
    return problems


def _files(folder: Path) -> list[Path]:
    """All files below a folder but the manifest and hidden ones; folders that are links are entered, each once."""
    files, entered = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in entered]
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if path.is_file() and path != folder / NAME)


def _state(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}
