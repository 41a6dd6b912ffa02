"""Any value in the files of annotation tools may be of another kind: they are read, or refused in one line."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.formats.conversion import open_source
from src.formats.imported import ImportSettings
from tests.formats import test_annotation_tools as tools
from tests.formats import test_qupath as qupath

ODD: tuple[Any, ...] = (None, True, -1, 10**400, 1e308, float("nan"), "", "x", [], [[]], {}, [None], {"a": 1})


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a value."""
    if way:
        yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*way, key))


def changed(data: Any, way: tuple[Any, ...], value: Any) -> Any:
    result = copy.deepcopy(data)
    inner = result
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    return result


def a_file(kind: str, folder: Path) -> tuple[Path, Path]:
    """A small file of each kind with one object of each shape: what is given to the import, and the file to change."""
    if kind == "geojson":
        cell = qupath.feature(
            qupath.polygon(qupath.box(5, 4, 15, 12), qupath.box(6, 6, 8, 8)),
            kind="cell", nucleusGeometry={"type": "GeometryCollection", "geometries": []},
        )  # fmt: skip
        many = {"type": "MultiPolygon", "coordinates": [[qupath.box(20, 4, 25, 12)]]}
        path = qupath.write(
            folder / "x.geojson", cell, qupath.feature(many, properties={"classification": {"names": ["a"]}})
        )
        return path, path
    if kind == "labelme":
        mask = tools.base64_of(tools.png(np.ones((3, 4), bool)))
        shapes = [
            tools.shape("a", "polygon", tools.corners(2, 2, 8, 6), group_id=1),
            tools.shape("a", "circle", [[30, 20], [30, 28]]),
            tools.shape("b", "mask", [[4, 30], [7, 32]], mask=mask),
        ]
        path = tools.labelme(folder / "x.json", *shapes, image=folder / "x.png")
        return path, path
    if kind == "via":
        regions = [
            tools.region({"type": "b"}, "polygon", all_points_x=[2, 8, 8], all_points_y=[2, 2, 6]),
            tools.region({"type": {"b": True}}, "ellipse", cx=12, cy=25, rx=10, ry=5, theta=0),
        ]
        path = tools.via(folder / "in.json", *regions, attributes={"type": {"options": {"b": "c"}}})
        return path, path
    shape = tools.points(tools.corners(2, 2, 9, 9), tools.corners(4, 4, 6, 6))
    whole = tools.bitmap(tools.png(np.ones((4, 6), bool)), 3, 20)
    given = tools.supervisely(
        folder / "p", tools.item("polygon", points=shape), tools.item("bitmap", "any", bitmap=whole)
    )
    return given, given / ("meta.json" if kind == "meta" else "ds/ann/x.png.json")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["geojson", "labelme", "via", "supervisely", "meta"])
def test_odd_values_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    given, path = a_file(kind, tmp_path)
    data = json.loads(path.read_text())
    outcomes = []
    for way, value in ((way, value) for way in places(data) for value in ODD):
        path.write_text(json.dumps(changed(data, way, value)))
        try:
            source = open_source("supervisely" if kind == "meta" else kind, given, ImportSettings())
            for read in source.readers.values():
                read()
            outcomes.append(True)
        except InputError as error:
            assert "\n" not in str(error)
            outcomes.append(False)
    assert any(outcomes) and not all(outcomes)
