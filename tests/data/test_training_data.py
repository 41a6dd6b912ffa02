import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import InputError
from src.config.settings import DataSettings, ImageSettings
from src.data.classes import HOMEWORK_CLASSES
from src.data.tiff import read_image, write_image
from src.data.training_data import load_training_data, resolve_classes
from tests.helpers import write_dataset


def load(folder: Path, **changes: object) -> object:
    cache = str(folder.parent / "cache")
    data = replace(DataSettings(), data_path=str(folder), num_classes=3, cache_dir=cache, **changes)
    return load_training_data(data, ImageSettings())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "train", "abcdef")


def test_what_is_known_of_the_training_part(folder: Path) -> None:
    split = folder.parent / "split.json"
    split.write_text(json.dumps({"train": ["a", "b"], "val": ["d"], "test": ["f"]}))
    data = load(folder, split=str(split))
    assert [record.name for record in data.train] == ["a", "b"] and [record.name for record in data.val] == ["d"]
    assert data.split == {"train": ["a", "b"], "val": ["d"]}
    assert data.class_counts.shape == (2,) and (data.class_counts > 0).all()
    assert 9 <= data.cell_size <= 15  # discs 9 and 15 px across


def test_images_are_decoded_once(folder: Path) -> None:
    assert any("6 decoded, 0 " in note for note in load(folder).notes)
    assert any("0 decoded, 6 " in note for note in load(folder).notes)


def test_a_damaged_image_among_many_is_named(folder: Path) -> None:
    path = folder / "d/image.tif"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"d/image.tif: "):
        load(folder)


def test_colours_decide_the_channel_order(folder: Path) -> None:
    assert load(folder).channel_order == "rgb" and not load(folder).swap_channels
    for path in folder.glob("*/image.tif"):
        write_image(path, np.ascontiguousarray(read_image(path)[..., ::-1]))
    swapped = load(folder)
    assert swapped.channel_order == "bgr" and swapped.swap_channels
    assert any("bgr" in note for note in swapped.notes)


def test_groups_stay_together(folder: Path) -> None:
    groups = folder.parent / "groups.json"
    groups.write_text(json.dumps({name: "one" if name in "abc" else "two" for name in "abcdef"}))
    split = load(folder, groups=str(groups), val_fraction=0.5).split
    assert {frozenset(split["train"]), frozenset(split["val"])} == {frozenset("abc"), frozenset("def")}
    groups.write_text(json.dumps({"a": "one"}))
    with pytest.raises(InputError, match=r"groups.json: has no group for b"):
        load(folder, groups=str(groups))


def test_groups_match_names_of_another_case_or_ending(folder: Path) -> None:
    groups = folder.parent / "groups.json"
    groups.write_text(json.dumps({f"{name.upper()}.png": "one" if name in "abc" else "two" for name in "abcdef"}))
    split = load(folder, groups=str(groups), val_fraction=0.5).split
    assert {frozenset(split["train"]), frozenset(split["val"])} == {frozenset("abc"), frozenset("def")}


def test_a_share_is_held_out_without_a_split(folder: Path) -> None:
    split = load(folder, val_fraction=0.34).split
    assert sorted(split["train"] + split["val"]) == list("abcdef") and split["train"] and split["val"]
    assert load(folder, val_fraction=0.0).split == {"train": list("abcdef"), "val": []}


def test_a_training_part_without_cells_is_refused(folder: Path) -> None:
    for mask in folder.glob("*/class*.tif"):
        mask.unlink()
    with pytest.raises(InputError, match="holds no cells"):
        load(folder)


def test_classes_and_their_number_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps([{"id": 1, "name": "tumour", "color": "#FF0000"}]))
    classes = resolve_classes(replace(DataSettings(), classes=str(path)))
    assert [(c.id, c.name, c.rgb) for c in classes] == [(1, "tumour", (255, 0, 0))]
    assert resolve_classes(replace(DataSettings(), classes=str(path), num_classes=2)) == classes
    with pytest.raises(InputError, match="--num-classes 3"):
        resolve_classes(replace(DataSettings(), classes=str(path), num_classes=3))


def test_default_classes_are_the_homeworks_and_more_get_numbers() -> None:
    assert resolve_classes(DataSettings()) == HOMEWORK_CLASSES
    names = [c.name for c in resolve_classes(replace(DataSettings(), num_classes=7))]
    assert names == ["epithelial", "lymphocyte", "neutrophil", "macrophage", "class 5", "class 6"]
    assert len({c.color for c in resolve_classes(replace(DataSettings(), num_classes=12))}) == 11


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '[{"id": 1}]',
        '[{"id": 2, "name": "a", "color": "#000000"}]',
        '[{"id": 1, "name": "a", "color": "red"}]',
    ],
)
def test_wrong_class_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"classes.json: "):
        resolve_classes(replace(DataSettings(), classes=str(path)))
