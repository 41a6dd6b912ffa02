"""A list of a folder's files with their digests, by which any later change shows, down to a single bit.

It is in the format of GNU ``sha256sum``, so that ``sha256sum -c manifest.sha256`` reads it too.
"""

import os
import re
from pathlib import Path

from src.common.errors import InputError
from src.common.files import file_digest, is_system_file, read_json, replacing
from src.common.progress import ProgressBar

NAME = "manifest.sha256"
FORMER_NAME = "manifest.json"  # earlier versions wrote JSON: {"files": {path: {"bytes", "sha256"}}}

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}  # of sha256sum, in names that hold any of these


def write_manifest(folder: Path) -> int:
    """Write ``manifest.sha256`` into a folder; the number of files in it."""
    manifest = folder / NAME
    files = ProgressBar(_files(folder, manifest), "digest", unit="file")
    lines = [_line(path.relative_to(folder).as_posix(), file_digest(path)) for path in files]
    with replacing(manifest) as temporary:
        temporary.write_bytes(os.fsencode("".join(lines)))
    return len(lines)


def verify(folder: Path) -> list[str]:
    """What is not as in the folder's manifest, a line per file.

    Raises:
        InputError: no manifest, or one that cannot be read.
    """
    manifest, former = folder / NAME, folder / FORMER_NAME
    if former.is_file() and not manifest.is_file():
        manifest, digests = former, _read_former(former)
    else:
        digests = _read(manifest)
    found = _files(folder, manifest)
    digests = {name: digest for name, digest in digests.items() if not any(map(is_system_file, Path(name).parts))}
    names = {path.relative_to(folder).as_posix() for path in found}
    problems = [f"{folder / name}: is gone" for name in sorted(digests.keys() - names)]
    for path in ProgressBar(found, "digest", unit="file"):
        name = path.relative_to(folder).as_posix()
        if name not in digests:
            problems.append(f"{path}: is not in the manifest")
        elif file_digest(path) != digests[name]:
            problems.append(f"{path}: has changed since the manifest was written")
    return problems


def _line(name: str, digest: str) -> str:
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    mark = "" if escaped == name else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _read(path: Path) -> dict[str, str]:
    """Name → digest."""
    try:
        lines = os.fsdecode(path.read_bytes()).split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); --write-manifest writes it") from error
    return dict(_parse(line, number, path) for number, line in enumerate(lines, start=1) if line)


def _parse(line: str, number: int, path: Path) -> tuple[str, str]:
    found = re.fullmatch(r"(\\?)([0-9a-f]{64}) [ *](.+)", line)
    if not found:
        raise InputError(f"{path}: line {number} is not a line of a manifest: {line[:80]!r}")
    mark, digest, name = found.groups()
    if mark:
        characters = {escape: character for character, escape in _ESCAPES.items()}
        name = re.sub(r"\\.", lambda escape: characters.get(escape[0], escape[0]), name)
    return name, digest


def _read_former(path: Path) -> dict[str, str]:
    """As :func:`_read`, of a manifest that an earlier version wrote."""
    listed = read_json(path)
    try:
        return {name: state["sha256"] for name, state in listed["files"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a manifest; --write-manifest writes a new one") from error


def _files(folder: Path, manifest: Path) -> list[Path]:
    """All files below a folder but the manifest and system files; folders that are links are entered, each once."""
    files, entered = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in entered]
        folders[:] = [name for name in folders if not is_system_file(name)]
        files += [Path(place, name) for name in names if not is_system_file(name)]
    return sorted(path for path in files if path.is_file() and path != manifest)
