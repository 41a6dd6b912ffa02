"""GeoJSON, for QuPath."""

import gzip
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from src.common.files import replacing
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.batches import Batch, batches
from src.geometry.instances import Instance
from src.geometry.outlines import Outlines

COMPRESSION = 6  # of gzip
BLOCK = 1 << 20  # bytes that are written at once, so that the same text is compressed to the same bytes
CELLS = uuid.UUID("6c2b7f0e-1f5d-5d0c-9d0e-6a3f1c8b2e47")  # the namespace of the ids of cells, drawn once
# Measurements under QuPath's names; its own table of measurements has the centroid.
IN_MICRONS = {
    "Area µm^2": "area_um2",
    "Perimeter µm": "perimeter_um",
    "Major axis µm": "major_axis_um",
    "Minor axis µm": "minor_axis_um",
}


def export_geojson(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``<name>.geojson`` for QuPath: one detection per cell, outlined along the edges of its pixels.

    With ``settings.gzip`` it is ``<name>.geojson.gz``. The same cells make the same bytes.
    """
    path = folder / f"{image.name}.geojson{'.gz' * settings.gzip}"
    with replacing(path) as temporary, GeoJsonCells(temporary, image, classes, settings.mpp) as file:
        for batch in batches(cells):
            file.add(batch)
    return 0


class GeoJsonCells:
    """A GeoJSON file of one image that is written as cells come; compressed where its name ends in ``.gz``.

    The same cells make the same bytes, however they are divided into batches.
    """

    def __init__(self, path: Path, image: ImageId, classes: Classes, mpp: float | None) -> None:
        self._image, self._classes, self._mpp = image, classes, mpp
        self._raw = path.open("wb")
        is_gzip = path.suffix == ".gz"
        self._file: IO[bytes] = (
            gzip.GzipFile("", "wb", COMPRESSION, self._raw, mtime=0) if is_gzip else self._raw  # type: ignore[assignment]
        )
        self._waiting = bytearray()
        self._count = 0

    def __enter__(self) -> "GeoJsonCells":
        self._waiting += b'{"type": "FeatureCollection", "features": ['
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.write(self._waiting + b"]}\n")
            self._file.close()
        finally:
            self._raw.close()

    def add(self, batch: Batch) -> None:
        """Write cells of the image, numbered on from those before."""
        text = ", ".join(_features(self._image, batch, self._classes, self._mpp, self._count + 1))
        self._waiting += b", " * (self._count > 0) + text.encode()
        self._count += len(batch.cells)
        done = len(self._waiting) // BLOCK * BLOCK
        for start in range(0, done, BLOCK):
            self._file.write(self._waiting[start : start + BLOCK])
        del self._waiting[:done]


def _features(
    image: ImageId, batch: Batch, classes: Classes, mpp: float | None, first_label: int
) -> Iterator[str]:
    """The JSON of each cell's feature."""
    of_class = {class_id: _classification(cell_class) for class_id, cell_class in classes.items()}
    columns = (batch.cells, _ids(image, batch, classes), _geometries(batch.outlines), _measurements(batch, classes, mpp))
    for label, (cell, id_, geometry, measurements) in enumerate(zip(*columns, strict=True), start=first_label):
        yield (
            f'{{"type": "Feature", "id": "{id_}", "geometry": {geometry}, "properties": {{"objectType": "detection",'
            f' "name": "{label}", "classification": {of_class[cell.class_id]}, "measurements": {measurements}}}}}'
        )


def _classification(cell_class: CellClass) -> str:
    return json.dumps({"name": cell_class.name, "color": list(cell_class.rgb)})


def _ids(image: ImageId, batch: Batch, classes: Classes) -> Iterator[str]:
    """The same id for the same cell whenever it is written: from its image, its class and its pixels."""
    names = {class_id: json.dumps([image.name, classes[class_id].name])[:-1] for class_id in classes}
    for cell in batch.cells:
        height, width = cell.mask.shape
        pixels = np.packbits(cell.mask).tobytes().hex()
        place = f"[{cell.top}, {cell.left}, {height}, {width}]"
        yield str(uuid.uuid5(CELLS, f'{names[cell.class_id]}, {place}, "{pixels}"]'))


def _geometries(outlines: Outlines) -> Iterator[str]:
    """The JSON of each object's geometry, its rings closed."""
    corners, sizes = outlines.closed()
    form = "\n".join(f"[{', '.join(['[%d, %d]'] * size)}]" for size in sizes.tolist())
    rings = (form % tuple(corners.ravel().tolist())).split("\n")  # far faster than json.dumps
    for polygons in outlines.grouped(rings):
        parts = [f"[{', '.join(of_polygon)}]" for of_polygon in polygons]
        if len(parts) == 1:
            yield f'{{"type": "Polygon", "coordinates": {parts[0]}}}'
        else:
            yield f'{{"type": "MultiPolygon", "coordinates": [{", ".join(parts)}]}}'


def _measurements(batch: Batch, classes: Classes, mpp: float | None) -> Iterator[str]:
    """The JSON of each cell's measurements; without the probabilities of classes where they are not known."""
    found = {"Area px": batch.measures["area"].tolist()}
    if mpp is not None:
        in_microns = batch.in_microns(mpp)
        found.update((name, in_microns[column].tolist()) for name, column in IN_MICRONS.items())
    names = ["Score", *found, *(f"Probability of {classes[i].name}" for i in range(1, len(classes) + 1))]
    for cell, values in zip(batch.cells, zip(*found.values(), strict=True), strict=True):
        yield json.dumps(dict(zip(names, (cell.score, *values, *cell.probabilities), strict=False)))
