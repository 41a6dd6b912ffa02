"""The columns of tables of cells, with a row per cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.data.id_map import ImageId
from src.formats.exported import Classes
from src.geometry.instances import Instance

NAMES = ("image", "label", "class_id", "class", "color", "score")
# Measures in px that are in µm, too, where the resolution is known; places count from the centre of the first pixel.
LENGTHS = ("centroid_x", "centroid_y", "major_axis", "minor_axis", "perimeter")


def table_rows(
    image: ImageId, cells: Sequence[Instance], classes: Classes, mpp: float | None, first_label: int = 1
) -> list[dict[str, Any]]:
    """A row per cell, each a dict in the order of the columns; labels, from ``first_label`` on, are those of the label
    image.

    Without ``mpp``, µm per px, all measures are in px. With it their names end in the unit, and those in µm and µm²
    come after those in px. The last columns are the probabilities of the classes, ``None`` where they are not known.
    """
    return [_row(image, label, cell, classes, mpp) for label, cell in enumerate(cells, start=first_label)]


def column_types(classes: Classes, mpp: float | None) -> dict[str, type]:
    """Each column's name and the type of its values, in the order of :func:`table_rows`."""
    pixel = Instance(next(iter(classes)), 1.0, 0, 0, np.ones((1, 1), bool))
    row = _row(ImageId("", 0, 1, 1), 1, pixel, classes, mpp)
    return {name: float if value is None else type(value) for name, value in row.items()}


def measures(cell: Instance) -> dict[str, float | int]:
    """The shape of a cell in px: its area, the lengths, its eccentricity and its box."""
    from skimage.measure import regionprops  # slow to import

    (region,) = regionprops(cell.mask.astype(np.uint8))
    row, column = region.centroid
    return {
        "area": cell.area,
        "centroid_x": round(float(column) + cell.left, 3),
        "centroid_y": round(float(row) + cell.top, 3),
        "major_axis": round(float(region.axis_major_length), 3),
        "minor_axis": round(float(region.axis_minor_length), 3),
        "eccentricity": round(float(region.eccentricity), 3),
        "perimeter": round(float(region.perimeter), 3),
        "left": cell.left,
        "top": cell.top,
        "width": cell.mask.shape[1],
        "height": cell.mask.shape[0],
    }


def in_microns(found: dict[str, float | int], mpp: float) -> dict[str, float]:
    """The area in µm² and the lengths in µm, their names with the unit."""
    lengths = {f"{name}_um": round(found[name] * mpp, 4) for name in LENGTHS}
    return {"area_um2": round(found["area"] * mpp**2, 4), **lengths}


def _row(image: ImageId, label: int, cell: Instance, classes: Classes, mpp: float | None) -> dict[str, Any]:
    cell_class = classes[cell.class_id]
    names = (image.name, label, cell_class.id, cell_class.name, cell_class.color, round(float(cell.score), 6))
    found = measures(cell)
    if mpp is None:
        shape: dict[str, float | int] = found
    else:
        in_px = {name if name == "eccentricity" else f"{name}_px": value for name, value in found.items()}
        shape = {**in_px, **in_microns(found, mpp)}
    values = cell.probabilities or (None,) * len(classes)
    known = {f"probability_{classes[i].name}": value for i, value in enumerate(values, start=1)}
    return {**dict(zip(NAMES, names, strict=True)), **shape, **known}
