"""The formats that can be written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.common.files import write_json
from src.data.classes import to_json
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings, Write, Writer
from src.formats.writers.cellpose import export_cellpose
from src.formats.writers.geojson import export_geojson
from src.formats.writers.labels import export_labels
from src.formats.writers.parquet import parquet_writer
from src.formats.writers.stardist import export_stardist
from src.formats.writers.tables import export_csv
from src.geometry.instances import Instance

Export = Callable[[Path, ImageId, Iterable[Instance], Classes, ExportSettings], int]
ExportAll = Callable[[Path, ImageId, Sequence[Instance], Classes, ExportSettings], int]


def _at_once(export: ExportAll) -> Export:
    """For a format that needs all cells of an image at once."""
    return lambda folder, image, cells, classes, settings: export(folder, image, list(cells), classes, settings)


def _file_per_image(export: Export, with_classes: bool = True) -> Writer:
    """A writer of one file per image, with ``classes.json`` beside them."""

    @contextmanager
    def writer(folder: Path, classes: Classes, settings: ExportSettings) -> Iterator[Write]:
        yield lambda image, cells: export(folder, image, cells, classes, settings)
        if with_classes:
            write_json(folder / "classes.json", to_json(tuple(classes.values())), indent=1)

    return writer


EXPORTERS: Mapping[str, Writer] = {
    "labels": _file_per_image(_at_once(export_labels)),
    "cellpose": _file_per_image(_at_once(export_cellpose), with_classes=False),
    "stardist": _file_per_image(_at_once(export_stardist), with_classes=False),
    "geojson": _file_per_image(export_geojson),
    "csv": _file_per_image(export_csv),
    "parquet": parquet_writer,
}
WITH_MEASUREMENTS = ("geojson", "csv", "parquet")  # which are in µm with --mpp
LABEL_IMAGES = ("labels", "cellpose", "stardist")  # which are as large as the image
COMPRESSED = ("geojson",)  # with --gzip
