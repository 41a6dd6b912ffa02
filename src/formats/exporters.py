"""The formats that can be written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.formats.writers.geojson import export_geojson
from src.formats.writers.labels import export_labels
from src.formats.writers.tables import export_csv
from src.geometry.instances import Instance

# Each writes the file of one image, and returns of how many cells it left out a part.
EXPORTERS: Mapping[str, Callable[[Path, ImageId, Sequence[Instance], Mapping[int, CellClass]], int]] = {
    "labels": export_labels,
    "geojson": export_geojson,
    "csv": export_csv,
}
