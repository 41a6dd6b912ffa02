"""Files as people have them: damaged, misnamed, in other folders, with strange neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from src.common.errors import InputError
from src.data.tiff import read_image
from tests.formats.test_conversion import (
    PIXELS,
    XML,
    A,
    B,
    annotation,
    box,
    coco_file,
    convert,
    labels,
    masks_of,
    names_in,
    region,
    save,
    write_coco,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("fault", ["corrupt", "empty"])
def test_an_import_that_fails_leaves_a_filled_folder_as_it_was(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "xy":
        save(tmp_path / f"in/{name}.png", PIXELS)
        save(tmp_path / f"in/{name}_masks.png", labels(A, B))
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--rectangles", 0)
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force", "--rectangles", 0)
    before = contents(tmp_path / "out")
    for name in "xy":
        save(tmp_path / f"in/{name}_masks.png", labels())
    if fault == "corrupt":
        (tmp_path / "in/y_masks.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"y_masks\.png" if fault == "corrupt" else "holds no cells"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force")
    assert contents(tmp_path / "out") == before and not list(tmp_path.glob("*/.*"))


def test_force_replaces_images_whole_and_keeps_what_is_foreign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    save(tmp_path / "in/x_masks.png", labels(A))
    for name in ("out/x/class2.png", "out/x/notes.txt", "out/z/image.tif", "out/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force")
    found = contents(tmp_path / "out")
    assert sorted(found) == [
        "classes.json", "readme.md", "x/class1.tif", "x/image.tif", "x/notes.txt", "z/image.tif"
    ]  # fmt: skip
    (tmp_path / "out/x/image.tif").unlink()
    (tmp_path / "out/x/image.tif").mkdir()
    with pytest.raises(InputError, match=r"out/x/image\.tif: is a folder"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force")


@pytest.mark.parametrize(("kind", "name"), [("labels", "in/x_masks.png"), ("dsb2018", "in/x/masks/a.png")])
def test_a_jpeg_of_any_name_is_no_mask(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / ("in/x.png" if kind == "labels" else "in/x/images/x.png"), PIXELS)
    for path in (tmp_path / name, (tmp_path / name).with_suffix(".jpg")):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((labels(A) * 255).astype(np.uint8)).save(path, "JPEG")
        with pytest.raises(InputError, match=rf"{path.name}: JPEG"):
            convert(capsys, "--from", kind, tmp_path / "in", tmp_path / "out")
        path.unlink()


def drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str], *regions: str) -> np.ndarray:
    """The mask of regions in one layer."""
    layer = '<Annotation><Attributes><Attribute Name="Lymphocyte"/></Attributes><Regions>{}</Regions></Annotation>'
    save(tmp_path / "in/a.tif", PIXELS)
    (tmp_path / "in/a.xml").write_text(XML.format(annotations=layer.format("".join(regions))))
    convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "out")
    return masks_of(tmp_path / "out/a")[2]


def test_a_hole_is_cut_from_the_region_around_it_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring, hole = region(box(2, 2, 30, 30)), region(box(8, 8, 24, 24), NegativeROA="true")
    inner, inner_hole = region(box(10, 10, 20, 20)), region(box(13, 13, 16, 16), NegativeROA=1)
    beside = region(box(22, 2, 40, 12))  # overlaps the ring and its hole
    mask = drawn(tmp_path, capsys, inner_hole, ring, hole, inner, beside)
    wanted = np.zeros((40, 50), np.int32)
    wanted[2:31, 2:31], wanted[8:25, 8:25] = 1, 0
    wanted[10:21, 10:21], wanted[13:17, 13:17] = 2, 0
    wanted[2:13, 22:41] = 3
    assert np.array_equal(mask, wanted)


def test_a_hole_across_an_edge_is_of_the_region_that_holds_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = drawn(
        tmp_path,
        capsys,
        region(box(2, 2, 20, 20)),
        region(box(21, 2, 40, 20)),
        region(box(10, 5, 22, 9), NegativeROA=1),
    )
    assert not mask[5:10, 10:21].any() and (mask[2:21, 21:41] == 2).all()


def test_what_is_passed_over_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "labels/x.png", PIXELS)
    save(tmp_path / "labels/x_masks.png", labels(A))
    for name in ("x_seg.npy", "y.jp2", "y.gif", "Thumbs.db", "x.png~", "x.png:Zone.Identifier"):
        (tmp_path / "labels" / name).write_text("")
    said = convert(capsys, "--from", "labels", tmp_path / "labels", tmp_path / "a")
    assert "3 files not read" in said and "x_seg.npy" in said
    save(tmp_path / "consep/Images/a.png", PIXELS)
    save(tmp_path / "consep/Images/b.png", PIXELS)
    (tmp_path / "consep/Labels").mkdir()
    savemat(tmp_path / "consep/Labels/a.mat", {"inst_map": labels(A).astype(float), "inst_type": [[2.0]]})
    said = convert(capsys, "--from", "consep", tmp_path / "consep", tmp_path / "b")
    assert "1 x image without a .mat" in said and "consep/Images/b.png" in said
    drawn(tmp_path, capsys, region(box(2, 2, 9, 9)))
    save(tmp_path / "in/b.tif", PIXELS)
    said = convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "c")
    assert "1 x image without an .xml" in said and "in/b.tif" in said
    path = write_coco(tmp_path / "coco/cells.json", {"x.png": tmp_path / "coco/x.png"})
    save(tmp_path / "coco/y.png", PIXELS)
    said = convert(capsys, "--from", "coco", path, tmp_path / "d")
    assert "1 x image beside these" in said and "coco/y.png" in said


def test_many_nuclei_in_one_mask_are_said_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x/images/x.png", PIXELS)
    save(tmp_path / "in/x/Masks/a.png", (labels(A, B) > 0).astype(np.uint8) * 255)
    said = convert(capsys, "--from", "dsb2018", tmp_path / "in", tmp_path / "one")
    assert "1 x cell in several pieces" in said and "--split-pieces" in said and "1 image, 1 cell;" in said
    said = convert(capsys, "--from", "dsb2018", tmp_path / "in", tmp_path / "two", "--split-pieces")
    assert "--split-pieces" not in said and np.array_equal(masks_of(tmp_path / "two/x")[1], labels(A, B))


TURNED = {"extratags": [(274, "H", 1, 6, False)], "metadata": None}


def test_tags_of_orientation_are_said_of_slides_and_of_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(tmp_path, capsys, region(box(2, 2, 9, 9)))
    tifffile.imwrite(tmp_path / "in/a.tif", PIXELS, photometric="rgb", **TURNED)
    said = convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "a")
    assert f"warning: {tmp_path}/in/a.tif has a tag of orientation" in said
    save(tmp_path / "labels/x.png", PIXELS)
    tifffile.imwrite(tmp_path / "labels/x_masks.tif", labels(A), **TURNED)
    said = convert(capsys, "--from", "labels", tmp_path / "labels", tmp_path / "b")
    assert f"warning: {tmp_path}/labels/x_masks.tif has a tag of orientation" in said


def test_a_root_of_the_same_name_or_another_case_is_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (root, name, above) in enumerate([("cell", "cell", "cell"), ("Cells-XyZ", "cell", "cells-xyz")]):
        categories = [{"id": 0, "name": root, "supercategory": "none"}]
        categories.append({"id": 3, "name": name, "supercategory": above})
        path = coco_file(tmp_path / "x.json", categories=categories)
        said = convert(capsys, "--from", "coco", path, tmp_path / f"out{number}")
        assert names_in(tmp_path / f"out{number}") == ["cell"] and f"1 x category {root!r}" in said


GOOD = [5, 4, 15, 4, 15, 12, 5, 12]


@pytest.mark.parametrize(
    "bad",
    [
        [1, 2, 3, 4, 5, 6, 7], None, [1, 2, 3, 4, 5, None], [1, 2, 3, 4, 5, float("nan")], list("12345x"),
        [1, 2, 3, 4, 5, 1e9], [1, 2, 3, 4, 5, float("inf")], [1, 2, 3, 4, 5, -(10**400)], {}, [], [[1, 2], [3, 4]], 7,
    ],
)  # fmt: skip
def test_a_polygon_that_cannot_be_drawn_costs_only_itself(
    bad: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [GOOD, bad]}
    path = coco_file(tmp_path / "x.json", annotations=[cell, {**cell, "id": 2, "segmentation": [bad, bad]}])
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A))
    assert "1 x polygon" in said and "1 x annotation whose polygons" in said


@pytest.mark.parametrize("form", [[GOOD], GOOD, [np.reshape(GOOD, (4, 2)).tolist()], np.reshape(GOOD, (4, 2)).tolist()])
def test_polygons_are_read_by_numbers_or_points(form: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": form}
    convert(capsys, "--from", "coco", coco_file(tmp_path / "x.json", annotations=[cell]), tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A))


def folders_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_one_name_in_two_folders_is_two_label_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, window in (("a", A), ("b", B)):
        save(tmp_path / f"in/{folder}/Images/x.png", PIXELS)
        save(tmp_path / f"in/{folder}/Masks/x.png", labels(window))
    save(tmp_path / "in/a_x.png", PIXELS)
    save(tmp_path / "in/a_x_masks.png", labels(A, B))
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    assert "2 images got a longer name" in said and folders_in(tmp_path / "out") == {"a_x", "a_x_2", "b_x"}
    assert np.array_equal(masks_of(tmp_path / "out/b_x")[1], labels(B))
    assert np.array_equal(masks_of(tmp_path / "out/a_x_2")[1], labels(A))
    assert np.array_equal(masks_of(tmp_path / "out/a_x")[1], labels(A, B))


def test_one_name_with_two_endings_is_two_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / "in" / name for name in ("x.png", "x.jpg", "a/y.png", "b/y.png", "a_y.png")}
    said = convert(capsys, "--from", "coco", write_coco(tmp_path / "in/cells.json", files), tmp_path / "out")
    assert folders_in(tmp_path / "out") == {"x_png", "x_jpg", "a_y", "a_y_png", "b_y"} and "4 images got" in said


def test_no_label_image_serves_two_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/x.png", "b/x.png"):
        save(tmp_path / "in" / name, PIXELS)
    save(tmp_path / "in/a/x_masks.png", labels(A))
    with pytest.raises(InputError, match=r"b/x\.png: has no label image"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("file_name", "place"),
    [
        ("../images/x.png", "in/images/x.png"),
        ("..\\images\\x.png", "in/images/x.png"),
        ("./a/../x.png", "in/annotations/x.png"),
        ("x.png", "in/train2017/x.png"),
        ("x.png", "in/annotations/very/deep/x.png"),
        ("Train/x.png", "in/train/x.png"),
        ("Ko\u0308rper/x.png", "in/K\u00f6rper/X.PNG"),
    ],
)
def test_images_are_found_below_the_folder_above(
    file_name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coco(tmp_path / "in/annotations/cells.json", {file_name: tmp_path / place})
    convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert folders_in(tmp_path / "out") == {"x"}


def test_the_file_that_a_way_up_leads_to_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/annotations/cells.json", {"../images/x.png": tmp_path / "in/images/x.png"})
    save(tmp_path / "in/annotations/images/x.png", PIXELS[::-1])
    convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out/x/image.tif"), PIXELS)


def test_two_files_that_may_be_meant_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/annotations/cells.json", {"x.png": tmp_path / "in/a/x.png"})
    save(tmp_path / "in/b/x.png", PIXELS)
    with pytest.raises(InputError, match=r"cells\.json: names x\.png, of which .*a/x\.png and .*b/x\.png"):
        convert(capsys, "--from", "coco", path, tmp_path / "out")
    convert(capsys, "--from", "coco", path, tmp_path / "out", "--images", tmp_path / "in/b")


def test_files_of_consep_are_matched_in_any_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/images/TRAIN_1.PNG", PIXELS)
    (tmp_path / "in/labels").mkdir()
    savemat(tmp_path / "in/labels/train_1.mat", {"inst_map": labels(A).astype(float), "inst_type": [[2.0]]})
    convert(capsys, "--from", "consep", tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/train_1")[2], labels(A))


def test_what_there_was_instead_of_cells_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = json.loads(coco_file(tmp_path / "coco/x.json").read_text())["annotations"]
    coco_file(tmp_path / "coco/x.json", annotations=[{**cells[0], "iscrowd": 1}])
    given = ["--from", "coco", tmp_path / "coco/x.json", tmp_path / "out", "--crowds", "ignore"]
    with pytest.raises(InputError, match=r"holds no cells in its 1 image; 1 region to ignore; .*--crowds"):
        convert(capsys, *given)
    save(tmp_path / "in/a.tif", PIXELS)
    (tmp_path / "in/a.xml").write_text(XML.format(annotations=annotation("Ambiguous", np.array(box(2, 2, 9, 9)))))
    with pytest.raises(InputError, match=r"holds no cells in its 1 image; 1 region to ignore"):
        convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "out")


def test_an_image_of_another_part_of_the_data_set_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco_file(save_folder(tmp_path / "set/valid") / "_annotations.coco.json")
    (path.parent / "x.png").rename(save_folder(tmp_path / "set/train") / "x.png")
    (tmp_path / "set/train/_annotations.coco.json").write_text("{}")
    with pytest.raises(InputError, match=r"x\.png.*--images"):
        convert(capsys, "--from", "coco", path, tmp_path / "out")
    (tmp_path / "set/train/_annotations.coco.json").unlink()
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert "1 image, such as" in said and "train/x.png" in said


def save_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("tag", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["rle", "far", "near"])
def test_labels_without_a_size_tell_whether_a_picture_is_turned(
    tag: int, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture is stored as 40 x 50 px and shown as 50 x 40."""
    shapes = {"rle": {"size": [40, 50], "counts": [0, 5, 1995]}, "near": [[5, 4, 15, 4, 15, 12, 5, 12]]}
    shapes["far"] = [[44, 4, 49, 4, 49, 12, 44, 12]]  # beyond the right edge of what is shown
    cell = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": shapes[form]}
    path = coco_file(tmp_path / "x.json", images=[{"id": 7, "file_name": "x.png"}], annotations=[cell])
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    image = read_image(tmp_path / "out/x/image.tif")
    assert image.shape[:2] == ((50, 40) if form == "near" else (40, 50))
    assert ("--orientation" in said) == (form == "near") and masks_of(tmp_path / "out/x")[1].shape == image.shape[:2]
    assert masks_of(tmp_path / "out/x")[1].any() and "without a pixel" not in said
