"""What the exports hold beside masks: names, ids, units, metadata, and the score from which cells count."""

import csv
import gzip
import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from src.common.errors import InputError
from src.convert import main
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.evaluation.result_settings import read_min_score, write_settings
from src.evaluation.results import result_entries, write_results
from src.formats.exported import ExportSettings
from src.formats.writers import geojson, parquet
from src.formats.writers.cellpose import export_cellpose
from src.formats.writers.geojson import export_geojson
from src.geometry.instances import Instance, to_label_map
from tests.formats.test_conversion import convert

SQUARE, RING = np.ones((6, 6), bool), np.ones((5, 5), bool)
RING[2, 2] = False
CELLS = [Instance(1, 0.9, 2, 3, SQUARE), Instance(2, 0.4, 20, 20, RING), Instance(1, 0.3, 30, 5, SQUARE)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "r.json", result_entries(1, CELLS, 40, 50))
    ids = [{"file_name": f"{name}.tif", "id": n, "height": 40, "width": 50} for n, name in enumerate("ab", start=1)]
    (tmp_path / "r.id-map.json").write_text(json.dumps(ids))
    classes = [{"id": 1, "name": "one", "color": "#ff0000"}, {"id": 2, "name": "two", "color": "#0000ff"}]
    (tmp_path / "r.classes.json").write_text(json.dumps(classes))
    return tmp_path / "r.json"


def export(results: Path, kind: str, *flags: object) -> Path:
    out = results.parent / "-".join(map(str, (kind, *flags)))
    main(["--from", "results", str(results), str(out), "--to", kind, *map(str, flags)])
    return out


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of the first image's CSV file."""
    return list(csv.DictReader((folder / "a.csv").read_text().splitlines()))


@pytest.mark.parametrize(("flag", "count"), [("--min-score", 2), ("--score-thresh", 2), (None, 1)])
def test_the_least_score_is_a_flag_by_two_names(results: Path, flag: str | None, count: int) -> None:
    out = export(results, "csv", *([flag, 0.4] if flag else []))
    assert len((out / "a.csv").read_text().splitlines()) == 1 + count


def test_the_least_score_is_that_of_the_prediction(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_min_score(results)[0] == 0.5
    write_settings(results, 0.25)
    assert read_min_score(results)[0] == 0.25
    given = ["--from", "results", results, results.parent / "out", "--to", "csv"]
    assert "3 of 3 detections (score >= 0.25, of r.settings.json)" in convert(capsys, *given)
    assert "2 of 3 detections (score >= 0.35)" in convert(capsys, *given, "--min-score", "0.35", "--force")
    for damaged in ("[]", '{"min_score": "x"}', '{"min_score": 2}', '{"min_score": true}', "{"):
        (results.parent / "r.settings.json").write_text(damaged)
        with pytest.raises(InputError, match=r"r\.settings\.json: "):
            convert(capsys, *given, "--force")


@pytest.mark.parametrize(
    ("kind", "flags", "reason"),
    [
        ("labels", ["--mpp", "0.25"], "--mpp: .*--to labels"),
        ("coco", ["--mpp", "0.25"], "--mpp: .*--to coco"),
        ("csv", ["--gzip"], "--gzip: .*--to csv"),
        ("csv", ["--mpp", "-1"], "--mpp must be at least"),
        ("csv", ["--nuclei"], "--nuclei: .*--from results"),
    ],
)
def test_flags_without_an_effect_are_refused(results: Path, kind: str, flags: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        main(["--from", "results", str(results), str(results.parent / "out"), "--to", kind, *flags])
    assert not (results.parent / "out").exists()


def test_cellpose_and_stardist_find_their_masks(results: Path) -> None:
    truth = to_label_map(CELLS, 40, 50)
    masks = export(results, "cellpose", "--min-score", 0)
    assert sorted(path.name for path in masks.iterdir()) == ["a_cp_masks.png", "b_cp_masks.png"]
    found = np.asarray(Image.open(masks / "a_cp_masks.png"))
    assert found.dtype == np.uint16 and np.array_equal(found, truth)
    assert not np.asarray(Image.open(masks / "b_cp_masks.png")).any()
    masks = export(results, "stardist", "--min-score", 0) / "masks"
    assert sorted(path.name for path in masks.iterdir()) == ["a.tif", "b.tif"]
    found = tifffile.imread(masks / "a.tif")
    assert found.dtype == np.uint16 and np.array_equal(found, truth)


def test_more_cells_than_a_png_has_ids_are_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.formats.writers.cellpose.MOST_OF_PNG", 2)
    export_cellpose(tmp_path, ImageId("a.tif", 1, 40, 50), CELLS, {}, ExportSettings(0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["a_cp_masks.tif"]
    assert np.array_equal(tifffile.imread(tmp_path / "a_cp_masks.tif"), to_label_map(CELLS, 40, 50))


def test_geojson_has_the_same_ids_and_bytes_again(results: Path) -> None:
    all_of = [export(results, "geojson", "--min-score", score) / "a.geojson" for score in (0, 0.0, 0.35)]
    assert all_of[0].read_bytes() == all_of[1].read_bytes()
    first, _, fewer = ([f["id"] for f in json.loads(path.read_text())["features"]] for path in all_of)
    assert len(set(first)) == 3 and first[:2] == fewer and all(uuid.UUID(one).version == 5 for one in first)
    packed = [export(results, "geojson", "--gzip", "--min-score", score) / "a.geojson.gz" for score in (0, 0.0)]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert gzip.decompress(packed[0].read_bytes()) == all_of[0].read_bytes()


def test_geojson_is_what_json_would_write(tmp_path: Path) -> None:
    classes = {1: CellClass(1, '50% "ä"', "#ff0000"), 2: CellClass(2, "{b}", "#0000ff")}
    cells = [*CELLS, Instance(2, 1 / 3, 10, 99_999, RING, (1 / 7, 1e-9)), Instance(1, 1.0, 0, 0, np.eye(3, dtype=bool))]
    export_geojson(tmp_path, ImageId('ü "%s"', 1, 100, 100_100), cells, classes, ExportSettings(0.5, mpp=0.25))
    (path,) = tmp_path.iterdir()
    text = path.read_text()
    features = json.loads(text)["features"]
    assert text == json.dumps(json.loads(text)) + "\n" and len(features) == 5
    measured = features[3]["properties"]["measurements"]
    assert measured["Score"] == 1 / 3 and measured['Probability of 50% "ä"'] == 1 / 7
    assert (
        measured["Probability of {b}"] == 1e-9 and "Probability of {b}" not in features[0]["properties"]["measurements"]
    )
    outer, hole = features[3]["geometry"]["coordinates"]
    assert outer == [[99_999, 10], [99_999, 15], [100_004, 15], [100_004, 10], [99_999, 10]]
    assert hole[0] == hole[-1] == [100_001, 12] and features[4]["geometry"]["type"] == "MultiPolygon"
    pixels = np.packbits(RING).tobytes().hex()
    named = json.dumps(['ü "%s"', "{b}", [10, 99_999, 5, 5], pixels])
    assert features[3]["id"] == str(uuid.uuid5(geojson.CELLS, named))


def test_an_id_is_of_one_image_and_class(results: Path) -> None:
    ids = set()
    for name, class_id in (("a", 1), ("a", 2), ("b", 1)):
        entries = result_entries(1 if name == "a" else 2, [Instance(class_id, 0.9, 2, 3, SQUARE)], 40, 50)
        write_results(results, entries)
        out = results.parent / f"{name}{class_id}"
        main(["--from", "results", str(results), str(out), "--to", "geojson"])
        ids |= {feature["id"] for feature in json.loads((out / f"{name}.geojson").read_text())["features"]}
    assert len(ids) == 3


def test_units_are_in_the_names_where_they_are_known(results: Path) -> None:
    (plain,) = table(export(results, "csv"))
    assert {"area", "centroid_x", "perimeter", "left"} < set(plain) and not any("_um" in name for name in plain)
    (row,) = table(export(results, "csv", "--mpp", 0.5))
    assert list(row)[-2:] == ["probability_one", "probability_two"]
    measured = [name for name in row if name not in ("image", "label", "class_id", "class", "color", "score")]
    assert all(name.endswith(("_px", "_um", "_um2")) or name.startswith(("ecc", "prob")) for name in measured)
    assert (row["area_px"], float(row["area_um2"])) == ("36", 9.0)
    assert (float(row["centroid_x_px"]), float(row["centroid_x_um"])) == (5.5, 2.75)
    assert float(row["perimeter_um"]) == pytest.approx(0.5 * float(row["perimeter_px"]), abs=1e-3)
    feature = json.loads((export(results, "geojson", "--mpp", 0.5) / "a.geojson").read_text())["features"][0]
    found = feature["properties"]["measurements"]
    assert found["Area px"] == 36 and found["Area µm^2"] == 9.0
    assert found["Perimeter µm"] == float(row["perimeter_um"]) and found["Major axis µm"] == float(row["major_axis_um"])
    in_parquet = pq.read_table(export(results, "parquet", "--mpp", 0.5) / "cells.parquet")
    assert in_parquet.column_names == [*row, "geometry"] and in_parquet["area_um2"].to_pylist() == [9.0]


def test_parquet_says_what_its_geometry_is(results: Path) -> None:
    path = export(results, "parquet", "--min-score", 0) / "cells.parquet"
    geo = json.loads(pq.read_schema(path).metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert column == {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None, "bbox": [3, 2, 25, 36]}
    rows = pq.read_table(path).to_pylist()
    for row, wanted in zip(rows, table(export(results, "csv", "--min-score", 0)), strict=True):
        del row["geometry"]
        assert {name: "" if value is None else str(value) for name, value in row.items()} == wanted
    assert rows[0]["probability_one"] is None


def test_parquet_without_cells_is_a_table(results: Path) -> None:
    path = export(results, "parquet", "--min-score", 1) / "cells.parquet"
    assert pq.read_table(path).num_rows == 0 and "area" in pq.read_schema(path).names
    geometry = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]
    assert geometry["geometry_types"] == [] and "bbox" not in geometry


def test_parquet_is_written_as_images_come(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [{"file_name": f"{n}.tif", "id": n, "height": 40, "width": 50} for n in range(1, 6)]
    (results.parent / "r.id-map.json").write_text(json.dumps(ids))
    write_results(results, [entry for n in range(1, 6) for entry in result_entries(n, CELLS, 40, 50)])
    monkeypatch.setattr(parquet, "ROWS", 5)
    file = pq.ParquetFile(export(results, "parquet", "--min-score", 0) / "cells.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [5, 5, 5]
    assert file.read()["image"].to_pylist() == [str(n) for n in range(1, 6) for _ in range(3)]


def test_a_table_that_fails_is_not_there(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "to_wkb", fail)
    with pytest.raises(InputError, match=r"cells\.parquet: cannot be written \(No space"):
        export(results, "parquet")
    assert not list((results.parent / "parquet").iterdir())
