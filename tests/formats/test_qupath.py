"""GeoJSON as QuPath 0.2 to 0.6 writes it, built here by its definition."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from src.data.masks import read_mask
from tests.formats.test_conversion import PIXELS, convert, masks_of, names_in, save, save_turned

Ring = list[list[float]]


def box(left: float, top: float, right: float, bottom: float) -> Ring:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def polygon(*rings: Ring) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: Any, name: str | None = "Tumor", kind: str = "annotation", **more: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": kind, "isLocked": True}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    properties.update(more.pop("properties", {}))
    return {"type": "Feature", "id": "8d1a", "geometry": geometry, "properties": properties, **more}


def write(path: Path, *features: dict[str, Any], image: str = "x.png") -> Path:
    """A file of features beside its image."""
    save(path.parent / image, PIXELS)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def run(capsys: pytest.CaptureFixture[str], given: Path, *flags: object) -> tuple[str, Path]:
    out = given.parent / f"out{len(list(given.parent.glob('out*')))}"
    return convert(capsys, "--from", "geojson", given, out, *flags), out


def painted(*windows: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((40, 50), np.int32)
    for number, window in enumerate(windows, start=1):
        mask[window] = number
    return mask


@pytest.mark.parametrize("name", ["x.geojson", "x.json", "X.GEOJSON", "x.geojson.gz", "x.tif.geojson", "x.ome.geojson"])
@pytest.mark.parametrize("form", ["collection", "list", "one"])
def test_files_of_any_form_and_name_are_read(
    form: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = feature(polygon(box(5, 4, 15, 12)), kind="detection")
    data = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one], "one": one}[form]
    save(tmp_path / "in/images/x.png", PIXELS)
    content = json.dumps(data, indent=1).encode()
    (tmp_path / "in" / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for given in (tmp_path / "in", tmp_path / "in" / name):
        said, out = run(capsys, given)
        assert "1 image, 1 cell; classes 1 Tumor" in said
        (folder,) = (path for path in out.iterdir() if path.is_dir())
        assert folder.name == name[0] and np.array_equal(masks_of(folder)[1], painted(np.s_[4:12, 5:15]))
        assert json.loads((out / "classes.json").read_text()) == [{"id": 1, "name": "Tumor", "color": "#c80000"}]


def test_classes_of_all_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name over all files; what is not classified is of no class, what is to be ignored no cell."""
    windows = [np.s_[4 * n : 4 * n + 3, 2:9] for n in range(9)]
    boxes = [polygon(box(2, 4 * n, 9, 4 * n + 3)) for n in range(9)]
    given = [
        {"classification": {"name": "Stroma", "colorRGB": -6895466}},  # 0.2
        {"classification": {"names": ["Tumor", "Positive"], "color": [250, 62, 62]}},  # 0.6
        {"classification": {"name": "Tumor: Positive", "color": [1, 2, 3]}},
        {"classification": "Other"},
        {},
        {"classification": None},
        {"classification": {"name": "Ignore*", "color": [180, 180, 180]}},
        {"classification": {"name": "Region*"}},
        {"classification": {"name": "Ärzte"}},
    ]
    features = [feature(shape, None, properties=more) for shape, more in zip(boxes, given, strict=True)]
    write(tmp_path / "in/y.geojson", *features[4:], image="y.png")
    write(tmp_path / "in/x.geojson", *features[:4])
    said, out = run(capsys, tmp_path / "in")
    classes = json.loads((out / "classes.json").read_text())
    assert [entry["name"] for entry in classes] == ["Other", "Stroma", "Tumor: Positive", "Ärzte"]
    assert [entry["color"] for entry in classes][1:3] == ["#96c896", "#fa3e3e"]
    masks = masks_of(out / "x")
    assert np.array_equal(masks[3], painted(*windows[1:3])) and np.array_equal(masks[1], painted(windows[3]))
    assert np.array_equal(masks[2], painted(windows[0])) and list(masks_of(out / "y")) == [4]
    assert np.array_equal(read_mask(out / "y/unknown.tif"), painted(*windows[4:6]))
    assert np.array_equal(read_mask(out / "y/ambiguous.tif"), painted(windows[6]))
    assert "without a class: 2 cells" in said and "kept apart: 1 ambiguous" in said and "1 x region of class" in said


def test_nothing_classified_is_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, out = run(capsys, write(tmp_path / "x.geojson", feature(polygon(box(5, 4, 15, 12)), None, "detection")))
    assert "nothing is classified" in said and list(masks_of(out / "x")) == [1] and names_in(out) == ["cell"]
    assert not (out / "x/unknown.tif").exists()


def test_geometries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hole = polygon(box(2, 2, 12, 12), box(4, 4, 8, 8))
    pieces = {"type": "MultiPolygon", "coordinates": [[box(20, 2, 24, 6)], [box(26, 2, 32, 8), box(28, 4, 30, 6)]]}
    line = {"type": "LineString", "coordinates": [[1, 1], [30, 30]]}
    point = {"type": "Point", "coordinates": [1, 1]}
    many = {"type": "GeometryCollection", "geometries": [line, polygon(box(2, 20, 6, 24)), polygon(box(8, 20, 9, 21))]}
    outside = [polygon(box(45, 30, 60, 50)), polygon(box(60, 60, 70, 70)), polygon(box(20.6, 20, 21.4, 21))]
    broken = [polygon([[1, 1], [2, 2]]), polygon([["a", 1], [2, 2], [3, 3]]), None, {"type": "Polygon"}]
    path = write(tmp_path / "x.geojson", *map(feature, [hole, pieces, line, point, many, *outside, *broken]))
    said, out = run(capsys, path)
    wanted = painted(np.s_[2:12, 2:12], np.s_[2:6, 20:24], np.s_[20:24, 2:6], np.s_[30:40, 45:50])
    wanted[4:8, 4:8] = wanted[4:6, 28:30] = 0
    wanted[2:8, 26:32] = 2
    wanted[4:6, 28:30], wanted[20, 8] = 0, 3
    assert np.array_equal(masks_of(out / "x")[1], wanted)
    counted = ("2 x LineString, ", "1 x Point, ", "2 x object without a pixel", "3 x polygon that cannot")
    for words in (*counted, "1 x object without a geometry"):
        assert words in said


def test_what_a_ring_encloses_twice_is_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    around_twice = [[2, 2], [22, 2], [22, 22], [7, 22], [7, 7], [17, 7], [17, 27], [2, 27], [2, 2]]
    _, out = run(capsys, write(tmp_path / "x.geojson", feature(polygon(around_twice))))
    wanted = painted(np.s_[2:22, 2:22])
    wanted[7:22, 7:17] = 0  # … where both ways around overlap
    wanted[22:27, 2:17] = wanted[7:22, 2:7] = 1
    assert np.array_equal(masks_of(out / "x")[1], wanted)


def test_types_that_are_no_cells_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell, other = polygon(box(5, 4, 15, 12)), polygon(box(20, 4, 30, 12))
    kinds = ["tile", "tma_core", "root", "annotation"]
    old = [
        {"type": "Feature", "id": "PathTileObject", "geometry": cell, "properties": {}},
        {"type": "Feature", "id": "PathDetectionObject", "geometry": cell, "properties": {"classification": None}},
        {"type": "Feature", "geometry": other, "properties": None},  # of another program
    ]
    said, _ = run(capsys, write(tmp_path / "x.geojson", *(feature(cell, kind=kind) for kind in kinds), *old))
    for words in ("2 x object of type tile", "1 x object of type tma_core", "1 x object of type root", "3 cells"):
        assert words in said


def test_objects_on_other_planes_of_a_stack_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [{"c": -1, "z": 0, "t": 0}, {"c": -1, "z": 2, "t": 0}, {"c": -1, "z": 0, "t": 1}]
    objects = [
        feature({**polygon(box(2 + 10 * n, 2, 9 + 10 * n, 9)), "plane": plane}) for n, plane in enumerate(places)
    ]
    said, out = run(capsys, write(tmp_path / "x.geojson", *objects))
    assert "2 x object on another plane" in said and "1 image, 1 cell" in said
    assert np.array_equal(masks_of(out / "x")[1], painted(np.s_[2:9, 2:9]))


def test_nuclei_of_cells_are_taken_where_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = feature(polygon(box(4, 4, 20, 20)), kind="cell", nucleusGeometry=polygon(box(8, 8, 12, 13)))
    bare = feature(polygon(box(30, 4, 40, 20)), kind="cell")
    path = write(tmp_path / "x.geojson", both, bare)
    said, out = run(capsys, path)
    assert "1 x cell of QuPath" in said and "--nuclei" in said
    assert np.array_equal(masks_of(out / "x")[1], painted(np.s_[4:20, 4:20], np.s_[4:20, 30:40]))
    said, out = run(capsys, path, "--nuclei")
    assert "1 x cell without a nucleus" in said and "--nuclei" not in said
    assert np.array_equal(masks_of(out / "x")[1], painted(np.s_[8:13, 8:12]))
    with pytest.raises(InputError, match="--nuclei: has no effect with --from coco"):
        convert(capsys, "--from", "coco", path, tmp_path / "no", "--nuclei")


def test_annotations_around_detections_are_no_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [feature(polygon(box(x, 5, x + 4, 9)), kind="detection") for x in (2, 10, 30)]
    around = feature(polygon(box(0, 0, 20, 40)), "Stroma")
    corrected = feature(polygon(box(29, 4, 35, 10)), "Stroma")  # drawn by hand over one detection
    said, out = run(capsys, write(tmp_path / "x.geojson", around, *found, corrected))
    assert "1 x annotation around other objects" in said and "1 x annotation that was taken as a cell" in said
    assert np.array_equal(masks_of(out / "x")[1], painted(np.s_[4:10, 29:35]))
    assert names_in(out) == ["Stroma", "Tumor"]
    found = [feature(polygon(box(x, 5, x + 4, 9)), None, "detection") for x in (2, 10, 30)]
    said, out = run(capsys, write(tmp_path / "x.geojson", around, *found))  # as before cells are classified
    assert "1 x annotation around" in said and "nothing is classified" in said and names_in(out) == ["cell"]
    drawn = [feature(polygon(box(x, 5, x + 4, 9))) for x in (2, 10, 30)]
    said, out = run(capsys, write(tmp_path / "x.geojson", feature(polygon(box(0, 0, 40, 40)), None), *drawn))
    assert "1 x annotation around other objects" in said and len(np.unique(masks_of(out / "x")[1])) == 4


def test_what_is_beside_is_said_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in/x.geojson", feature(polygon(box(5, 4, 15, 12))))
    save(tmp_path / "in/y.png", PIXELS)
    (tmp_path / "in/notes.json").write_text("{}")
    said, _ = run(capsys, tmp_path / "in")
    assert "1 x image without a GeoJSON file" in said and "1 file not read, such as" in said and "notes.json" in said
    (tmp_path / "in/z.geojson").write_text("[]")
    with pytest.raises(InputError, match=r"z\.geojson: has no image beside it \(see --images\)"):
        run(capsys, tmp_path / "in")
    (tmp_path / "in/x.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.tif: is a second image beside .*x\.png"):
        run(capsys, path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not valid JSON"),
        (b'{"type": "Polygon", "coordinates": []}', "holds no GeoJSON features"),
        (b"[1]", "holds no GeoJSON features"),
        (b'{"type": "FeatureCollection"}', "holds no GeoJSON features"),
        (b"[]", r"holds no cells in its 1 image"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_damaged_files_are_one_line(
    content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.geojson")
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.geojson: {reason}"):
        run(capsys, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.geojson", "x.png"]


def test_a_compressed_file_is_unpacked_within_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "x.png", PIXELS)
    path = tmp_path / "x.geojson.gz"
    path.write_bytes(gzip.compress(b" " * 100_000)[:-9])
    with pytest.raises(InputError, match=r"x\.geojson\.gz: .*cut off"):
        run(capsys, path)
    path.write_bytes(gzip.compress(b" " * 100_000))
    monkeypatch.setattr("src.common.files.MAX_UNPACKED", 99_999)
    with pytest.raises(InputError, match=r"x\.geojson\.gz: .*more than 99,999 bytes"):
        run(capsys, path)


def zipped(path: Path, **members: bytes) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.geojson", content)
    return path.read_bytes()


def test_a_zip_as_qupath_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    path = tmp_path / "in/x.zip"
    content = zipped(path, objects=json.dumps(feature(polygon(box(5, 4, 15, 12)), kind="detection")).encode())
    for given in (path, path.parent):
        _, out = run(capsys, given)
        assert np.array_equal(masks_of(out / "x")[1], painted(np.s_[4:12, 5:15]))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"x\.zip: "):
        run(capsys, path)
    zipped(path, a=b"{}", b=b"{}")
    with pytest.raises(InputError, match=r"x\.zip: .*2 files"):
        run(capsys, path)
    zipped(path, a=b" " * 100_000)
    monkeypatch.setattr("src.common.files.MAX_UNPACKED", 99_999)
    with pytest.raises(InputError, match=r"x\.zip: .*more than 99,999 bytes"):
        run(capsys, path)


def test_many_large_regions_do_not_take_the_memory_of_many_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.geojson", *[feature(polygon(box(0, 0, 50, 40)))] * 20)
    with pytest.raises(InputError, match=r"x\.geojson: its objects cover the image of 40 x 50 px many times"):
        run(capsys, path, "--max-pixels", 10_000)


def test_a_long_outline_costs_only_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.geometry.polygons.MOST_CROSSINGS", 100)
    comb = [[x, y] for x in range(5, 15) for y in (4, 12)] + [[5, 4]]
    said, _ = run(capsys, write(tmp_path / "x.geojson", feature(polygon(comb)), feature(polygon(box(1, 1, 5, 5)))))
    assert "1 x object whose outline is too long" in said and "1 image, 1 cell" in said


@pytest.mark.parametrize(("right", "is_stored"), [(45, True), (30, False)])
def test_polygons_tell_whether_a_picture_is_turned(
    right: int, is_stored: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.geojson", feature(polygon(box(2, 4, right, 12))))
    save_turned(tmp_path / "x.png", PIXELS, 6)
    said, out = run(capsys, path)
    image = tifffile.imread(out / "x/image.tif")
    assert (
        np.array_equal(image, PIXELS if is_stored else np.rot90(PIXELS, -1)) and ("--orientation" in said) != is_stored
    )


def test_slides_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.geojson", feature(polygon(box(5, 4, 15, 12))))
    (tmp_path / "x.png").unlink()
    with tifffile.TiffWriter(tmp_path / "x.svs") as file:
        file.write(PIXELS, photometric="rgb", tile=(16, 16))
        file.write(PIXELS[::2, ::2], photometric="rgb")
    _, out = run(capsys, path)
    assert np.array_equal(tifffile.imread(out / "x/image.tif"), PIXELS)


def test_more_classes_than_there_can_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [feature(polygon(box(5, 4, 15, 12)), f"cell {n}") for n in range(1001)]
    with pytest.raises(InputError, match="has 1001 classes, such as 'cell 0'"):
        run(capsys, write(tmp_path / "x.geojson", *cells))
