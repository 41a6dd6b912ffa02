"""Ground truth from folders of masks and from COCO JSON says the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.tiff import write_image, write_mask
from src.evaluation.ground_truth import load_ground_truth, read_ground_truth
from src.evaluation.image_truth import ImageTruth
from src.evaluation.rle import encode
from src.geometry.instances import Instance


def masks() -> dict[int, np.ndarray]:
    """Two classes of a 12 x 16 image: two cells and one."""
    first, second = np.zeros((12, 16), np.int32), np.zeros((12, 16), np.int32)
    first[2:5, 3:9], first[8:11, 0:4] = 1, 2
    second[6:12, 10:16] = 7
    return {1: first, 2: second}


def write_folder(root: Path, name: str, with_image: bool = True, **changed: np.ndarray) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for class_id, mask in masks().items():
        write_mask(folder / f"class{class_id}.tif", changed.get(f"class{class_id}", mask))
    if with_image:
        write_image(folder / "image.tif", np.zeros((12, 16, 3), np.uint8))
    return folder


def write_id_map(path: Path, *entries: tuple[str, int, int, int]) -> Path:
    keys = ("file_name", "id", "height", "width")
    path.write_text(json.dumps([dict(zip(keys, entry, strict=True)) for entry in entries]))
    return path


def coco(**changes: Any) -> dict[str, Any]:
    """A COCO file of one image with one cell; ``changes`` go into its annotation."""
    annotation = {"id": 1, "image_id": 9, "category_id": 2, "iscrowd": 0, **changes}
    return {
        "images": [{"id": 9, "file_name": "images/a.tif", "height": 6, "width": 8}],
        "annotations": [annotation],
        "categories": [],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def boxes(truth: ImageTruth) -> list[tuple[int, int, int, int, int]]:
    return [(item.class_id, item.top, item.left, item.bottom, item.right) for item in truth.instances]


EXPECTED = [(1, 2, 3, 5, 9), (1, 8, 0, 11, 4), (2, 6, 10, 12, 16)]


@pytest.mark.parametrize("with_image", [True, False])
def test_a_folder_is_numbered_by_name(tmp_path: Path, with_image: bool) -> None:
    for name in ("b", "a"):
        write_folder(tmp_path / "gt", name, with_image)
    truths = load_ground_truth(tmp_path / "gt", 4)
    assert [(item.id, item.name, item.file_name) for item in truths] == [(1, "a", "a.tif"), (2, "b", "b.tif")]
    assert all((item.height, item.width) == (12, 16) and boxes(item) == EXPECTED for item in truths)


def test_names_choose_and_renumber(tmp_path: Path) -> None:
    for name in "abc":
        write_folder(tmp_path, name)
    assert [(item.id, item.name) for item in load_ground_truth(tmp_path, 4, names=["c", "b"])] == [(1, "b"), (2, "c")]
    with pytest.raises(InputError, match="no ground truth for d"):
        load_ground_truth(tmp_path, 4, names=["d"])
    with pytest.raises(InputError, match="no image is left to score"):
        load_ground_truth(tmp_path, 4, names=[])


def test_the_id_map_chooses_and_gives_ids(tmp_path: Path) -> None:
    for name in "abc":
        write_folder(tmp_path / "gt", name, with_image=False)
    id_map = write_id_map(tmp_path / "ids.json", ("c.tif", 5, 12, 16), ("a.tif", 8, 12, 16))
    truths = load_ground_truth(tmp_path / "gt", 4, id_map)
    assert [(item.id, item.name) for item in truths] == [(5, "c"), (8, "a")]
    assert [item.id for item in load_ground_truth(tmp_path / "gt", 4, id_map, names=["a"])] == [8]
    with pytest.raises(InputError, match=r"ids\.json: has no id for b"):
        load_ground_truth(tmp_path / "gt", 4, id_map, names=["a", "b"])


def test_the_id_map_must_fit(tmp_path: Path) -> None:
    write_folder(tmp_path / "gt", "a")
    with pytest.raises(InputError, match="no ground truth for x"):
        load_ground_truth(tmp_path / "gt", 4, write_id_map(tmp_path / "x.json", ("x.tif", 5, 12, 16)))
    with pytest.raises(InputError, match=r"y\.json: says that a\.tif is 16 x 12 px"):
        load_ground_truth(tmp_path / "gt", 4, write_id_map(tmp_path / "y.json", ("a.tif", 5, 16, 12)))


def test_an_image_without_masks_takes_its_size_from_the_id_map(tmp_path: Path) -> None:
    (tmp_path / "gt" / "empty").mkdir(parents=True)
    with pytest.raises(InputError, match="its size is unknown; pass --id-map"):
        load_ground_truth(tmp_path / "gt", 4)
    truth = load_ground_truth(tmp_path / "gt", 4, write_id_map(tmp_path / "ids.json", ("empty.tif", 5, 30, 40)))[0]
    assert (truth.height, truth.width, truth.instances) == (30, 40, [])


def test_bad_masks_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "size", "a", class2=np.ones((5, 5), np.int32))
    with pytest.raises(InputError, match=r"class2\.tif: is 5 x 5 px, but its image is 12 x 16"):
        load_ground_truth(tmp_path / "size", 4)
    write_folder(tmp_path / "class", "a", with_image=False)
    with pytest.raises(InputError, match=r"class2\.tif"):
        load_ground_truth(tmp_path / "class", 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no folders of masks"):
        load_ground_truth(tmp_path / "none", 4)
    with pytest.raises(InputError, match="missing: cannot be read"):
        load_ground_truth(tmp_path / "missing", 4)


def test_rle_lists_and_polygons_of_a_coco_file_give_the_same_object(tmp_path: Path) -> None:
    cell = Instance(2, 1.0, 1, 2, np.ones((3, 4), bool))
    lists = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 14]}
    polygon = [[2, 1, 6, 1, 6, 4, 2, 4]]
    for segmentation in (encode([cell], 6, 8)[0], lists, polygon):
        truths = load_ground_truth(write(tmp_path / "gt.json", coco(segmentation=segmentation)), 4)
        assert [(item.id, item.name, item.height, item.width) for item in truths] == [(9, "a", 6, 8)]
        assert boxes(truths[0]) == [(2, 1, 2, 4, 6)]
        assert truths[0].instances[0].mask.all()


def test_the_id_map_renumbers_a_coco_file(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.json", coco(segmentation={"size": [6, 8], "counts": [13, 3, 32]}))
    truths = load_ground_truth(path, 4, write_id_map(tmp_path / "ids.json", ("a.tif", 70, 6, 8)))
    assert [(item.id, len(item.instances)) for item in truths] == [(70, 1)]
    with pytest.raises(InputError, match="no ground truth for z"):
        load_ground_truth(path, 4, names=["z"])


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"segmentation": {"size": [6, 8], "counts": [13, 3]}}, "do not sum"),
        ({"segmentation": {"size": [6, 8], "counts": [13, -3, 38]}}, "at least 0"),
        ({"segmentation": {"size": [6, 8], "counts": []}}, "not empty"),
        ({"segmentation": {"size": [6, 8], "counts": "`"}}, "cut off"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, "neither polygons nor an RLE"),
        ({"segmentation": 7}, "neither polygons nor an RLE"),
        ({"image_id": 1}, "image_id 1 is not among"),
        ({"category_id": 5}, "category_id 5 is not in 1..4"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    valid = {"segmentation": {"size": [6, 8], "counts": [48]}}
    path = write(tmp_path / "gt.json", coco(**{**valid, **change}))
    with pytest.raises(InputError, match=rf"gt\.json: annotation 0: .*{reason}"):
        load_ground_truth(path, 4)


@pytest.mark.parametrize(
    "image",
    [
        {"file_name": "a.tif", "height": 6, "width": 8},
        {"id": "nine", "file_name": "a.tif", "height": 6, "width": 8},
        {"id": 9, "file_name": "a.tif", "height": 0, "width": 8},
        {"id": 9, "file_name": "a.tif", "height": 2**40, "width": 2**40},
        {"id": 9, "file_name": None, "height": 6, "width": 8},
        "a.tif",
    ],
)
def test_a_malformed_image_is_refused(tmp_path: Path, image: Any) -> None:
    path = write(tmp_path / "gt.json", {"images": [image], "annotations": []})
    with pytest.raises(InputError, match=r"gt\.json: "):
        load_ground_truth(path, 4)


def test_a_coco_file_needs_images_of_different_names(tmp_path: Path) -> None:
    for images in ([], coco()["images"] * 2):
        path = write(tmp_path / "gt.json", {"images": images, "annotations": []})
        with pytest.raises(InputError, match="needs images"):
            load_ground_truth(path, 4)
    with pytest.raises(InputError, match="lists of images and annotations"):
        load_ground_truth(write(tmp_path / "gt.json", {"images": []}), 4)


def test_what_would_crash_the_library_below_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    polygon = [0, 0, 5_000_000, 0, 5_000_000, 1]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [polygon]}
    for width in (3_000_000, 536_870_911):
        image = {"id": 1, "file_name": "a.tif", "height": 1, "width": width}
        (tmp_path / "gt.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
        if width == 3_000_000:
            assert load_ground_truth(tmp_path / "gt.json", 1)[0].instances == []
            assert "1 x annotation whose polygons" in capsys.readouterr().err
            continue
        with pytest.raises(InputError, match=r"is too large \(1 x 536870911 px; see --max-pixels"):
            load_ground_truth(tmp_path / "gt.json", 1)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": ["6", 8.0], "counts": [13.0, "3", 3, 3, 3, 3, 3, 3, 14]},
        {"size": [6.0, "8"], "counts": encode([Instance(2, 1.0, 1, 2, np.ones((3, 4), bool))], 6, 8)[0]["counts"]},
        [["2", "1.0", 6, "1", "6", 4, "2", "4"]],
    ],
)
def test_numbers_as_text_or_with_a_point_are_numbers(tmp_path: Path, segmentation: Any) -> None:
    data = coco(segmentation=segmentation, image_id="9", category_id=2.0)
    data["images"][0].update(id=9.0, height="6", width=8.0)
    (truth,) = load_ground_truth(write(tmp_path / "gt.json", data), 4)
    assert (truth.id, truth.height, truth.width, boxes(truth)) == (9, 6, 8, [(2, 1, 2, 4, 6)])


@pytest.mark.parametrize("counts", [[13.5, 34.5], ["x", 48], [True, 47]])
def test_counts_that_are_not_whole_are_refused(tmp_path: Path, counts: list[Any]) -> None:
    data = coco(segmentation={"size": [6, 8], "counts": counts})
    with pytest.raises(InputError, match=r"annotation 0: .*counts"):
        load_ground_truth(write(tmp_path / "gt.json", data), 4)


def test_degenerate_polygons_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = coco(segmentation=[[2, 1, 6, 1, 6, 4, 2, 4], [1, 1, 2, 2]])
    unusable = [[1, 1, 2, 2, 3, 3, 4]], [[0, 0, 4, 4, 1e12, 0]], [[0, 0, 4, 4, float("nan"), 0]]
    for polygons in ([[1, 1, 2, 2]], [[]], [[3, 3, 3, 3, 3, 3]], *unusable, None, []):  # the third is a point
        data["annotations"].append({**data["annotations"][0], "segmentation": polygons})
    (truth,) = load_ground_truth(write(tmp_path / "gt.json", data), 4)
    assert boxes(truth) == [(2, 1, 2, 4, 6)]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "gt.json" in said and said.count("2 x") == 2 and said.count("1 x") == 5


@pytest.mark.parametrize("missing", [{}, {"height": 0, "width": 0}, {"height": None, "width": "0"}])
def test_sizes_that_a_coco_file_lacks_come_from_elsewhere(tmp_path: Path, missing: dict[str, Any]) -> None:
    polygon = coco(segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])
    polygon["images"] = [{"id": 9, "file_name": "images/a.png", **missing}]
    path = write(tmp_path / "gt.json", polygon)
    with pytest.raises(InputError, match=r"gt\.json: .*images/a\.png.*--id-map"):
        load_ground_truth(path, 4)
    of_results = read_ground_truth(path, 4, sizes={9: (6, 8)}).images
    id_map = write_id_map(tmp_path / "ids.json", ("a.tif", 3, 6, 8))
    for number, (truth,) in ((9, of_results), (3, load_ground_truth(path, 4, id_map))):
        assert (truth.id, truth.height, truth.width, boxes(truth)) == (number, 6, 8, [(2, 1, 2, 4, 6)])
    polygon["images"].append({"id": 10, "file_name": "other.png"})  # which the id map does not name
    polygon["annotations"].append({**polygon["annotations"][0], "image_id": 10})
    assert [truth.id for truth in load_ground_truth(write(path, polygon), 4, id_map)] == [3]
    rle = coco(segmentation={"size": [6, 8], "counts": [48]})
    rle["images"] = polygon["images"][:1]
    (truth,) = load_ground_truth(write(path, rle), 4)
    assert (truth.height, truth.width) == (6, 8)


def test_names_of_a_coco_file_match_as_the_import_writes_them(tmp_path: Path) -> None:
    data = coco(segmentation={"size": [6, 8], "counts": [13, 3, 32]})
    names = ["one/x.png", "two/x.png", "images/Y\u00e9.JPG", "z.ome.tif"]
    data["images"] = [{"id": n, "file_name": name, "height": 6, "width": 8} for n, name in enumerate(names, start=9)]
    path = write(tmp_path / "gt.json", data)
    listed = ["two_x.tif", "z.tif", "ye\u0301.tif", "one_x.tif"]
    id_map = write_id_map(tmp_path / "ids.json", *((name, n, 6, 8) for n, name in enumerate(listed)))
    truths = load_ground_truth(path, 4, id_map)
    assert [(truth.id, truth.file_name, len(truth.instances)) for truth in truths] == [
        (0, "two_x.tif", 0), (1, "z.tif", 0), (2, "ye\u0301.tif", 0), (3, "one_x.tif", 1),
    ]  # fmt: skip
    assert [truth.id for truth in load_ground_truth(path, 4, names=["two_x", "z.ome.tif"])] == [10, 12]
    with pytest.raises(InputError, match=r"gt\.json: has no ground truth for x"):
        load_ground_truth(path, 4, names=["x"])


def test_folders_match_names_of_another_case_or_ending(tmp_path: Path) -> None:
    for name in ("b", "A\u00e9"):
        write_folder(tmp_path / "gt", name)
    id_map = write_id_map(tmp_path / "ids.json", ("B.png", 5, 12, 16), ("ae\u0301.tif", 6, 12, 16))
    truths = load_ground_truth(tmp_path / "gt", 4, id_map, names=["AE\u0301", "b.png"])
    assert [(truth.id, boxes(truth)) for truth in truths] == [(5, EXPECTED), (6, EXPECTED)]
    truths = load_ground_truth(tmp_path / "gt", 4, names=["b.jpg", "a\u00e9"])
    assert [(truth.id, truth.name) for truth in truths] == [(1, "A\u00e9"), (2, "b")]


def test_an_image_of_any_case_tells_the_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_image(tmp_path / "a/IMAGE.TIF", np.zeros((12, 16, 3), np.uint8))
    (truth,) = load_ground_truth(tmp_path, 4)
    assert (truth.height, truth.width, truth.instances) == (12, 16, [])
