"""The folder of a predicted slide, as other commands read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import read_json
from src.common.values import integer, number
from src.data.classes import TOTAL

CELLS, TABLE, OVERVIEW, SUMMARY = "cells.geojson.gz", "cells.parquet", "overview.png", "summary.json"
OTHERS = (TABLE, OVERVIEW, SUMMARY)  # which lie beside the cells, and are no labels or images


@dataclass(frozen=True)
class PredictedSlide:
    """What a summary says of its slide: the file's name, (H, W) in px, µm per px, and the classes in their order."""

    file_name: str
    size: tuple[int, int]
    mpp: float | None
    class_names: tuple[str, ...]


def read_slide_of(cells: Path) -> PredictedSlide | None:
    """The slide of a file of cells that lies in the folder of a slide; ``None`` for any other file.

    Raises:
        InputError: the summary beside it is damaged.
    """
    path = cells.with_name(SUMMARY)
    if cells.name != CELLS or not path.is_file():
        return None
    content = read_json(path)
    summary = content if isinstance(content, dict) else {}
    height, width = (integer(summary.get(side)) for side in ("height", "width"))
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise InputError(f"{path}: the height and the width of the slide must be positive integers")
    name, counts = summary.get("slide"), summary.get("cells")
    names = tuple(key for key in counts if key != TOTAL) if isinstance(counts, dict) else ()
    return PredictedSlide(str(name), (height, width), _positive(summary.get("mpp")), names)


def _positive(value: Any) -> float | None:
    found = number(value)
    return float(found) if type(found) in (int, float) and found > 0 else None
