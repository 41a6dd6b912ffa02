import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import TileDataset, tile_target
from src.config.settings import AugmentSettings, TileSettings
from src.data.cache import ImageCache
from src.data.classes import UNKNOWN_CLASS
from src.data.open_images import OpenImages
from src.data.prepared import PreparedImage
from src.data.tiff import write_mask
from src.engine.loading import collate
from src.geometry.instances import extents
from src.geometry.tiles import FILL
from tests.helpers import facts_about, find_records, write_dataset

pytestmark = pytest.mark.torch
TILES = TileSettings(tile_size=64, overlap=16)
PLAIN = AugmentSettings(augment="none")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "train", "abc")


def make(data: Path, tiles: TileSettings = TILES, augment: AugmentSettings = PLAIN, swap: bool = False) -> TileDataset:
    cache = ImageCache(data.parent / "cache", 1.0, "full", 1.0)
    records = find_records(data, 2)
    return TileDataset(OpenImages(records, cache), facts_about(records, cache), tiles, augment, swap, seed=3)


def image_of(label_map: np.ndarray, categories: list[int]) -> PreparedImage:
    areas, boxes = extents(label_map.transpose(2, 0, 1), len(categories) - 1)
    image = np.zeros((*label_map.shape[:2], 3), np.uint8)
    return PreparedImage(
        image, label_map, np.array(categories), np.zeros(len(categories), int), areas, boxes, np.zeros(1)
    )


def test_target_by_hand() -> None:
    label_map = np.zeros((6, 8, 1), np.uint16)
    label_map[1:3, 2:5] = 1
    label_map[5, 7] = 2  # a single pixel is a box of width 1
    target = tile_target(label_map, image_of(label_map, [0, 4, 2]), 0.25)
    assert target["boxes"].tolist() == [[2, 1, 5, 3], [7, 5, 8, 6]]
    assert target["labels"].tolist() == [4, 2] and target["ids"].tolist() == [1, 2]
    assert target["label_map"].shape == (1, 6, 8)


def test_fragments_count_from_the_visible_share_up() -> None:
    label_map = np.zeros((4, 16, 1), np.uint16)
    label_map[0, 4:12] = 1
    label_map[2, 7:15] = 2
    whole = image_of(label_map, [0, 1, 1])
    left = label_map[:, :8]  # shows 4 of 8 px of the first cell and 1 of 8 of the second
    assert tile_target(left, whole, 0.5)["ids"].tolist() == [1]
    assert tile_target(left, whole, 0.125)["ids"].tolist() == [1, 2]
    assert tile_target(left, whole, 0.51)["ids"].tolist() == []


def test_empty_tile() -> None:
    label_map = np.zeros((4, 4, 1), np.uint16)
    target = tile_target(label_map, image_of(label_map, [0]), 0.25)
    assert target["boxes"].shape == (0, 4) and target["boxes"].dtype == np.float32 and target["labels"].shape == (0,)


def test_a_worker_is_sent_no_image(data: Path) -> None:
    dataset = make(data)
    sent = pickle.dumps(dataset)
    assert len(sent) < dataset.images[0].image.nbytes / 2
    assert (pickle.loads(sent)[(0, 0)][0] == dataset[(0, 0)][0]).all()


def test_without_augmentation_targets_are_those_of_dense_masks(data: Path) -> None:
    dataset = make(data)
    assert len(dataset) >= 3
    for index, (record, tile) in enumerate(dataset.tiles):
        image, target, _ = dataset[(0, index)]
        prepared = dataset.images[record]
        assert (
            image[: tile.height, : tile.width] == prepared.image[tile.top : tile.bottom, tile.left : tile.right]
        ).all()
        dense = [prepared.label_map[..., prepared.layers[label]] == label for label in range(1, len(prepared.areas))]
        cut = [mask[tile.top : tile.bottom, tile.left : tile.right] for mask in dense]
        kept = [(mask, i) for i, mask in enumerate(cut, 1) if mask.sum() >= max(1, 0.25 * dense[i - 1].sum())]
        assert target["ids"].tolist() == [label for _, label in kept]
        for (mask, label), box in zip(kept, target["boxes"], strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            seen = target["label_map"][prepared.layers[label]] == label
            assert (seen[: tile.height, : tile.width] == mask).all()


def test_items_are_a_function_of_seed_epoch_and_index(data: Path) -> None:
    full = replace(PLAIN, augment="full", affine_prob=1.0, jitter_prob=1.0)
    first, second = make(data, augment=full), make(data, augment=full)
    second[(5, 0)]  # what was asked before must not matter
    assert np.array_equal(first[(2, 1)][0], second[(2, 1)][0])
    assert np.array_equal(first[(2, 1)][1]["label_map"], second[(2, 1)][1]["label_map"])
    assert not np.array_equal(first[(2, 1)][0], first[(3, 1)][0])


def test_data_sets_beside_each_other_and_threads_draw_the_same(data: Path) -> None:
    """Each has its own augmentation and no global generator is used."""
    augment = replace(PLAIN, augment="full", affine_prob=1.0, jitter_prob=1.0)
    alone = [make(data, augment=augment)[(epoch, 0)][0] for epoch in range(8)]
    datasets = [make(data, augment=augment) for _ in range(8)]
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda epoch: datasets[epoch][(epoch, 0)][0], range(8)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_image_and_cells_are_warped_together(data: Path) -> None:
    dataset = make(data, augment=replace(PLAIN, augment="full", affine_prob=1.0, jitter_prob=0.0))
    for epoch in range(4):
        image, target, _ = dataset[(epoch, 0)]
        cells, dark = (target["label_map"] > 0).any(axis=0), image[..., 1] < 110
        assert (cells & dark).sum() / (cells | dark).sum() > 0.75


def test_empty_tiles_are_kept_by_share(data: Path) -> None:
    tiles = replace(TILES, tile_size=32, overlap=0)
    counts = [len(make(data, replace(tiles, empty_fraction=fraction))) for fraction in (0.0, 0.5, 100.0)]
    assert counts[0] < counts[1] <= round(1.5 * counts[0]) and counts[2] == 3 * 3 * 3


def test_channels_are_swapped_on_demand(data: Path) -> None:
    assert np.array_equal(make(data, swap=True)[(0, 0)][0], make(data)[(0, 0)][0][..., ::-1])


def test_regions_without_a_class_are_ignored_and_their_cells_learned(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "train", "a"), 2)[0]
    region = np.zeros((96, 80), np.uint16)
    region[:40] = 1
    write_mask(record.image.with_name("ambiguous.tif"), region)
    plain, other = make(write_dataset(tmp_path / "plain" / "train", "a")), make(tmp_path / "train")
    assert len(other) == len(plain) and other.tiles == plain.tiles
    items = [other[(0, index)] for index in range(len(other))]
    for (_, tile), (_, target, _), (_, wanted, _) in zip(
        other.tiles, items, (plain[(0, index)] for index in range(len(plain))), strict=True
    ):
        for key in ("boxes", "labels"):
            assert np.array_equal(target[key], wanted[key])
        shown = np.zeros((64, 64), bool)
        shown[: max(40 - tile.top, 0), : tile.width] = True
        assert np.array_equal(target.get("ignored", np.zeros((64, 64), bool)), shown)
    batch = collate(items)
    assert batch.ignored.shape == (len(items), 64, 64) and batch.ignored.any()
    assert torch.equal(batch.targets()[0]["ignored"], batch.ignored[0])
    without = collate([plain[(0, 0)]])
    assert without.ignored.shape == (0, 64, 64) and "ignored" not in without.targets()[0]


def test_a_region_alone_makes_no_tile_with_cells(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "train", "a"), 2)[0]
    for path in record.masks.values():
        write_mask(path, np.zeros((96, 80), np.uint16))
    write_mask(record.image.with_name("ambiguous.tif"), np.ones((96, 80), np.uint16))
    assert len(make(tmp_path / "train")) == 0


def test_cells_of_unknown_class_are_learned_beside_the_others(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "train", "a"), 2)[0]
    plain = make(write_dataset(tmp_path / "plain" / "train", "a"))
    record.masks[1].rename(record.image.with_name("unknown.tif"))
    other = make(tmp_path / "train")
    assert other.tiles == plain.tiles
    seen = set()
    for index in range(len(other)):
        target, wanted = other[(0, index)][1], plain[(0, index)][1]
        known = {1: UNKNOWN_CLASS, 2: 2}
        pairs = [
            sorted(zip(boxes["boxes"].tolist(), labels, strict=True))
            for boxes, labels in (
                (target, target["labels"].tolist()),
                (wanted, [known[label] for label in wanted["labels"].tolist()]),
            )
        ]
        assert pairs[0] == pairs[1]
        seen |= set(target["labels"].tolist())
    assert seen == {2, UNKNOWN_CLASS}
    cache = ImageCache(tmp_path / "other", 1.0, "full", 1.0)
    counts = facts_about(find_records(tmp_path / "train", 2), cache).counts_of(2)
    assert counts[0, 0] == 0 and counts[0, 1] > 0


def test_zoomed_tiles_show_what_surrounds_them(data: Path) -> None:
    full = AugmentSettings(augment="full", affine_prob=0.0, jitter_prob=0.0)
    for zoom in (0.5, 2.0):
        dataset = make(data, augment=replace(full, min_zoom=zoom, max_zoom=zoom))
        image, target, _ = dataset[(0, 0)]
        assert image.shape == (64, 64, 3) and target["label_map"].shape[1:] == (64, 64)
        height, width = (min(64, round(side * zoom)) for side in dataset.images[0].image.shape[:2])
        shown = np.zeros((64, 64), bool)
        shown[:height, :width] = True
        turned = [np.rot90(flipped, turns) for flipped in (shown, shown[::-1]) for turns in range(4)]
        outside = (image == FILL).all(axis=2)
        assert any(np.array_equal(outside, ~one) for one in turned)
        assert 0 < (target["label_map"] > 0).mean() < 1 and len(target["ids"]) > 0


def test_cells_cut_by_a_zoomed_tile_count_by_their_share_all_the_same() -> None:
    label_map = np.zeros((40, 40, 1), np.uint16)
    label_map[10:20, 10:20] = 1
    prepared = image_of(label_map, [0, 1])
    small = label_map[1::2, 1::2]  # 25 of its 100 px
    assert len(tile_target(small, prepared, 0.9 * 0.5**2)["ids"]) == 1
    assert len(tile_target(small[:7], prepared, 0.9 * 0.5**2)["ids"]) == 0
