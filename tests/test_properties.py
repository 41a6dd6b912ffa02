"""Properties that hold for all input, looked for by hypothesis; of each a planted fault shows that it can fail."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from src.common.errors import InputError
from src.config.flags import build, flags_of, flatten
from src.config.recipe import read_recipe, to_toml
from src.config.settings import InferenceConfig, TrainConfig
from src.data.classes import load_classes
from src.data.id_map import read_id_map
from src.data.masks import CellPixels
from src.data.prepared import stack_layers
from src.data.splits import read_groups, read_split
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import read_results
from src.evaluation.rle import decode_entries, encode
from src.formats.imported import ImportSettings
from src.formats.readers.coco import import_coco
from src.geometry.instances import Instance, from_label_map, tight, to_label_map
from src.geometry.tiles import Tile, tile_grid

MANY = settings(max_examples=75, deadline=None, database=None, derandomize=True)
WITH_FILES = settings(MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
LABELS = arrays.arrays(np.int32, SHAPES, elements=st.integers(0, 4))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def fails(check: Callable[[], None]) -> None:
    """The property does not hold: what a planted fault must lead to."""
    with pytest.raises(AssertionError):
        check()


# --- RLE -------------------------------------------------------------------------------------------------------------


def holds_rle(encode: Callable[..., list[dict[str, Any]]]) -> Callable[[], None]:
    """Byte for byte pycocotools' text, and decoded again the same mask in the same place."""

    @MANY
    @given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
    def check(mask: np.ndarray, top: int, left: int, below: int, beside: int) -> None:
        whole = np.pad(mask, ((top, below), (left, beside)))
        instance = tight(1, 1.0, 0, 0, whole)
        if instance is None:
            return
        (rle,) = encode([instance], *whole.shape)
        assert rle["counts"].encode() == coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"]
        (found,) = decode_entries([{"segmentation": rle, "category_id": 1, "score": 1.0}])
        assert (found.top, found.left) == (instance.top, instance.left) and np.array_equal(found.mask, instance.mask)

    return check


test_rle_is_that_of_pycocotools = holds_rle(encode)


def test_rle_can_fail() -> None:
    def upside_down(instances: list[Instance], height: int, width: int) -> list[dict[str, Any]]:
        return encode([replace(instance, mask=instance.mask[::-1]) for instance in instances], height, width)

    fails(holds_rle(upside_down))


# --- tiles -----------------------------------------------------------------------------------------------------------


def holds_grid(grid: Callable[..., list[Tile]]) -> Callable[[], None]:
    """Every pixel is covered, neighbours share the overlap, and no tile is smaller than it must be."""

    @MANY
    @given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64), st.data())
    def check(height: int, width: int, size: int, data: st.DataObject) -> None:
        overlap = data.draw(st.integers(0, size - 1))
        tiles = grid(height, width, size, overlap)
        covered = np.zeros((height, width), bool)
        for tile in tiles:
            assert 0 <= tile.top < tile.bottom <= height and 0 <= tile.left < tile.right <= width
            assert (tile.height, tile.width) == (min(size, height), min(size, width))
            covered[tile.top : tile.bottom, tile.left : tile.right] = True
        assert covered.all()
        rows = sorted({tile.top for tile in tiles})
        assert all(low + min(size, height) - high >= overlap for low, high in itertools.pairwise(rows))

    return check


test_tiles_cover_an_image = holds_grid(tile_grid)


def test_tiles_can_fail() -> None:
    fails(holds_grid(lambda *arguments: tile_grid(*arguments)[:-1]))
    fails(holds_grid(lambda height, width, size, overlap: tile_grid(height, width, size, overlap // 2)))


# --- label maps ------------------------------------------------------------------------------------------------------


def holds_layers(stack: Callable[..., Any]) -> Callable[[], None]:
    """Cells of classes that overlap are all found again in the layers, each with its class and its own pixels."""

    @MANY
    @given(LABELS)
    def check(labels: np.ndarray) -> None:
        cells, truth = {}, []
        for category, mask in enumerate(labels, start=1):
            ids, numbered = np.unique(mask[mask > 0], return_inverse=True)
            places = np.flatnonzero(mask)
            cells[category] = CellPixels(mask.shape, places, (numbered + 1).astype(np.int32))
            truth += [(category, (mask == number).tobytes()) for number in ids]
        label_map, categories, layers = stack(cells, labels.shape[1:])
        found = [
            (categories[number], (label_map[..., layers[number]] == number).tobytes())
            for number in range(1, len(categories))
        ]
        assert found == truth

    return check


test_layers_hold_every_cell = holds_layers(stack_layers)


def test_layers_can_fail() -> None:
    fails(holds_layers(lambda cells, shape: stack_layers(dict(reversed(cells.items())), shape)))


@MANY
@given(LABELS)
def test_objects_of_a_label_map_paint_it_again(labels: np.ndarray) -> None:
    objects = from_label_map(labels[:1])
    painted = to_label_map(objects, *labels.shape[1:])
    assert all(isinstance(instance, Instance) and instance.area for instance in objects)
    assert np.array_equal(painted > 0, labels[0] > 0)
    for number, instance in enumerate(objects, start=1):
        assert len(np.unique(labels[0][painted == number])) == 1 and (painted == number).sum() == instance.area


# --- configuration ---------------------------------------------------------------------------------------------------


def values_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Settings that are in bounds."""
    strategies: dict[str, Any] = {}
    for flag in flags_of(cls):
        if flag.choices:
            one: Any = st.sampled_from([choice.replace("N", "3") for choice in flag.choices])
        elif flag.kind is bool:
            one = st.booleans()
        elif flag.kind is str:
            one = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
        else:
            numbers = st.integers if flag.kind is int else st.floats
            one = numbers(flag.low, flag.high if flag.high is not None else 1_000_000)
        strategies[flag.key] = st.lists(one, min_size=1, max_size=3) if flag.many else one
    return st.fixed_dictionaries({}, optional=strategies)


@pytest.mark.parametrize("cls", [TrainConfig, InferenceConfig])
def test_a_written_configuration_is_read_back(cls: type, tmp_path: Path) -> None:
    @WITH_FILES
    @given(values_of(cls))
    def check(values: dict[str, Any]) -> None:
        config = build(cls, values)
        (tmp_path / "recipe.toml").write_text(to_toml(config), encoding="utf-8")
        assert build(cls, read_recipe(tmp_path / "recipe.toml")) == config
        assert build(cls, flatten(config)) == config

    check()


KEYS = st.sampled_from([flag.key for flag in flags_of(TrainConfig)])


@MANY
@given(st.dictionaries(KEYS | st.text(max_size=6), JSON, max_size=3))
def test_settings_of_any_kind_are_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        flat = flatten(build(TrainConfig, values))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(flat[key] == value or value == "auto" for key, value in values.items())


# --- files that others wrote ------------------------------------------------------------------------------------------

READERS = {
    "results": read_results,
    "id map": read_id_map,
    "split": read_split,
    "groups": read_groups,
    "classes": load_classes,
    "ground truth": lambda path: load_ground_truth(path, 4),
    "recipe": read_recipe,
}


@pytest.mark.parametrize("kind", READERS)
def test_a_file_of_any_kind_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"

    @WITH_FILES
    @given(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            READERS[kind](path)
        except InputError as error:
            assert str(path) in str(error)

    check()


EVIL = ["../a", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0", "..\\a", "/", "a/../b"]
PARTS = st.tuples(st.text(max_size=5), st.sampled_from("/\\\0"), st.text(max_size=5))
NAMES = st.sampled_from(EVIL) | PARTS.map("".join)


def holds_names(reads: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A name that could lead out of its folder is refused where it is read."""

    def check_in(folder: Path) -> None:
        @WITH_FILES
        @given(NAMES)
        def check(name: str) -> None:
            files = {
                "split.json": {"train": ["good", name]},
                "ids.json": [{"file_name": name, "id": 1, "height": 3, "width": 3}],
                "coco.json": {
                    "images": [{"file_name": name or "..", "id": 1, "height": 3, "width": 3}],
                    "categories": [{"id": 1, "name": "cell"}],
                    "annotations": [],
                },
            }
            for file, content in files.items():
                (folder / file).write_text(json.dumps(content))
                refused = False
                try:
                    reads(folder / file)
                except InputError as error:
                    refused = "is not a plain file name" in str(error) or "which is not in" in str(error)
                assert refused, (file, name)

        check()

    return check_in


def read_truth(path: Path) -> Any:
    """A COCO file as ground truth; its file names may lie in folders, whose names are not used."""
    (truth,) = load_ground_truth(path, 1)
    assert truth.name not in ("", "..") and not set(truth.name) & set("/\\\0")
    raise InputError("is not a plain file name")  # or leads nowhere else


def test_no_name_leaves_its_folder(tmp_path: Path) -> None:
    readers = {"split": read_split, "ids": read_id_map, "coco": lambda path: import_coco(path, ImportSettings())}
    holds_names(lambda path: readers[path.stem](path))(tmp_path)
    readers["coco"] = read_truth
    holds_names(lambda path: readers[path.stem](path))(tmp_path)


def test_names_can_fail(tmp_path: Path) -> None:
    fails(lambda: holds_names(lambda path: json.loads(path.read_text()))(tmp_path))
