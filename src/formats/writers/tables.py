"""Tables of cells, for spreadsheets."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from src.common.files import write_text
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.batches import batches
from src.formats.writers.columns import column_types, table_columns
from src.geometry.instances import Instance


def export_csv(
    folder: Path, image: ImageId, cells: Iterable[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``<name>.csv``: one row per cell (see :func:`table_columns`); what is not known is empty."""
    text, label = io.StringIO(newline=""), 1
    rows = csv.writer(text)
    rows.writerow(column_types(classes, settings.mpp))
    for batch in batches(cells):
        columns = table_columns(image, batch, classes, settings.mpp, label)
        values = (column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values())
        rows.writerows(zip(*values, strict=True))
        label += len(batch.cells)
    write_text(folder / f"{image.name}.csv", text.getvalue())
    return 0
