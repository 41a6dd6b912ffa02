"""GeoParquet: one table of the cells of all images, with their outlines."""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from src.common.files import replacing
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings, Write
from src.formats.writers.batches import Batch, batches
from src.formats.writers.columns import column_types, table_columns
from src.geometry.instances import Instance
from src.geometry.outlines import Outlines

FILE_NAME = "cells.parquet"
ROWS = 20_000  # of a row group
REPEATED = ["image", "class_id", "class", "color"]  # columns of few values
POLYGON, MULTIPOLYGON = 3, 6  # in WKB


@contextmanager
def parquet_writer(folder: Path, classes: Classes, settings: ExportSettings) -> Iterator[Write]:
    """``cells.parquet``: a row per cell of every image (see :func:`table_columns`), and ``geometry``.

    That column holds the outline as WKB in px, where the first pixel reaches from (0, 0) to (1, 1), with the metadata
    of GeoParquet 1.1. Row groups are written as images come, so that no more than one is in memory.
    """
    with replacing(folder / FILE_NAME) as temporary, ParquetCells(temporary, classes, settings.mpp) as file:

        def write(image: ImageId, cells: Iterable[Instance]) -> int:
            label = 1
            for batch in batches(cells):
                file.add(image, batch, label)
                label += len(batch.cells)
            return 0

        yield write


class ParquetCells:
    """Rows that wait for a row group, and the file that holds those before.

    The same cells make the same bytes, however they are divided into batches.
    """

    def __init__(self, path: Path, classes: Classes, mpp: float | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        columns = [(name, types[kind]) for name, kind in column_types(classes, mpp).items()]
        self._schema = pa.schema([*columns, ("geometry", pa.binary())])
        # With Arrow's own schema beside it, pyarrow would not show the metadata that are added at the end.
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=REPEATED, store_schema=False
        )
        self._classes, self._mpp = classes, mpp
        self._waiting = self._schema.empty_table()
        self._kinds: set[int] = set()
        self._box: list[int] = []  # x and y from, x and y to, of all cells; empty without any

    def __enter__(self) -> "ParquetCells":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._write(self._waiting)
            self._writer.add_key_value_metadata({"geo": json.dumps(self._metadata())})
        self._writer.close()

    def add(self, image: ImageId, batch: Batch, first_label: int) -> None:
        """Take cells of an image."""
        import pyarrow as pa

        columns = table_columns(image, batch, self._classes, self._mpp, first_label)
        geometry = to_wkb(batch.outlines)
        table = pa.table({**columns, "geometry": geometry}, schema=self._schema)
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= ROWS:
            self._write(self._waiting.slice(0, ROWS))
            self._waiting = self._waiting.slice(ROWS)
        self._kinds.update(POLYGON if count == 1 else MULTIPOLYGON for count in set(batch.outlines.object_sizes))
        left, top = batch.boxes[:, :2].min(axis=0).tolist()
        right, bottom = (batch.boxes[:, :2] + batch.boxes[:, 2:]).max(axis=0).tolist()
        box = self._box or (left, top, right, bottom)
        self._box = [min(left, box[0]), min(top, box[1]), max(right, box[2]), max(bottom, box[3])]

    def _write(self, table: Any) -> None:
        if table.num_rows:
            self._writer.write_table(table.combine_chunks())

    def _metadata(self) -> dict[str, Any]:
        names = {POLYGON: "Polygon", MULTIPOLYGON: "MultiPolygon"}
        geometry: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": [names[kind] for kind in sorted(self._kinds)],
            "crs": None,  # px, no place on Earth
        }
        if self._box:
            geometry["bbox"] = self._box
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}


def to_wkb(outlines: Outlines) -> list[bytes]:
    """A polygon, or several, of each object as well-known binary (OGC 06-103r4, 8.2), little-endian, rings closed."""
    corners, sizes = outlines.closed
    points, ends = corners.astype("<f8").tobytes(), np.cumsum(sizes).tolist()
    rings = [struct.pack("<I", size) + points[16 * (end - size) : 16 * end]
             for size, end in zip(sizes.tolist(), ends, strict=True)]  # fmt: skip
    return [_joined([_polygon(of_polygon) for of_polygon in polygons]) for polygons in outlines.grouped(rings)]


def _polygon(rings: Sequence[bytes]) -> bytes:
    return struct.pack("<BII", 1, POLYGON, len(rings)) + b"".join(rings)


def _joined(polygons: Sequence[bytes]) -> bytes:
    if len(polygons) == 1:
        return polygons[0]
    return struct.pack("<BII", 1, MULTIPOLYGON, len(polygons)) + b"".join(polygons)
