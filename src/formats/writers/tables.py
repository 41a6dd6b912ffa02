"""Tables of cells, for spreadsheets."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from src.common.files import write_text
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.columns import column_types, table_rows
from src.geometry.instances import Instance


def export_csv(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``<name>.csv``: one row per cell (see :func:`table_rows`); what is not known is empty."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(column_types(classes, settings.mpp))
    rows.writerows(row.values() for row in table_rows(image, cells, classes, settings.mpp))
    write_text(folder / f"{image.name}.csv", text.getvalue())
    return 0
