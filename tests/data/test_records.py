import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from src.data.id_map import ImageId, read_id_map, write_id_map
from src.data.images_to_predict import TestImage, find_test_images, unread_test_files
from src.data.orientation import turned_warnings
from src.data.records import ImageFiles, Record
from src.data.splits import part_names, read_groups, read_split, select
from src.data.tiff import write_image, write_mask
from tests.helpers import find_records, write_dataset

DATA = Path(__file__).parents[3] / "shared/data"


def add_image(path: Path, height: int = 8, width: int = 9) -> None:
    write_image(path, np.zeros((height, width, 3), np.uint8))


def add_record(data: Path, name: str, classes: tuple[int, ...] = (1,), height: int = 8, width: int = 9) -> Path:
    add_image(data / name / "image.tif", height, width)
    for class_id in classes:
        write_mask(data / name / f"class{class_id}.tif", np.ones((height, width), np.int32))
    return data / name


def save(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def check_refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# The training layout


def test_records_are_found_sorted_with_their_masks(tmp_path: Path) -> None:
    b, a = add_record(tmp_path, "b", (3, 1)), add_record(tmp_path, "a", (), 4, 5)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("stray")
    (b / "preview.png").write_text("stray")
    masks = {1: "class1.tif", 3: "class3.tif"}
    assert find_records(tmp_path, 4) == [
        Record(ImageFiles(a, "image.tif", {}), 4, 5),
        Record(ImageFiles(b, "image.tif", masks, unread=("preview.png",)), 8, 9),
    ]


def test_the_longer_suffix_is_accepted(tmp_path: Path) -> None:
    folder = add_record(tmp_path, "a", (1, 2))
    (folder / "image.tif").rename(folder / "image.tiff")
    (folder / "class2.tif").rename(folder / "Class2.TIF")
    assert find_records(tmp_path, 4)[0].masks == {1: folder / "class1.tif", 2: folder / "Class2.TIF"}


def test_a_missing_folder_says_where_the_data_belong(tmp_path: Path) -> None:
    words = ("./hw3-data-release/train/<name>/image.tif", "python -m src.sample --out DIR", "DIR/train")
    check_refused(lambda: find_records(tmp_path / "no", 4), f"{tmp_path}/no: no such folder", *words)
    check_refused(lambda: find_test_images(tmp_path / "no"), f"{tmp_path}/no: no such folder", "DIR/test_release")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stray.txt").touch()
    check_refused(lambda: find_records(tmp_path, 4), f"{tmp_path}: holds no image folders")
    check_refused(lambda: find_test_images(tmp_path), f"{tmp_path}: holds no test images")
    check_refused(lambda: find_records(tmp_path / "stray.txt", 4), "stray.txt: cannot be read as a folder")


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    (add_record(tmp_path, "a") / "image.tif").unlink()
    check_refused(lambda: find_records(tmp_path, 4), f"{tmp_path}/a: has no image.tif")


def test_the_folder_above_the_images_is_recognised(tmp_path: Path) -> None:
    add_record(tmp_path / "train", "a")
    check_refused(lambda: find_records(tmp_path, 4), f"{tmp_path}/train: has no image.tif", "did you mean")


def test_two_images_or_two_masks_of_a_class_are_refused(tmp_path: Path) -> None:
    folder = add_record(tmp_path, "a")
    add_image(folder / "image.tiff")
    check_refused(lambda: find_records(tmp_path, 4), f"{folder}: has two images", "image.tif", "image.tiff")
    (folder / "image.tiff").unlink()
    (folder / "class01.tif").touch()
    check_refused(lambda: find_records(tmp_path, 4), "class1.tif: is a second mask of class 1 beside class01.tif")


@pytest.mark.parametrize("class_id", [0, 5, 12])
def test_a_mask_of_an_unknown_class_is_refused(tmp_path: Path, class_id: int) -> None:
    folder = add_record(tmp_path, "a", (1, class_id))
    check_refused(lambda: find_records(tmp_path, 4), f"{folder}/class{class_id}.tif", "1 to 4", "--num-classes")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = add_record(tmp_path, "a")
    write_mask(folder / "class2.tif", np.ones((9, 8), np.int32))
    reason = f"{folder}/class2.tif: is 9 x 8 px, but its image is 8 x 9 px"
    check_refused(lambda: find_records(tmp_path, 4), reason)
    assert set(find_records(tmp_path, 4, check_masks=False)[0].masks) == {1, 2}


def test_an_rgb_mask_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    folder = add_record(tmp_path, "a")
    add_image(folder / "class2.tif")
    check_refused(lambda: find_records(tmp_path, 4), f"{folder}/class2.tif: has 3 channels")
    (folder / "class2.tif").write_text("text")
    check_refused(lambda: find_records(tmp_path, 4), f"{folder}/class2.tif: cannot be read")
    tifffile.imwrite(folder / "image.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    check_refused(lambda: find_records(tmp_path, 4), f"{folder}/image.tif: has several pages or planes")


# The id map


def test_an_id_map_is_read_back(tmp_path: Path) -> None:
    ids = [ImageId("b.tif", 7, 8, 9), ImageId("a.x.tif", -1, 1, 1)]
    write_id_map(tmp_path / "ids.json", ids)
    assert read_id_map(tmp_path / "ids.json") == ids
    assert [entry.name for entry in ids] == ["b", "a.x"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": True}, "id of a.tif must be an integer, got True"),
        ({"id": "one"}, "must be an integer"),
        ({"id": 1.5}, "must be an integer"),
        ({"height": 0}, "positive integers"),
        ({"width": 2.5}, "positive integers"),
        ({"width": None}, "positive integers"),
        ({"file_name": "../a.tif"}, "not a plain file name"),
        ({"file_name": "/a.tif"}, "not a plain file name"),
        ({"file_name": "x\\a.tif"}, "not a plain file name"),
        ({"file_name": "a\0.tif"}, "not a plain file name"),
        ({"file_name": ".."}, "not a plain file name"),
        ({"file_name": ""}, "not a plain file name"),
        ({"file_name": 3}, "not a plain file name"),
        ({"file_name": "b.tif"}, "file_name b occurs twice"),
        ({"id": 2}, "id 2 occurs twice"),
    ],
)
def test_a_wrong_id_map_is_refused(tmp_path: Path, change: dict, reason: str) -> None:
    entries = [
        {"file_name": "a.tif", "id": 1, "height": 8, "width": 9, **change},
        {"file_name": "b.tif", "id": 2, "height": 8, "width": 9},
    ]
    path = save(tmp_path / "ids.json", entries)
    check_refused(lambda: read_id_map(path), f"{path}: ", reason)


@pytest.mark.parametrize("value", [[], {}, {"a": 1}, [1], [{"file_name": "a.tif", "id": 1}], "x", None])
def test_an_id_map_of_another_form_is_refused(tmp_path: Path, value: Any) -> None:
    path = save(tmp_path / "ids.json", value)
    check_refused(lambda: read_id_map(path), f"{path}: ", "file_name, id, height and width")


# Test images


@pytest.fixture
def test_dir(tmp_path: Path) -> Path:
    for name in ("b", "a", "c.d"):
        add_image(tmp_path / f"test/{name}.tif")
    (tmp_path / "test/readme.txt").touch()
    return tmp_path / "test"


def id_map(folder: Path, names: str, height: int = 8) -> Path:
    entries = [
        {"file_name": f"{name}.tif", "id": 10 - i, "height": height, "width": 9} for i, name in enumerate(names.split())
    ]
    return save(folder.parent / "ids.json", entries)


def test_without_an_id_map_ids_follow_the_names(test_dir: Path) -> None:
    names = ["a", "b", "c.d"]
    assert find_test_images(test_dir) == [
        TestImage(test_dir / f"{name}.tif", ImageId(f"{name}.tif", number, 8, 9))
        for number, name in enumerate(names, 1)
    ]
    assert [image.entry.id for image in find_test_images(test_dir, names=["c.d", "b"])] == [1, 2]


def test_ids_come_from_the_id_map(test_dir: Path) -> None:
    images = find_test_images(test_dir, id_map(test_dir, "b c.d a"))
    assert [(image.image.name, image.entry.id) for image in images] == [("a.tif", 8), ("b.tif", 10), ("c.d.tif", 9)]


def test_a_written_id_map_fits_the_same_folder_in_both_layouts(tmp_path: Path) -> None:
    add_image(tmp_path / "flat/a.tiff")
    add_record(tmp_path / "layout", "a")
    for folder in (tmp_path / "flat", tmp_path / "layout"):
        images = find_test_images(folder)
        assert images[0].entry.file_name == "a.tif"
        write_id_map(tmp_path / "ids.json", [image.entry for image in images])
        assert find_test_images(folder, tmp_path / "ids.json") == images


def test_images_and_ids_must_fit(test_dir: Path) -> None:
    path = id_map(test_dir, "a b")
    check_refused(lambda: find_test_images(test_dir, path), f"{test_dir}/c.d.tif: has no id in {path}")
    path = id_map(test_dir, "a b c.d e")
    check_refused(lambda: find_test_images(test_dir, path), f"{path}: names e.tif, which is missing in {test_dir}")
    path = id_map(test_dir, "a b c.d", height=7)
    check_refused(lambda: find_test_images(test_dir, path), f"{test_dir}/a.tif: is 8 x 9 px, but {path} says 7 x 9")


def test_names_choose_images_and_their_ids(test_dir: Path) -> None:
    images = find_test_images(test_dir, id_map(test_dir, "b a missing"), names=["b"])
    assert [(image.entry.name, image.entry.id) for image in images] == [("b", 10)]
    check_refused(lambda: find_test_images(test_dir, names=["bb"]), f"{test_dir}: has no image bb", "did you mean b")


def test_the_training_layout_serves_as_test_images(tmp_path: Path) -> None:
    add_record(tmp_path, "b")
    add_record(tmp_path, "a", height=4)
    assert [(image.image, image.entry) for image in find_test_images(tmp_path)] == [
        (tmp_path / "a/image.tif", ImageId("a.tif", 1, 4, 9)),
        (tmp_path / "b/image.tif", ImageId("b.tif", 2, 8, 9)),
    ]


def test_what_is_not_read_of_test_images_is_said(test_dir: Path, tmp_path: Path) -> None:
    (test_dir / "readme.txt").unlink()
    assert unread_test_files(test_dir) == []
    (test_dir / "Thumbs.db").write_text("")
    (test_dir / "d.gif").write_text("")
    add_image(test_dir / "more/e.tif")
    (warning,) = unread_test_files(test_dir)
    assert "2 files or folders" in warning and f"{test_dir}/d.gif" in warning
    add_record(tmp_path / "layout", "a")
    (tmp_path / "layout/list.csv").write_text("")
    (warning,) = unread_test_files(tmp_path / "layout")
    assert "1 files or folders" in warning and f"{tmp_path}/layout/list.csv" in warning


def test_files_of_the_program_itself_are_no_stray_files(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", "ab")
    for name in ("classes.json", "split.json", "groups.json", "manifest.sha256", "Thumbs.db", "@eaDir", "x.tif~"):
        (folder / name).write_text("")
    assert unread_test_files(folder) == []
    (folder / "x.png").write_text("")
    assert "1 files or folders" in unread_test_files(folder)[0]


def test_test_images_with_a_tag_of_orientation_are_named(test_dir: Path) -> None:
    assert turned_warnings(find_test_images(test_dir)) == []
    pixels = np.zeros((8, 9, 3), np.uint8)
    for name in ("a", "b"):
        more = [(274, "H", 1, 3, False)]
        tifffile.imwrite(test_dir / f"{name}.tif", pixels, photometric="rgb", extratags=more, metadata=None)
    (warning,) = turned_warnings(find_test_images(test_dir))
    assert f"{test_dir}/a.tif and 1 more" in warning


def test_one_name_with_two_suffixes_is_refused(test_dir: Path) -> None:
    add_image(test_dir / "a.tiff")
    check_refused(lambda: find_test_images(test_dir), f"{test_dir}: image a occurs twice")


# Splits and groups


def test_a_split_selects_records_in_its_order(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        add_record(tmp_path / "data", name)
    split = read_split(save(tmp_path / "split.json", {"train": ["c", "a"], "val": [], "test": ["elsewhere"]}))
    records = find_records(tmp_path / "data", 4)
    assert [record.name for record in select(records, split, "train")] == ["c", "a"]
    assert select(records, split, "val") == [] and part_names(split, "test") == ["elsewhere"]
    check_refused(lambda: select(records, split, "vall"), "--part vall", "train, val, test")
    check_refused(lambda: select(records, {"val": ["bb"]}, "val"), "--split: part val", "bb", "did you mean b")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"train": ["a"], "val": ["b", "a"]}, "a is in both train and val"),
        ({"train": ["a", "a"]}, "a is twice in train"),
        ({"train": ["../a"]}, "not a plain file name"),
        ({"train": [1]}, "not a plain file name"),
        ({"train": "a"}, "JSON object of part"),
        (["a"], "JSON object of part"),
        ({}, "JSON object of part"),
    ],
)
def test_a_wrong_split_is_refused(tmp_path: Path, value: Any, reason: str) -> None:
    path = save(tmp_path / "split.json", value)
    check_refused(lambda: read_split(path), f"{path}: ", reason)


def test_groups_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "groups.json", {"a": "patient 1", "b": "patient 1"})
    assert read_groups(path) == {"a": "patient 1", "b": "patient 1"}
    for value in ([], {}, {"a": 1}, {"a": None}):
        check_refused(lambda: read_groups(path), f"{save(path, value)}: ", "image name")


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are absent")
def test_the_real_folders_are_found() -> None:
    folder = DATA / "hw3-format"
    records, split = find_records(folder / "train", 4), read_split(folder / "splits.json")
    assert [len(select(records, split, part)) for part in ("train", "val")] == [3, 1]
    images = find_test_images(folder / "test_release", folder / "test_image_name_to_ids.json")
    assert [(image.entry.id, image.entry.height) for image in images] == [(1, 114), (2, 106)]


def test_a_mistyped_path_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    check_refused(lambda: find_records(tmp_path / "trian", 4), f"{tmp_path}/trian", f"did you mean {tmp_path}/train?")
    check_refused(lambda: read_split(tmp_path / "trainn"), f"{tmp_path}/trainn", f"did you mean {tmp_path}/train?")


def test_numbers_of_an_id_map_may_be_text_or_have_a_point(tmp_path: Path) -> None:
    entries = [{"file_name": "a.tif", "id": "1", "height": 8.0, "width": "9"}]
    assert read_id_map(save(tmp_path / "ids.json", entries)) == [ImageId("a.tif", 1, 8, 9)]


def test_names_of_another_case_form_or_ending_select_records(tmp_path: Path) -> None:
    for name in ("a", "B\u00e9", "c"):
        add_record(tmp_path, name)
    records = find_records(tmp_path, 2)
    split = {"train": ["A.png", "be\u0301"], "val": ["c"]}
    assert [record.name for record in select(records, split, "train")] == ["a", "B\u00e9"]
    check_refused(lambda: select(records, {"train": ["a"], "val": ["A"]}, "train"), "--split: A", "val")
    check_refused(lambda: select(records, {"train": ["a", "A"]}, "train"), "--split: a and A")


def test_test_images_match_an_id_map_of_another_case_form_or_ending(tmp_path: Path) -> None:
    for name in ("a", "B\u00e9"):
        write_image(tmp_path / f"{name}.tif", np.zeros((8, 9, 3), np.uint8))
    entries = [ImageId("A.PNG", 5, 8, 9), ImageId("be\u0301.tif", 6, 8, 9)]
    write_id_map(tmp_path / "ids.json", entries)
    images = find_test_images(tmp_path, tmp_path / "ids.json")
    assert {image.image.stem: image.entry for image in images} == {"a": entries[0], "B\u00e9": entries[1]}
    (image,) = find_test_images(tmp_path, tmp_path / "ids.json", names=["A"])
    assert image.entry == entries[0]
    write_id_map(tmp_path / "ids.json", [*entries, ImageId("a.tif", 7, 8, 9)])
    check_refused(lambda: find_test_images(tmp_path, tmp_path / "ids.json"), "ids.json", "A.PNG and a.tif")
