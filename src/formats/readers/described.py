"""The classes that a label image of this program's export holds in its description."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.common.errors import InputError
from src.data.classes import CellClass, parse_classes
from src.data.pictures import TIFF_SUFFIXES
from src.data.tiff import read_description, read_plane
from src.geometry.instances import Instance


@dataclass(frozen=True)
class Described:
    """The classes of a label image, and the class id of each label 1, 2, …"""

    classes: tuple[CellClass, ...]
    class_of_label: tuple[int, ...]

    def classified(self, path: Path, cells: Sequence[Instance]) -> list[Instance]:
        """The cells of the label image ``path`` with their classes."""
        labels = read_plane(path)
        found = []
        for cell in cells:
            label = int(labels[cell.top, cell.left : cell.right][cell.mask[0]][0])
            if label > len(self.class_of_label):
                raise InputError(f"{path}: its description names no class for the label {label}")
            found.append(replace(cell, class_id=self.class_of_label[label - 1]))
        return found


def read_described(paths: Iterable[Path]) -> dict[Path, Described]:
    """What each label image describes, where all do and have the same classes; else nothing."""
    found: dict[Path, Described] = {}
    for path in paths:
        described = _read(path)
        if described is None or (found and described.classes != next(iter(found.values())).classes):
            return {}
        found[path] = described
    return found


def _read(path: Path) -> Described | None:
    """``None`` for a file that describes no classes."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    try:
        data = json.loads(read_description(path))
        classes = parse_classes(data["classes"], str(path))
        numbers = data["class_of_label"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(numbers, list) or any(type(n) is not int or not 1 <= n <= len(classes) for n in numbers):
        return None
    return Described(classes, tuple(numbers))
