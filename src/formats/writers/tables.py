"""Tables of cells, for spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.common.files import write_text
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.geometry.instances import Instance

COLUMNS = (
    "image", "label", "class_id", "class", "color", "score", "area", "centroid_x", "centroid_y", "major_axis",
    "minor_axis", "eccentricity", "perimeter", "left", "top", "width", "height",
)  # fmt: skip


def export_csv(folder: Path, image: ImageId, cells: Sequence[Instance], classes: Mapping[int, CellClass]) -> int:
    """``<name>.csv``: one row per cell, in px from the centre of the first pixel; labels are those of the TIFF.

    The last columns are the probabilities of the classes, empty where they are not known.
    """
    rows = [
        (image.name, label, *_measures(cell, classes[cell.class_id]), *(cell.probabilities or [""] * len(classes)))
        for label, cell in enumerate(cells, start=1)
    ]
    headings = [f"probability_{cell_class.name}" for cell_class in classes.values()]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([(*COLUMNS, *headings), *rows])
    write_text(folder / f"{image.name}.csv", text.getvalue())
    return 0


def _measures(cell: Instance, cell_class: CellClass) -> list[Any]:
    from skimage.measure import regionprops  # slow to import

    (region,) = regionprops(cell.mask.astype(np.uint8))
    row, column = region.centroid
    lengths = (region.axis_major_length, region.axis_minor_length, region.eccentricity, region.perimeter)
    return [
        *(cell_class.id, cell_class.name, cell_class.color, round(cell.score, 6), cell.area),
        *(round(float(value), 3) for value in (column + cell.left, row + cell.top, *lengths)),
        *(cell.left, cell.top, cell.mask.shape[1], cell.mask.shape[0]),
    ]
