"""GeoParquet: one table of the cells of all images, with their outlines."""

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.common.files import replacing
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings, Write
from src.formats.writers.columns import column_types, table_rows
from src.geometry.instances import Instance
from src.geometry.polygons import Ring, outlines

FILE_NAME = "cells.parquet"
ROWS = 20_000  # of a row group, and more where one image has more
POLYGON, MULTIPOLYGON = 3, 6  # in WKB


@contextmanager
def parquet_writer(folder: Path, classes: Classes, settings: ExportSettings) -> Iterator[Write]:
    """``cells.parquet``: a row per cell of every image (see :func:`table_rows`), and ``geometry``.

    That column holds the outline as WKB in px, where the first pixel reaches from (0, 0) to (1, 1), with the metadata
    of GeoParquet 1.1. Row groups are written as images come, so that no more than one is in memory.
    """
    with replacing(folder / FILE_NAME) as temporary, _RowGroups(temporary, classes, settings.mpp) as groups:
        yield groups.add


class _RowGroups:
    """Rows that wait for a row group, and the file that holds those before."""

    def __init__(self, path: Path, classes: Classes, mpp: float | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        columns = [(name, types[kind]) for name, kind in column_types(classes, mpp).items()]
        self._schema = pa.schema([*columns, ("geometry", pa.binary())])
        # With Arrow's own schema beside it, pyarrow would not show the metadata that are added at the end.
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", store_schema=False)
        self._classes, self._mpp = classes, mpp
        self._rows: list[dict[str, Any]] = []
        self._kinds: set[int] = set()
        self._box: list[int] = []  # x and y from, x and y to, of all cells; empty without any

    def __enter__(self) -> "_RowGroups":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._flush()
            self._writer.add_key_value_metadata({"geo": json.dumps(self._metadata())})
        self._writer.close()

    def add(self, image: ImageId, cells: Sequence[Instance]) -> int:
        """Take the cells of an image, all of them whole."""
        for cell, row in zip(cells, table_rows(image, cells, self._classes, self._mpp), strict=True):
            polygons = outlines(cell)
            self._kinds.add(POLYGON if len(polygons) == 1 else MULTIPOLYGON)
            self._rows.append({**row, "geometry": to_wkb(polygons)})
            left, top, right, bottom = self._box or (cell.left, cell.top, cell.right, cell.bottom)
            self._box = [min(left, cell.left), min(top, cell.top), max(right, cell.right), max(bottom, cell.bottom)]
        if len(self._rows) >= ROWS:
            self._flush()
        return 0

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

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


def to_wkb(polygons: Sequence[Sequence[Ring]]) -> bytes:
    """A polygon, or several, as well-known binary (OGC 06-103r4, 8.2), little-endian, its rings closed."""
    parts = [_polygon(rings) for rings in polygons]
    return parts[0] if len(parts) == 1 else struct.pack("<BII", 1, MULTIPOLYGON, len(parts)) + b"".join(parts)


def _polygon(rings: Sequence[Ring]) -> bytes:
    closed = [[*ring.tolist(), ring[0].tolist()] for ring in rings]
    content = [struct.pack(f"<I{2 * len(ring)}d", len(ring), *(value for point in ring for value in point))
               for ring in closed]  # fmt: skip
    return struct.pack("<BII", 1, POLYGON, len(rings)) + b"".join(content)
