"""GeoJSON, for QuPath."""

import gzip
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
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

COMPRESSION = 4  # of gzip: a third of the time of level 6, for files that are a fifth larger
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
    folder: Path, image: ImageId, cells: Iterable[Instance], classes: Classes, settings: ExportSettings
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


def _features(image: ImageId, batch: Batch, classes: Classes, mpp: float | None, first_label: int) -> Iterator[str]:
    """The JSON of each cell's feature."""
    of_class = {class_id: _classification(cell_class) for class_id, cell_class in classes.items()}
    ids, measurements = _ids(image, batch, classes), _measurements(batch, classes, mpp)
    parts = zip(batch.cells, ids, _geometries(batch.outlines), measurements, strict=True)
    for label, (cell, id_, geometry, measured) in enumerate(parts, start=first_label):
        yield (
            f'{{"type": "Feature", "id": "{id_}", "geometry": {geometry}, "properties": {{"objectType": "detection",'
            f' "name": "{label}", "classification": {of_class[cell.class_id]}, "measurements": {measured}}}}}'
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
        yield _uuid5(f'{names[cell.class_id]}, {place}, "{pixels}"]')


def _uuid5(text: str) -> str:
    """``str(uuid.uuid5(CELLS, text))``, in a third of the time."""
    digest = hashlib.sha1(CELLS.bytes + text.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def _geometries(outlines: Outlines) -> Iterator[str]:
    """The JSON of each object's geometry, its rings closed."""
    for count, text in zip(outlines.object_sizes.tolist(), _coordinates(outlines), strict=True):
        if count == 1:
            yield f'{{"type": "Polygon", "coordinates": [[{text}]]}}'
        else:
            yield f'{{"type": "MultiPolygon", "coordinates": [[[{text}]]]}}'


def _coordinates(outlines: Outlines) -> list[str]:
    """The corners of each object as JSON, without the brackets around all of them; far faster than ``json.dumps``.

    The texts of all corners are rows of characters, as long as the longest would be, and 0 stands for none.
    """
    corners, sizes = outlines.closed
    ends = np.cumsum(sizes) - 1
    polygon_ends = ends[np.cumsum(outlines.polygon_sizes) - 1]
    behind = np.full(len(corners), b", ", "S6")
    behind[ends], behind[polygon_ends] = b"], [", b"]], [["
    behind[polygon_ends[np.cumsum(outlines.object_sizes) - 1]] = b"\n"
    x, y = _digits(corners).swapaxes(0, 1)
    opening, between, closing = (np.full((len(x), len(part)), list(part), np.uint8) for part in (b"[", b", ", b"]"))
    rows = [opening, x, between, y, closing, behind.view(np.uint8).reshape(-1, 6)]
    text = np.concatenate(rows, axis=1)
    return text[text > 0].tobytes().decode().splitlines()


def _digits(values: np.ndarray) -> np.ndarray:
    """The decimal digits of whole numbers from 0 up, ``(…, D)`` ASCII, aligned to the right with 0 before them."""
    digits = np.zeros((*values.shape, len(str(values.max(initial=0)))), np.uint8)
    left = values.astype(np.uint32)  # which divides faster
    for place in reversed(range(digits.shape[-1])):
        rest = left // 10
        digits[..., place] = np.where(left > 0, left - 10 * rest + ord("0"), 0)
        left = rest
    digits[..., -1] |= ord("0")  # of 0 itself, too
    return digits


def _measurements(batch: Batch, classes: Classes, mpp: float | None) -> Iterator[str]:
    """The JSON of each cell's measurements; without the probabilities of classes where they are not known."""
    found = {"Area px": batch.measures["area"].tolist()}
    if mpp is not None:
        in_microns = batch.in_microns(mpp)
        found.update((name, in_microns[column].tolist()) for name, column in IN_MICRONS.items())
    known = [f"Probability of {classes[i].name}" for i in range(1, len(classes) + 1)]
    form, longer = _form(["Score", *found]), _form(["Score", *found, *known])
    for cell, values in zip(batch.cells, zip(*found.values(), strict=True), strict=True):
        yield (longer if cell.probabilities else form) % (float(cell.score), *values, *cell.probabilities)


def _form(names: Sequence[str]) -> str:
    """A JSON object with these keys, to be filled with numbers: Python writes them as JSON does."""
    return "{" + ", ".join(json.dumps(name).replace("%", "%%") + ": %r" for name in names) + "}"
