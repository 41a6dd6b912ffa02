"""The id map: the id of each test image in the results, and its size."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import read_json, write_json
from src.common.limits import check_pixels
from src.common.values import integer
from src.data.names import stem


@dataclass(frozen=True)
class ImageId:
    """One entry of the id map: the file's name, the id that results carry, and the size in px."""

    file_name: str
    id: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return stem(self.file_name)


def read_id_map(path: str | Path) -> list[ImageId]:
    """Read the id map, a JSON list of ``{"file_name", "id", "height", "width"}``; ids and names are unique.

    An image over the limit of pixels is refused: where its file is not there, nothing else tells.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a JSON list of entries, each with file_name, id, height and width")
    ids = [_parse_image_id(entry, path) for entry in entries]
    refuse_repeats((entry.id for entry in ids), f"{path}: id")
    refuse_repeats((entry.name for entry in ids), f"{path}: file_name")
    for entry in ids:
        check_pixels(f"{path}: {entry.file_name}", entry.height, entry.width)
    return ids


def write_id_map(path: str | Path, ids: Iterable[ImageId]) -> None:
    """Write an id map that :func:`read_id_map` reads."""
    write_json(path, [asdict(entry) for entry in ids], indent=2)


def check_component(name: Any, path: str | Path) -> None:
    """Refuse a name that is not a plain file name, because names become parts of paths."""
    if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise InputError(f"{path}: {name!r:.200} is not a plain file name")


def _parse_image_id(entry: Any, path: str | Path) -> ImageId:
    fields = ("file_name", "id", "height", "width")
    if not isinstance(entry, dict) or not all(field in entry for field in fields):
        raise InputError(f"{path}: an entry needs file_name, id, height and width, got {entry!r:.200}")
    file_name = entry["file_name"]
    image_id, height, width = (integer(entry[field]) for field in fields[1:])
    check_component(file_name, path)
    if type(image_id) is not int:
        raise InputError(f"{path}: the id of {file_name} must be an integer, got {image_id!r:.80}")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise InputError(
            f"{path}: height and width of {file_name} must be positive integers, got {height!r:.80} and {width!r:.80}"
        )
    return ImageId(file_name, image_id, height, width)


def refuse_repeats(values: Iterable[Any], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise InputError(f"{what} {value} occurs twice")
        seen.add(value)
