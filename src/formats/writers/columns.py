"""The columns of tables of cells, with a row per cell."""

from collections.abc import Sequence

import numpy as np

from src.data.id_map import ImageId
from src.formats.exported import Classes
from src.formats.writers.batches import Batch
from src.geometry.instances import Instance

Columns = dict[str, np.ndarray | Sequence[str | int | float | None]]


def table_columns(image: ImageId, batch: Batch, classes: Classes, mpp: float | None, first_label: int = 1) -> Columns:
    """The columns of a table by name, in their order, with a row per cell; labels, from ``first_label`` on, are those
    of the label image.

    Without ``mpp``, µm per px, all measures are in px. With it their names end in the unit, and those in µm and µm²
    come after those in px. The last columns are the probabilities of the classes, ``None`` where they are not known.
    """
    cells = batch.cells
    of_cells = [classes[cell.class_id] for cell in cells]
    unknown = (None,) * len(classes)
    probabilities = zip(*(cell.probabilities or unknown for cell in cells), strict=True)
    return {
        "image": [image.name] * len(cells),
        "label": range(first_label, first_label + len(cells)),
        "class_id": [cell_class.id for cell_class in of_cells],
        "class": [cell_class.name for cell_class in of_cells],
        "color": [cell_class.color for cell_class in of_cells],
        "score": [round(float(cell.score), 6) for cell in cells],
        **_shapes(batch, mpp),
        **{f"probability_{classes[i].name}": values for i, values in enumerate(probabilities, start=1)},
    }


def column_types(classes: Classes, mpp: float | None) -> dict[str, type]:
    """Each column's name and the type of its values, in the order of :func:`table_columns`."""
    pixel = Instance(next(iter(classes)), 1.0, 0, 0, np.ones((1, 1), bool))
    columns = table_columns(ImageId("", 0, 1, 1), Batch([pixel]), classes, mpp)
    values = {name: np.array(column).tolist()[0] for name, column in columns.items()}
    return {name: float if value is None else type(value) for name, value in values.items()}


def _shapes(batch: Batch, mpp: float | None) -> dict[str, np.ndarray]:
    if mpp is None:
        return batch.measures
    in_px = {name if name == "eccentricity" else f"{name}_px": values for name, values in batch.measures.items()}
    return {**in_px, **batch.in_microns(mpp)}
