"""The cell classes: ids 1..K, names and colours. 0 is the background and has no entry."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import companion, read_json

ANY_CLASS = 0  # class id of regions to ignore, which concern every class
TOTAL = "all"  # what tables call all classes together; no class has this name
UNKNOWN_CLASS = 1 << 15  # class id of cells whose class is not known; above every other


@dataclass(frozen=True)
class CellClass:
    """One class of cells: ``id`` in 1..K, a name for tables, ``color`` as ``#rrggbb``."""

    id: int
    name: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three values in 0..255, in RGB order."""
        return tuple(bytes.fromhex(self.color[1:]))  # type: ignore[return-value]


HOMEWORK_CLASSES = (  # in colours that stand off the pink and purple of stained tissue
    CellClass(1, "epithelial", "#00a650"),
    CellClass(2, "lymphocyte", "#0078ff"),
    CellClass(3, "neutrophil", "#ff8000"),
    CellClass(4, "macrophage", "#e6d800"),
)


UNKNOWN = CellClass(UNKNOWN_CLASS, "unknown class", "#808080")  # for tables and pictures


def name_classes(names: Sequence[str]) -> tuple[CellClass, ...]:
    """Classes 1..K with these names, each with its own colour."""
    return tuple(CellClass(number, name, _color(number)) for number, name in enumerate(names, start=1))


def _color(number: int) -> str:
    """The colours of the homework's classes, then hues one golden angle apart."""
    import colorsys

    if number <= len(HOMEWORK_CLASSES):
        return HOMEWORK_CLASSES[number - 1].color
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.75, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def load_classes(path: str | Path) -> tuple[CellClass, ...]:
    """Read ``[{"id": 1, "name": "epithelial", "color": "#d62728"}, …]``; ids must be 1..K, names unique."""
    return parse_classes(read_json(path), str(path))


def classes_of_data(given: str | Path | None, folder: str | Path) -> tuple[CellClass, ...]:
    """The classes of ``given``, a flag's file, else of ``classes.json`` in the data folder, else the homework's."""
    return _first_classes(given, Path(folder) / "classes.json")


def classes_of_results(given: str | Path | None, results: str | Path) -> tuple[CellClass, ...]:
    """The classes of ``given``, the file of a flag, else of the file beside the results, else the homework's."""
    return _first_classes(given, companion(results, "classes"), Path(results).with_name("classes.json"))


def _first_classes(given: str | Path | None, *beside: Path) -> tuple[CellClass, ...]:
    path = file_of_classes(given, *beside)
    return load_classes(path) if path else HOMEWORK_CLASSES


def file_of_classes(given: str | Path | None, *beside: Path) -> Path | None:
    """The file that a flag gives, else the first of those beside the data that is there."""
    return Path(given) if given else next((path for path in beside if path.is_file()), None)


def parse_classes(entries: Any, source: str) -> tuple[CellClass, ...]:
    """Check and build classes from decoded JSON. ``source`` names the file in an error."""
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{source}: expected a JSON list of classes, each with id, name and color")
    classes = tuple(sorted((_parse_class(entry, source) for entry in entries), key=lambda cell_class: cell_class.id))
    if [cell_class.id for cell_class in classes] != list(range(1, len(classes) + 1)):
        raise InputError(f"{source}: class ids must be 1..{len(classes)} without gaps or repeats")
    if len({cell_class.name for cell_class in classes}) != len(classes):
        raise InputError(f"{source}: two classes have the same name")
    if any(cell_class.name == TOTAL for cell_class in classes):
        raise InputError(f"{source}: no class can be called {TOTAL}, which is the name of the totals; rename it")
    return classes


def _parse_class(entry: Any, source: str) -> CellClass:
    if not isinstance(entry, dict) or set(entry) != {"id", "name", "color"}:
        raise InputError(f"{source}: a class needs exactly id, name and color, got {entry!r}")
    if type(entry["id"]) is not int or not isinstance(entry["name"], str) or not entry["name"].strip():
        raise InputError(f"{source}: a class needs an integer id and a name, got {entry!r}")
    if not isinstance(entry["color"], str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", entry["color"]):
        raise InputError(f"{source}: class {entry['id']} needs a color like #d62728, got {entry['color']!r}")
    return CellClass(entry["id"], entry["name"].strip(), entry["color"].lower())


def to_json(classes: tuple[CellClass, ...]) -> list[dict[str, Any]]:
    """The inverse of :func:`parse_classes`."""
    return [asdict(cell_class) for cell_class in classes]
