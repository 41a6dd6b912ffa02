"""Atomic writing of files, and reading of JSON with errors that name the file."""

import errno
import hashlib
import json
import os
import re
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from src.common.errors import InputError, nearest_path

MAX_UNPACKED = 1 << 30  # bytes of a compressed file
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # how file systems of clusters say that they have no locks

# What systems, file servers, editors and downloads leave in folders. A colon, or on other systems an underscore, begins
# the name of an alternate data stream of Windows.
_SYSTEM_FILE = re.compile(
    r"\..*|__macosx|icon\r|network trash folder|temporary items|thevolumesettingsfolder"  # macOS
    r"|(eh)?thumbs.*\.db(:.*)?|desktop\.ini|recycle[rd]|\$recycle\.bin"  # Windows
    r"|system volume information|found\.\d{3}|\$extend|wpsettings\.dat|indexervolumeguid"
    r"|[@#](recycle|recently-snapshot|snapshot|eadir|tmp|sharesnap)|lost\+found"  # Synology, QNAP, Linux
    r"|.*[:_]zone\.identifier|~\$.*|.*~|#.*#|__pycache__|.*\.(bak|sw[a-p]|tmp|part|partial|crdownload|filepart)",
    re.IGNORECASE,
)


def is_system_file(name: str) -> bool:
    """Whether a file or folder is hidden, or is one that a system or file manager leaves behind."""
    return bool(_SYSTEM_FILE.fullmatch(name))


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block (disk full, no permission) into one line that names ``path``.

    Raises:
        InputError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is moved over ``path``, on failure it is removed.

    The content is flushed to disk before the move, so that ``path`` holds either the old file or the whole new one.

    Raises:
        InputError: it cannot be written; what was there before still is.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be written (it is not a regular file)")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def lock(file: IO[Any]) -> None:
    """Lock an open file for this process, until it closes the file or ends in whatever way.

    Raises:
        OSError: another process holds the lock, or (``errno`` is one of :data:`NO_LOCKS`) the file system has none.
    """
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def companion(results: str | Path, what: str, suffix: str = ".json") -> Path:
    """``results.<what>.json``: the ``id-map`` or the ``classes`` that a prediction writes beside ``results.json``."""
    return Path(results).with_name(f"{Path(results).stem}.{what}{suffix}")


def id_map_of(results: str | Path, given: str | None) -> Path | None:
    """The id map that a flag gives, else the one beside the results; ``None`` without either."""
    beside = companion(results, "id-map")
    return Path(given) if given else beside if beside.is_file() else None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write JSON atomically; NaN and infinity, which JSON does not have, raise ``ValueError``."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def unpack(content: bytes, most: int) -> bytes:
    """What zlib or gzip has compressed.

    Raises:
        ValueError: the content is damaged or cut off, or more than ``most`` bytes come out of it.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either header
    try:
        found = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) > most:
        raise ValueError(f"it holds more than {most:,} bytes")
    if not unpacker.eof:
        raise ValueError("it is cut off")
    return found


def unpack_zip(path: Path, most: int) -> bytes:
    """The only file in a zip archive.

    Raises:
        OSError, ValueError: the archive is damaged, holds none or several, or more than ``most`` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                raise ValueError(f"it holds {len(members)} files")
            with archive.open(members[0]) as file:
                found = file.read(most + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error) or "it is cut off") from error
    if len(found) > most:
        raise ValueError(f"it holds more than {most:,} bytes")
    return found


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as Windows tools write it, without its byte-order mark.

    A file whose name ends in ``.gz`` is unpacked, and so is the only file in one that ends in ``.zip``.

    Raises:
        OSError, ValueError: a file that cannot be read or unpacked, or is of another encoding.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip":
        content = unpack_zip(path, MAX_UNPACKED)
    else:
        content = path.read_bytes()
        content = unpack(content, MAX_UNPACKED) if path.suffix.lower() == ".gz" else content
    text = content.decode(json.detect_encoding(content))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken one is an :class:`InputError` that names it."""
    path = Path(path)
    try:
        return json.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}){nearest_path(path)}") from error
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits is a plain ValueError
        raise InputError(f"{path}: is not valid JSON ({error})") from error


def append_line(path: str | Path, value: Any) -> None:
    """Append a JSON line to a log, on a line of its own even after one that a crash cut short."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            is_torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n"
            file.write(b"\n" * bool(is_torn) + json.dumps(value, allow_nan=False).encode() + b"\n")


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, one per line; a line that a crash cut short is skipped. A missing file is empty."""
    path, values = Path(path), []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            values.append(value)
    return values


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
