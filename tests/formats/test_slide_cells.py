"""The cells of predicted slides, and of QuPath's files of slides, are read without the pixels of the slide."""

import csv
import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from src.common.errors import InputError
from src.convert import main
from src.data.classes import name_classes
from src.data.id_map import ImageId
from src.data.masks import read_mask
from src.data.tiff import write_image
from src.evaluation.results import cells_by_image, read_results
from src.formats import slide_folder
from src.formats.readers import features
from src.formats.readers.features import read_features
from src.formats.writers import parquet
from src.formats.writers.batches import Batch
from src.formats.writers.geojson import GeoJsonCells
from src.geometry.instances import Instance
from tests.formats.test_conversion import convert, masks_of
from tests.formats.test_qupath import box, feature, polygon, write

CLASSES = name_classes(["tumour", "none here", "other"])  # not in the order of the alphabet
RING = np.ones((5, 5), bool)
RING[2, 2] = False
CELLS = [
    Instance(3, 0.75, 2, 3, np.ones((6, 6), bool), (0.25, 0.0, 0.75)),
    Instance(1, 0.5, 5, 3, np.ones((6, 6), bool), (0.5, 0.25, 0.25)),  # over half of the first one
    Instance(1, 0.25, 30, 44, RING, (1.0, 0.0, 0.0)),
]
SIZE = (40, 50)


def slide_in(
    folder: Path, cells: Sequence[Instance] = CELLS, size: tuple[int, int] = SIZE, file: str = "", **more: Any
) -> Path:
    """The folder of a predicted slide, as far as it is read, with what lies beside."""
    folder.mkdir(parents=True)
    image = ImageId(file or f"{folder.name}.svs", 1, *size)
    with GeoJsonCells(folder / slide_folder.CELLS, image, {c.id: c for c in CLASSES}, 0.5) as writer:
        writer.add(Batch(cells))
    counts = {c.name: sum(cell.class_id == c.id for cell in cells) for c in CLASSES}
    summary = {"slide": image.file_name, "height": size[0], "width": size[1], "mpp": 0.5,
               "cells": {**counts, "all": len(cells)}, **more}  # fmt: skip
    (folder / slide_folder.SUMMARY).write_text(json.dumps(summary))
    (folder / slide_folder.OVERVIEW).write_bytes(b"")
    (folder / slide_folder.TABLE).write_bytes(b"")
    return folder


def export(given: Path, kind: str, *flags: object) -> Path:
    out = given.parent / f"to {kind}"
    main(["--from", "geojson", str(given), str(out), "--to", kind, *map(str, flags)])
    return out


def plain(cells: Sequence[Instance]) -> list[tuple[Any, ...]]:
    return [(c.class_id, c.score, c.top, c.left, c.mask.tolist(), c.probabilities) for c in cells]


def test_the_files_are_called_as_predictions_call_them() -> None:
    assert slide_folder.TABLE == parquet.FILE_NAME


@pytest.mark.parametrize("place", [".", "1.a", "1.a/cells.geojson.gz"])
def test_a_slide_comes_back_from_its_folder_its_file_and_the_folder_of_all(place: str, tmp_path: Path) -> None:
    slide_in(tmp_path / "out" / "1.a")
    given = tmp_path / "out" / place
    out = export(given, "geojson", "--gzip")
    assert (out / "1.a.geojson.gz").read_bytes() == (tmp_path / "out/1.a/cells.geojson.gz").read_bytes()
    results = export(given, "results")
    found = cells_by_image(read_results(results))[1]
    assert plain(found) == [(*row[:5], ()) for row in plain(CELLS)]
    assert json.loads(results.with_name("to results.classes.json").read_text()) == [vars(c) for c in CLASSES]
    rows = json.loads(results.with_name("to results.probabilities.json").read_text())["probabilities"]
    assert [tuple(row) for row in rows] == [cell.probabilities for cell in CELLS]
    (image,) = json.loads(results.with_name("to results.id-map.json").read_text())
    assert image == {"file_name": "1.a.svs", "id": 1, "height": 40, "width": 50}


def test_tables_and_coco_hold_all_cells_with_the_units_of_the_slide(tmp_path: Path) -> None:
    slide = slide_in(tmp_path / "s")
    with (export(slide, "csv") / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["other", "tumour", "tumour"]
    assert [(float(row["area_px"]), float(row["area_um2"])) for row in rows] == [(36, 9), (36, 9), (24, 6)]
    assert pq.read_table(export(slide, "parquet") / "cells.parquet").num_rows == 3
    coco = json.loads(export(slide, "coco", "--min-score", 0.5).read_text())
    assert [entry["score"] for entry in coco["annotations"]] == [0.75, 0.5]
    assert [entry["bbox"] for entry in coco["annotations"]] == [[3, 2, 6, 6], [3, 5, 6, 6]]


def test_label_images_of_a_small_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label_map = tifffile.imread(export(slide_in(tmp_path / "s"), "labels") / "s.tif")
    assert label_map.shape == SIZE and "1 cells are covered" in capsys.readouterr().out
    assert [int((label_map == number).sum()) for number in (1, 2, 3)] == [36, 18, 24]


def test_every_slide_of_a_folder_is_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("x", "site a/1", "site b/1"):
        slide_in(tmp_path / "out" / place)
    (tmp_path / "out/.y.unfinished").mkdir()
    (tmp_path / "out/.y.unfinished/job.json").write_text("{}")
    (tmp_path / "out/cohort.json").write_text("{}")
    out = export(tmp_path / "out", "csv")
    assert sorted(path.name for path in out.glob("*.csv")) == ["site a_1.csv", "site b_1.csv", "x.csv"]
    said = capsys.readouterr().out
    assert "1 file not read" in said and "cohort.json" in said and "9 cells in 3 images" in said


@pytest.mark.parametrize("given", ["out", "out/s", "out/s/cells.geojson.gz"])
@pytest.mark.parametrize("images", ["slides", "slides/s.tif"])
def test_a_training_folder_needs_the_slide(
    given: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide_in(tmp_path / "out/s", file="s.tif")
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match=r"cells\.geojson\.gz: .*--images.*s\.tif.*--to"):
        convert(capsys, "--from", "geojson", tmp_path / given, tmp_path / "no")
    write_image(tmp_path / "slides/s.tif", pixels)
    said = convert(capsys, "--from", "geojson", tmp_path / given, tmp_path / "train", "--images", tmp_path / images)
    assert "1 image, 3 cells" in said and list(masks_of(tmp_path / "train/s")) == [1, 3]
    assert np.array_equal(tifffile.imread(tmp_path / "train/s/image.tif"), pixels)
    assert (read_mask(tmp_path / "train/s/class3.tif") > 0).sum() == 36
    write_image(tmp_path / "slides/s.tif", pixels[1:])
    with pytest.raises(InputError, match=r"40 x 50 px, but .*s\.tif is 39 x 50"):
        convert(capsys, "--from", "geojson", tmp_path / given, tmp_path / "no", "--images", tmp_path / images)
    assert not (tmp_path / "no").exists()


def test_a_slide_that_no_memory_holds(tmp_path: Path) -> None:
    """Cells at the far end of 100,000 x 100,000 px take no more memory than elsewhere."""
    far = [Instance(1, 0.5, 99_990, 99_980, np.ones((10, 20), bool))]
    slide = slide_in(tmp_path / "s", far, (100_000, 100_000))
    tracemalloc.start()
    for kind in ("csv", "parquet", "geojson"):
        export(slide, kind)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    for kind in ("labels", "cellpose", "stardist"):
        with pytest.raises(InputError, match=rf"cells\.geojson\.gz: .*100000 x 100000 px.*{kind}.*--max-pixels"):
            export(slide, kind)
        assert not (tmp_path / f"to {kind}").exists()
    for kind in ("coco", "results"):
        with pytest.raises(InputError, match=rf"cells\.geojson\.gz: .*100000 x 100000 px.*{kind}.*536,870,911"):
            export(slide, kind, "--max-pixels", 10**12)
        assert not (tmp_path / f"to {kind}").exists()
    tracemalloc.stop()
    with (tmp_path / "to csv/s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["left_px"], row["top_px"], row["area_px"]) == ("99980", "99990", "200")


@pytest.mark.parametrize(
    ("summary", "reason"),
    [("{", "is not valid JSON"), ("[]", "positive integers"), ('{"height": 0, "width": 5}', "positive integers")],
)
def test_a_damaged_summary_is_named(summary: str, reason: str, tmp_path: Path) -> None:
    slide = slide_in(tmp_path / "s")
    (slide / "summary.json").write_text(summary)
    with pytest.raises(InputError, match=rf"summary\.json: .*{reason}"):
        export(slide, "csv")


# --- files of QuPath -------------------------------------------------------------------------------------------------


def test_a_file_of_qupath_needs_no_image_but_for_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = [{"name": "Score", "value": 0.25}, {"name": "Nucleus: Area", "value": 7.5}]  # before 0.4
    cells = [
        feature(polygon(box(70_000, 4, 70_010, 12)), kind="detection", properties={"measurements": measured}),
        feature(polygon(box(5, 4, 15, 12)), None, "detection"),
        feature(polygon(box(0, 0, 80_000, 50_000)), "Region*"),
        feature(polygon(box(0, 0, 9, 9)), "Ignore*"),
        feature(polygon(box(0, 0, 80_000, 50_000)), "Tissue"),
    ]
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps(cells))
    rows = (export(path, "csv") / "slide.csv").read_text().splitlines()
    assert [row.split(",")[3:6:2] for row in rows[1:]] == [["Tumor", "0.25"], ["unknown class", "1.0"]]
    said = capsys.readouterr().out
    for words in ("1 x region to ignore", "1 x region of class", "1 x annotation around other objects"):
        assert words in said
    with pytest.raises(InputError, match=r"slide\.geojson: .*--image-size"):
        export(path, "results")
    assert not (tmp_path / "to results").exists()
    found = cells_by_image(read_results(export(path, "results", "--image-size", "70005x4000")))[1]
    assert [(c.class_id, c.top, c.left, c.mask.shape) for c in found] == [(1, 4, 70_000, (8, 5)), (2, 4, 5, (8, 10))]
    (image,) = json.loads((tmp_path / "to results.id-map.json").read_text())
    assert (image["height"], image["width"]) == (4000, 70_005)


def test_a_size_that_is_not_the_summarys_is_refused(tmp_path: Path) -> None:
    slide = slide_in(tmp_path / "s")
    export(slide, "coco", "--image-size", "50x40")
    with pytest.raises(InputError, match=r"--image-size 40x50: .*s/summary\.json says 50x40"):
        export(slide, "coco", "--image-size", "40x50", "--force")


def test_the_image_beside_tells_the_size(tmp_path: Path) -> None:
    path = write(tmp_path / "x.geojson", feature(polygon(box(45, 4, 55, 12))))
    coco = json.loads(export(path, "coco").read_text())
    assert coco["images"] == [{"file_name": "x.png", "id": 1, "height": 40, "width": 50}]
    assert coco["annotations"][0]["bbox"] == [45, 4, 5, 8]


def test_regions_far_larger_than_cells_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apart = {"type": "MultiPolygon", "coordinates": [[box(0, 0, 2, 2)], [box(89_990, 89_990, 90_000, 90_000)]]}
    path = tmp_path / "x.geojson"
    path.write_text(
        json.dumps([feature(apart), feature(polygon(box(0, 0, 90_000, 90_000))), feature(polygon(box(1, 1, 3, 3)))])
    )
    export(path, "csv")
    said = capsys.readouterr().out
    assert "2 x object too large for a cell (see --max-pixels)" in said and "1 cell in 1 image" in said


@pytest.mark.parametrize("size", ["5", "5x", "0x5", "5x-1", "axb", "5 x 5"])
def test_a_size_that_is_none_is_named(size: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.geojson", feature(polygon(box(5, 4, 15, 12))))
    with pytest.raises(InputError, match=f"--image-size {size}: "):
        export(path, "coco", "--image-size", size)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--min-score", "0.5"], "--min-score: .*--to"),
        (["--image-size", "5x5"], "--image-size: .*--to"),
        (["--to", "csv", "--rectangles", "1"], "--rectangles: "),
        (["--to", "csv", "--crowds", "cells"], "--crowds: "),
        (["--to", "csv", "--gzip"], "--gzip: "),
        (["--to", "cvs"], "did you mean csv"),
        (["--to", "csv", "--images", "nowhere"], "nowhere: no such"),
    ],
)
def test_flags_without_an_effect_are_refused(flags: list[str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.geojson", feature(polygon(box(5, 4, 15, 12))))
    with pytest.raises(InputError, match=said):
        main(["--from", "geojson", str(path), str(tmp_path / "no"), *flags])
    assert not (tmp_path / "no").exists()


def test_one_image_is_not_that_of_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/x.geojson", feature(polygon(box(5, 4, 15, 12))))
    path = write(tmp_path / "in/y.geojson", feature(polygon(box(5, 4, 15, 12))))
    (tmp_path / "in/x.png").rename(tmp_path / "of y.png")
    with pytest.raises(InputError, match=r"--images .*of y\.png: .*2"):
        convert(capsys, "--from", "geojson", tmp_path / "in", tmp_path / "no", "--images", tmp_path / "of y.png")
    said = convert(capsys, "--from", "geojson", path, tmp_path / "train", "--images", tmp_path / "of y.png")
    assert "1 image, 1 cell" in said and list(masks_of(tmp_path / "train/y")) == [1]


def test_an_empty_folder_or_a_slide_without_cells(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: holds nothing in the format geojson"):
        export(tmp_path / "none", "csv")
    slide = slide_in(tmp_path / "s")
    (slide / "cells.geojson.gz").write_bytes(gzip.compress(b'{"type": "FeatureCollection", "features": []}\n'))
    assert len((export(slide, "csv") / "s.csv").read_text().splitlines()) == 1
    assert read_results(export(slide, "results")) == []


# --- features, one by one --------------------------------------------------------------------------------------------

ITEMS = [{"type": "Feature", "id": f"ä{number}", "geometry": {"coordinates": [[number, [1.5]]]}} for number in range(9)]
FORMS = {
    "collection": lambda: {"type": "FeatureCollection", "features": ITEMS},
    "features first": lambda: {"features": ITEMS, "type": "FeatureCollection"},
    "list": lambda: ITEMS,
    "other keys first": lambda: {"bbox": [1, 2], "type": "FeatureCollection", "features": ITEMS},
}


@pytest.mark.parametrize("chunk", [60, 61, 200, 10_000])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("indent", [None, 2])
def test_features_do_not_depend_on_how_much_is_read_at_once(
    chunk: int, form: str, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CHUNK", chunk)
    content = json.dumps(FORMS[form](), indent=indent, ensure_ascii=False)
    files = {
        "x.geojson": content.encode(),
        "x.geojson.gz": gzip.compress(content.encode()),
        "y.geojson": content.encode("utf-8-sig"),
        "z.geojson": content.encode("utf-16"),
    }
    for name, encoded in files.items():
        (tmp_path / name).write_bytes(encoded)
        assert list(read_features(tmp_path / name)) == ITEMS


@pytest.mark.parametrize("end", [1, 200, 350])
def test_a_file_that_is_cut_off_is_named(end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 64)
    content = json.dumps(ITEMS).encode()
    path = tmp_path / "x.geojson"
    path.write_bytes(content[:end])
    with pytest.raises(InputError, match=r"x\.geojson: is not valid JSON"):
        list(read_features(path))
    path = tmp_path / "x.geojson.gz"
    path.write_bytes(gzip.compress(content)[: -min(end, 80)])
    with pytest.raises(InputError, match=r"x\.geojson\.gz: "):
        list(read_features(path))


@pytest.mark.parametrize("chunk", [64, 10_000])
@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("", "is not valid JSON"),
        (', "type": "Feature', "is not valid JSON"),
        (', "type": "FeatureCollection"', "is not valid JSON"),
        (', "type": "FeatureCollection"} {"x": 1}', "is not valid JSON"),
        ("}", "holds no GeoJSON features"),
        (', "type": "Polygon"}', "holds no GeoJSON features"),
        (', "type": "FeatureCollection", "features": [1]}', "holds no GeoJSON features"),
    ],
)
def test_what_follows_the_list_is_checked(
    chunk: int, end: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CHUNK", chunk)
    path = tmp_path / "x.geojson"
    path.write_text(f'{{"features": {json.dumps(ITEMS)}{end}')
    with pytest.raises(InputError, match=rf"x\.geojson: {said}"):
        list(read_features(path))
    path.write_text(f'{{"features": {json.dumps(ITEMS)}, "crs": {{"a": [1]}}, "type": "FeatureCollection"}} ')
    assert list(read_features(path)) == ITEMS


def test_what_is_no_feature_or_too_much_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.geojson"
    for content in ("[1]", '[{"type": "Feature"}, {"type": "Polygon"}]', '{"type": "FeatureCollection"}', '"x"'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"x\.geojson: holds no GeoJSON features"):
            list(read_features(path))
    path.write_text(json.dumps(ITEMS))
    monkeypatch.setattr(features, "CHUNK", 64)
    monkeypatch.setattr(features, "MOST_OF_FILE", 300)
    with pytest.raises(InputError, match=r"x\.geojson: holds more than 300"):
        list(read_features(path))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"absent\.geojson: cannot be read"):
        list(read_features(tmp_path / "absent.geojson"))


def test_features_take_memory_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson.gz"
    one = json.dumps({"type": "Feature", "geometry": [[float(n), 0.5] for n in range(100)]})
    path.write_bytes(gzip.compress(f"[{', '.join([one] * 20_000)}]".encode()))
    tracemalloc.start()
    assert sum(1 for _ in read_features(path)) == 20_000  # 30 MB of text
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
