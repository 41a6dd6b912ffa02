"""The features of a GeoJSON file, one by one: those of a slide take many times the memory of its cells."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from src.common.errors import InputError
from src.common.files import read_json

CHUNK = 1 << 20  # characters that are read at once
MOST_OF_FILE = 1 << 33  # characters
MOST_OF_FEATURE = 1 << 26  # characters
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error)
_START = re.compile(r'\s*(\{\s*("type"\s*:\s*"FeatureCollection"\s*,\s*)?"features"\s*:\s*)?\[')
_BETWEEN = re.compile(r"[\s,]*")


def read_features(path: Path) -> Iterator[dict[str, Any]]:
    """The features of a collection, of a bare list, or the only one.

    A file in UTF-8 that begins as programs write it is decoded feature by feature, any other as a whole.

    Raises:
        InputError: the file is damaged, cut off or too large, or holds anything but features.
    """
    with _open(path) as file:
        try:
            text = file.read(CHUNK)
        except UNREADABLE:
            text = ""  # who reads the whole says what is wrong
        start = _START.match(text)
        items = _decoded(path, file, start[0], text[start.end() :]) if start else _all_items(path)
        for item in items:
            if not isinstance(item, dict) or item.get("type") != "Feature":
                raise _no_features(path)
            yield item


def _open(path: Path) -> IO[str]:
    try:
        return (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix.lower() == ".gz"
            else path.open(encoding="utf-8-sig")
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _all_items(path: Path) -> list[Any]:
    """The items of a file that is decoded as a whole."""
    items = _items_of(read_json(path))
    if items is None:
        raise _no_features(path)
    return items


def _items_of(data: Any) -> list[Any] | None:
    """The items of a collection, of a bare list, or of one feature; ``None`` of anything else."""
    if isinstance(data, dict):
        data = data.get("features") if data.get("type") == "FeatureCollection" else [data]
    return data if isinstance(data, list) else None


def _no_features(path: Path) -> InputError:
    return InputError(f"{path}: holds no GeoJSON features")


def _decoded(path: Path, file: IO[str], start: str, text: str) -> Iterator[Any]:
    """The items of a list behind ``start``, of which ``text`` is read already."""
    try:
        end = yield from _items(_limited(path, file), text)
        if _items_of(json.loads(f"{start}]{end}")) != []:
            raise _no_features(path)
    except UNREADABLE as error:
        reason = "it is cut off" if isinstance(error, EOFError) else getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error


def _limited(path: Path, file: IO[str]) -> Callable[[int], str]:
    """Reading on in a file, up to a limit."""
    left = MOST_OF_FILE

    def read(count: int) -> str:
        nonlocal left
        text = file.read(count)
        left -= len(text)
        if left < 0:
            raise InputError(f"{path}: holds more than {MOST_OF_FILE:,} characters")
        return text

    return read


def _items(read: Callable[[int], str], text: str) -> Generator[Any, None, str]:
    """The items of a JSON list behind its opening bracket; ``read`` gives the text behind ``text``.

    Returns:
        What follows the closing bracket.
    """
    decode = json.JSONDecoder().raw_decode
    at = 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # which matches nothing, too
        if text.startswith("]", at):
            break
        try:
            item, at = decode(text, at)
        except ValueError:
            more = read(max(CHUNK, len(text) - at)) if len(text) - at <= MOST_OF_FEATURE else ""
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            yield item
    end = [text[at + 1 :]]
    while sum(map(len, end)) <= MOST_OF_FEATURE and (more := read(CHUNK)):  # at the end, a compressed file is checked
        end.append(more)
    return "".join(end)
