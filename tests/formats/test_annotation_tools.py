"""labelme, VGG Image Annotator and Supervisely, by the definitions of their files."""

import base64
import csv
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.common.errors import InputError
from src.data.masks import read_mask
from src.data.tiff import read_image
from tests.formats.test_conversion import PIXELS, convert, masks_of, names_in, save, save_turned


def painted(*windows: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((40, 50), np.int32)
    for number, window in enumerate(windows, start=1):
        mask[window] = number
    return mask


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(content, "PNG")
    return content.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bomb(side: int) -> bytes:
    """A PNG that claims to be of ``side`` px, and holds one."""
    whole = bytearray(png(np.ones((1, 1), np.uint8)))
    whole[16:24] = side.to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    return bytes(whole)


def disc(x: float, y: float, r_x: float, r_y: float) -> np.ndarray:
    rows, columns = np.mgrid[:40, :50] + 0.5
    return ((columns - x) / r_x) ** 2 + ((rows - y) / r_y) ** 2 < 1


def is_near(mask: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether only pixels at the edge differ."""
    return wanted.any() and np.count_nonzero(mask != wanted) <= 0.03 * np.count_nonzero(wanted)


# --- labelme ---------------------------------------------------------------------------------------------------------


def shape(label: Any, kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(path: Path, *shapes: Any, image: Path | None = None, **more: Any) -> Path:
    if image:
        save(image, PIXELS)
    data = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "x.png", "imageData": None,
            "imageHeight": 40, "imageWidth": 50, **more}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def corners(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_shapes_of_labelme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((3, 4), bool)
    mask[0, 1] = mask[2] = True
    shapes = [
        shape("b", "polygon", corners(2, 2, 8, 6)),
        shape("b", "rectangle", [[20, 6], [12, 2]]),
        shape("a", "circle", [[30, 20], [30, 28]]),
        shape("b", "mask", [[4, 30], [7, 32]], mask=base64_of(png(mask))),
        shape("a", "polygon", corners(10, 10, 12, 12), group_id=3),
        shape("a", "polygon", corners(14, 10, 16, 12), group_id=3),
        shape("b", "polygon", corners(14, 14, 16, 16), group_id=3),
        shape("__ignore__", "polygon", corners(45, 0, 50, 5)),
        shape("_background_", "polygon", corners(0, 0, 50, 40)),
        *(shape(kind, kind, [[1, 1], [3, 3], [4, 1]]) for kind in ("linestrip", "line", "point", "points")),
        shape("a", "polygon", [[1, 1], [2, 2]]),
        shape("a", "polygon", corners(60, 60, 70, 70)),
        shape(None, "polygon", corners(40, 30, 44, 34)),
    ]
    path = labelme(tmp_path / "in/x.json", *shapes, image=tmp_path / "in/x.png")
    for number, given in enumerate((path, path.parent)):
        said = convert(capsys, "--from", "labelme", given, tmp_path / f"out{number}")
        out = tmp_path / f"out{number}"
        assert names_in(out) == ["a", "b"] and np.array_equal(read_image(out / "x/image.tif"), PIXELS)
        of_a, of_b = masks_of(out / "x").values()
        assert is_near(of_a == 1, disc(30, 20, 8, 8))
        assert np.array_equal(of_a * (of_a == 2), 2 * (painted(np.s_[10:12, 10:12], np.s_[10:12, 14:16]) > 0))
        wanted = painted(np.s_[2:6, 2:8], np.s_[2:6, 12:20], np.s_[0:0, 0:0], np.s_[14:16, 14:16])
        wanted[30:33, 4:8][mask] = 3
        assert np.array_equal(of_b, wanted)
        assert np.array_equal(read_mask(out / "x/unknown.tif"), painted(np.s_[30:34, 40:44]))
        assert np.array_equal(read_mask(out / "x/ambiguous.tif"), painted(np.s_[0:5, 45:50]))
        for words in (
            "1 x linestrip",
            "1 x point,",
            "1 x points,",
            "1 x polygon that cannot",
            "1 x object without a p",
        ):
            assert words in said


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ("..\\pictures\\x.png", "in/pictures/x.png"),
        ("x.png", "in/labels/images/x.png"),
        ("C:/me/x.png", "in/labels/x.png"),
        ("other.png", "in/labels/X.PNG"),
        ("other.png", "in/labels/x.webp"),
    ],
)
def test_the_image_of_a_labelme_file_is_found(
    named: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = shape("a", "polygon", corners(2, 2, 8, 6))
    path = labelme(tmp_path / "in/labels/x.json", one, image=tmp_path / place, imagePath=named)
    said = convert(capsys, "--from", "labelme", path.parent, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out/x/image.tif"), PIXELS) and "not read" not in said


def test_an_image_inside_is_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = shape("a", "polygon", corners(2, 2, 8, 6))
    path = labelme(tmp_path / "x.json", one, imageData=base64_of(png(PIXELS)))
    convert(capsys, "--from", "labelme", path, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out/x/image.tif"), PIXELS)
    deep = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30
    labelme(path, one, imageData=base64_of(png(deep)))
    convert(capsys, "--from", "labelme", path, tmp_path / "deep")
    assert np.array_equal(read_image(tmp_path / "deep/x/image.tif")[..., 0], np.rint(deep / 257))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, r"names the image x\.png, which is not in .*--images"),
        ({"imageData": "abcde"}, "data that are not base64"),
        ({"imageData": base64_of(b"no image")}, "its image: cannot be read as an image"),
        ({"imageData": base64_of(bomb(20_000))}, "its image: is 20000 x 20000 px; more than"),
        ({"imageData": base64_of(png(PIXELS)), "imageHeight": 41}, "is of 41 x 50 px, but its image is 40 x 50 px"),
        ({"imageData": base64_of(png(PIXELS)), "imageHeight": None}, "must be positive integers"),
        ({"imageData": base64_of(png(PIXELS)), "imageHeight": 10**9}, "is 1000000000 x 50 px; more than"),
        ({"imageData": base64_of(png(PIXELS)), "shapes": [1]}, "shape 0 is not a JSON object"),
        (
            {
                "imageData": base64_of(png(PIXELS)),
                "shapes": [shape("a", "mask", [[0, 0], [1, 1]], mask=base64_of(bomb(30_000)))],
            },
            "a mask: is 30000 x 30000 px; more than",
        ),
    ],
)
def test_a_labelme_file_that_cannot_be_read_is_one_line(
    changes: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = labelme(tmp_path / "x.json", shape("a", "polygon", corners(2, 2, 8, 6)), **changes)
    with pytest.raises(InputError, match=rf"x\.json: .*{reason}"):
        convert(capsys, "--from", "labelme", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_labelme_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = shape("a", "polygon", corners(2, 2, 8, 6))
    path = labelme(tmp_path / "in/x.json", one, image=tmp_path / "in/x.png")
    (tmp_path / "in/other.json").write_text("[]")
    assert "1 file not read" in convert(capsys, "--from", "labelme", path.parent, tmp_path / "out")
    labelme(tmp_path / "in/y.json", one)
    with pytest.raises(InputError, match=r"y\.json: is of the image .*x\.png, as .*x\.json is"):
        convert(capsys, "--from", "labelme", path.parent, tmp_path / "again")


# --- VGG Image Annotator ---------------------------------------------------------------------------------------------


def region(attributes: Any, name: str = "rect", **numbers: Any) -> dict[str, Any]:
    if name == "rect" and not numbers:
        numbers = {"x": 2, "y": 3, "width": 5, "height": 4}
    return {"shape_attributes": {"name": name, **numbers}, "region_attributes": attributes}


def via(path: Path, *regions: dict[str, Any], form: str = "project", attributes: Any = None) -> Path:
    save(path.parent / "x.png", PIXELS)
    entry = {"filename": "x.png", "size": 9, "regions": list(regions), "file_attributes": {}}
    if form == "dict":
        entry["regions"] = {str(n): one for n, one in enumerate(regions)}
    images = {"x.png9": entry}
    project = {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {"region": attributes or {}}}
    path.write_text(json.dumps(project if form == "project" else images))
    return path


@pytest.mark.parametrize("form", ["project", "list", "dict"])
def test_shapes_of_via(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regions = [
        region({"type": "b"}, "polygon", all_points_x=[2, 8, 8, 2], all_points_y=[2, 2, 6, 6]),
        region({"type": "b"}, "rect", x=12, y=2, width=8, height=4),
        region({"type": "a"}, "circle", cx=30, cy=20, r=8),
        region({"type": "a"}, "ellipse", cx=12, cy=25, rx=10, ry=5, theta=0),
        region({"type": "b"}, "polyline", all_points_x=[40, 44, 44, 40, 40], all_points_y=[30, 30, 34, 34, 30]),
        region({"type": "b"}, "polyline", all_points_x=[1, 2, 3], all_points_y=[1, 2, 1]),
        region({"type": "spot"}, "point", cx=1, cy=1),
        region({"type": "b"}, "polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]),
        region({"type": "b"}, "circle", cx=1, cy=1),
        region({"type": ""}, "rect", x=40, y=2, width=3, height=3),
    ]
    path = via(tmp_path / "in.json", *regions, form=form)
    said = convert(capsys, "--from", "via", path, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["a", "b"]
    of_a, of_b = masks_of(tmp_path / "out/x").values()
    assert is_near(of_a == 1, disc(30, 20, 8, 8)) and is_near(of_a == 2, disc(12, 25, 10, 5))
    assert np.array_equal(of_b, painted(np.s_[2:6, 2:8], np.s_[2:6, 12:20], np.s_[30:34, 40:44]))
    assert np.array_equal(read_mask(tmp_path / "out/x/unknown.tif"), painted(np.s_[2:5, 40:43]))
    for words in ("1 x polyline that is not closed", "1 x point,", "1 x polygon that cannot", "1 x circle that cannot"):
        assert words in said


def test_a_table_of_via(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "x.png", PIXELS)
    save(tmp_path / "y.png", PIXELS)
    text = io.StringIO()
    rows = csv.writer(text)
    about_image = ["filename", "file_size", "file_attributes", "region_count"]
    rows.writerow([*about_image, "region_id", "region_shape_attributes", "region_attributes"])
    box = json.dumps({"name": "rect", "x": 2, "y": 3, "width": 5, "height": 4})
    rows.writerow(["x.png", 9, "{}", 1, 0, box, json.dumps({"class": "a"})])
    rows.writerow(["y.png", 9, "{}", 0, 0, "{}", "{}"])
    (tmp_path / "in.csv").write_text(text.getvalue())
    assert "2 images, 1 cell;" in convert(capsys, "--from", "via", tmp_path / "in.csv", tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], painted(np.s_[3:7, 2:7]))
    (tmp_path / "in.csv").write_text("filename,region\nx.png,{}")
    with pytest.raises(InputError, match=r"in\.csv: .*no column region_shape_attributes"):
        convert(capsys, "--from", "via", tmp_path / "in.csv", tmp_path / "again")


@pytest.mark.parametrize(
    ("attributes", "flags", "classes"),
    [
        ([{"cell kind": "b"}, {"cell kind": "a"}], [], ["a", "b"]),  # the only one
        ([{"quality": "good", "Class": "b"}, {"Class": "a"}], [], ["a", "b"]),
        ([{"quality": "good", "class": "b"}, {"class": "a"}], ["--attribute", "quality"], ["good"]),
        ([{"type": {"b": True, "a": False}}, {"type": {"b": True, "a": True}}], [], ["b", "b: a"]),  # boxes to tick
        ([{"type": "1"}, {"type": 2}], [], ["2", "tumour"]),  # what the project calls them
        ([{}, {}], [], ["cell"]),
    ],
)
def test_the_attribute_that_is_the_class(
    attributes: list[Any], flags: list[str], classes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"type": {"type": "dropdown", "options": {"1": "tumour", "2": ""}}}
    path = via(tmp_path / "in.json", *map(region, attributes), attributes=known)
    convert(capsys, "--from", "via", path, tmp_path / "out", *flags)
    assert names_in(tmp_path / "out") == classes


def test_an_attribute_that_is_not_clear_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = via(tmp_path / "in.json", region({"stain": "HE", "grade": "1"}))
    with pytest.raises(InputError, match=r"in\.json: has the attributes grade, stain; .*--attribute NAME"):
        convert(capsys, "--from", "via", path, tmp_path / "out")
    with pytest.raises(InputError, match=r"--attribute grad: .*in\.json has grade, stain; did you mean grade\?"):
        convert(capsys, "--from", "via", path, tmp_path / "out", "--attribute", "grad")
    with pytest.raises(InputError, match="--attribute: has no effect with --from labelme"):
        convert(capsys, "--from", "labelme", path, tmp_path / "out", "--attribute", "grade")


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"project": {"pid": "1"}, "metadata": {}, "config": {}},  # version 3
        {"a": {"filename": "x.png", "regions": 3}},
        {"a": {"filename": "x.png", "regions": [3]}},
        {"a": {"filename": "x.png", "regions": [{"shape_attributes": 1}]}},
        {"a": {"filename": 3, "regions": []}},
        {"a": {"filename": "x.png"}, "b": {"filename": "x.png"}},
        {"a": {"filename": "gone.png", "regions": []}},
    ],
)
def test_a_via_file_that_cannot_be_read_is_one_line(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = via(tmp_path / "in.json")
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"in\.json: "):
        convert(capsys, "--from", "via", path, tmp_path / "out")
    with pytest.raises(InputError, match="is a folder"):
        convert(capsys, "--from", "via", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_turned_picture_of_via(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = via(tmp_path / "in.json", region({}, x=1, y=35, width=5, height=10))  # as browsers show it
    save_turned(tmp_path / "x.png", PIXELS, 6)
    convert(capsys, "--from", "via", path, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out/x/image.tif"), np.rot90(PIXELS, -1))
    assert masks_of(tmp_path / "out/x")[1][35:45, 1:6].all()


# --- Supervisely -----------------------------------------------------------------------------------------------------

META = {
    "classes": [
        {"title": "tumour", "shape": "polygon", "color": "#AA0000"},
        {"title": "any", "shape": "bitmap", "color": "#00bb00"},
    ],
    "tags": [],
}


def item(kind: str, title: str = "tumour", **more: Any) -> dict[str, Any]:
    return {"id": 1, "classTitle": title, "geometryType": kind, "tags": [{"name": "t"}], **more}


def points(exterior: Any, *interior: Any) -> dict[str, Any]:
    return {"exterior": exterior, "interior": list(interior)}


def bitmap(pixels: bytes, x: int, y: int) -> dict[str, Any]:
    return {"data": base64_of(zlib.compress(pixels)), "origin": [x, y]}


def supervisely(folder: Path, *objects: Any, name: str = "x.png", **more: Any) -> Path:
    save(folder / f"ds/img/{name}", PIXELS)
    (folder / "ds/ann").mkdir(exist_ok=True)
    data = {"description": "", "tags": [], "size": {"height": 40, "width": 50}, "objects": list(objects), **more}
    (folder / f"ds/ann/{name}.json").write_text(json.dumps(data))
    (folder / "meta.json").write_text(json.dumps(META))
    return folder


def test_shapes_of_supervisely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = np.zeros((4, 6), bool)
    drawn[1, 2:] = drawn[3] = True
    see_through = np.zeros((4, 6, 4), np.uint8)
    see_through[..., 3] = drawn * 255
    objects = [
        item("polygon", points=points(corners(2, 2, 9, 9), corners(4, 4, 6, 6))),  # pixels, both ends
        item("rectangle", points=points([[19, 5], [12, 2]])),
        item("bitmap", "any", bitmap=bitmap(png(drawn), 3, 20)),
        item("bitmap", "any", bitmap=bitmap(png(see_through), 20, 20)),
        item("polygon", points=points(corners(45, 35, 60, 60))),
        item("polygon", points=points(corners(60, 60, 70, 70))),
        item("polygon", points=points([[1, 1]])),
        item("bitmap", "any", bitmap=bitmap(png(drawn & False), 3, 20)),
        item("bitmap", "any", bitmap={"origin": []}),
        item("polygon", "gone", points=points(corners(2, 2, 9, 9))),
        *(item(kind, points=points([[1, 1], [2, 2]])) for kind in ("point", "line", "cuboid", "graph")),
    ]
    folder = supervisely(tmp_path / "in", *objects)
    said = convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
    found = json.loads((tmp_path / "out/classes.json").read_text())
    assert [(entry["name"], entry["color"]) for entry in found] == [("tumour", "#aa0000"), ("any", "#00bb00")]
    wanted = painted(np.s_[2:10, 2:10], np.s_[2:6, 12:20], np.s_[35:40, 45:50])
    wanted[4:7, 4:7] = 0
    tumour, other = masks_of(tmp_path / "out/x").values()
    assert np.array_equal(tumour, wanted)
    wanted = painted()
    wanted[20:24, 3:9][drawn], wanted[20:24, 20:26][drawn] = 1, 2
    assert np.array_equal(other, wanted)
    for words in (
        "2 x polygon without a pixel",
        "2 x bitmap without a pixel",
        "1 x object of class 'gone'",
        "1 x cuboid",
    ):
        assert words in said


def test_data_sets_of_one_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = item("rectangle", points=points([[2, 2], [5, 5]]))
    folder = supervisely(tmp_path / "in", one)
    save(folder / "second/img/x.png", PIXELS)
    save(folder / "second/img/lonely.png", PIXELS)
    (folder / "second/ann").mkdir()
    (folder / "second/ann/x.png.json").write_text((folder / "ds/ann/x.png.json").read_text())
    said = convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
    assert {"ds_x", "second_x"} < {path.name for path in (tmp_path / "out").iterdir()}
    assert "1 x image without annotations" in said and "2 images, 2 cells" in said
    said = convert(capsys, "--from", "supervisely", folder / "second", tmp_path / "part")  # meta.json is above
    assert "1 image, 1 cell" in said


@pytest.mark.parametrize(
    ("objects", "more", "reason"),
    [
        ([3], {}, r"x\.png\.json: expected a list of objects"),
        ([], {"size": None}, r"x\.png\.json: the height and the width of its image must be"),
        ([], {"size": {"height": 41, "width": 50}}, r"x\.png\.json: is of 41 x 50 px, but .* is 40 x 50"),
        ([], {"size": {"height": 10**6, "width": 10**6}}, "is 1000000 x 1000000 px; more than"),
        ([item("bitmap", bitmap={"data": "eJw=", "origin": [0, 0]})], {}, r"x\.png\.json: holds a bitmap that cannot"),
        ([item("bitmap", bitmap={"data": 3, "origin": [0, 0]})], {}, r"x\.png\.json: holds a bitmap that cannot"),
        ([item("bitmap", bitmap=bitmap(b"no image", 0, 0))], {}, "a bitmap: cannot be read as an image"),
        ([item("bitmap", bitmap=bitmap(b"\0" * 10**6, 0, 0))], {}, "holds more than 73,536 bytes"),
        ([item("bitmap", bitmap=bitmap(bomb(20_000), 0, 0))], {}, "a bitmap: is 20000 x 20000 px; more than"),
    ],
)
def test_a_supervisely_file_that_cannot_be_read_is_one_line(
    objects: list[Any], more: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = supervisely(tmp_path / "in", *objects, **more)
    with pytest.raises(InputError, match=reason):
        convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_large_bitmaps_do_not_take_the_memory_of_many_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = item("bitmap", bitmap=bitmap(png(np.ones((40, 50), bool)), 0, 0))
    folder = supervisely(tmp_path / "in", *[whole] * 20)
    with pytest.raises(InputError, match=r"x\.png\.json: its objects cover the image of 40 x 50 px many times"):
        convert(capsys, "--from", "supervisely", folder, tmp_path / "out", "--max-pixels", 10_000)


def test_a_project_needs_its_classes_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = supervisely(tmp_path / "in", item("rectangle", points=points([[2, 2], [5, 5]])))
    (folder / "ds/img/x.png").unlink()
    with pytest.raises(InputError, match=r"x\.png\.json: has no image \(.*ds/img/x\.png\)"):
        convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
    for content in ("[]", '{"classes": []}', '{"classes": [{"color": "#000000"}]}'):
        (folder / "meta.json").write_text(content)
        with pytest.raises(InputError, match=r"meta\.json: "):
            convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
    (folder / "meta.json").unlink()
    with pytest.raises(InputError, match=r"meta\.json: no such file"):
        convert(capsys, "--from", "supervisely", folder, tmp_path / "out")
