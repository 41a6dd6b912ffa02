"""The benchmarks compare like with like: what the plain way makes is what the program makes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from benchmarks import plain
from benchmarks.material import raw_detections, write_record
from benchmarks.measure import Row, interleaved, peak_megabytes, table
from dataset import TileDataset
from src.config.settings import AugmentSettings, TileSettings
from src.data.cache import ImageCache
from src.data.open_images import OpenImages
from src.engine.loading import collate
from src.evaluation.results import result_entries
from src.geometry.detections import from_network, to_instances
from src.geometry.tiles import Tile

pytestmark = pytest.mark.torch


def test_targets_without_augmentation_equal_the_plain_ones(tmp_path: Path) -> None:
    record = write_record(tmp_path / "image", 300, 260, 90)
    tiles = TileSettings(tile_size=128, overlap=32, min_visible=0)
    cache = ImageCache(tmp_path / "cache", max_gb=1, intensity="full", scale=1.0)
    images, plainly = OpenImages([record], cache), AugmentSettings(augment="none")
    dataset = TileDataset(images, cache.facts(record), tiles, plainly, False, seed=0)
    assert len(dataset) == 9
    for index, (_, tile) in enumerate(dataset.tiles):
        batch = collate([dataset[(0, index)]])
        images, (target,) = batch.tiles, batch.targets()
        image, wanted = plain.load_tile(record, tile, None)
        assert torch.equal(images[0], (image * 255).round().to(torch.uint8))
        (found,) = plain.dense_targets([target])
        for key in ("boxes", "labels", "masks"):
            assert torch.equal(found[key], wanted[key]), key


def test_results_equal_the_plain_ones_but_for_where_masks_are_placed() -> None:
    raw = raw_detections(np.random.default_rng(0), 40, 200)
    wanted = plain.result_entries(raw, (200, 200))
    found = result_entries(1, to_instances(from_network(*raw), Tile(0, 0, 200, 200)), 200, 200)
    found.sort(key=lambda entry: entry["score"])
    wanted.sort(key=lambda entry: entry["score"])
    for ours, theirs in zip(found, wanted, strict=True):
        assert {**ours, "bbox": 0, "segmentation": 0} == {**theirs, "bbox": 0, "segmentation": 0}
        assert coco_mask.iou([ours["segmentation"]], [theirs["segmentation"]], [0])[0, 0] > 0.8


def test_peak_memory_is_what_is_held_at_once() -> None:
    assert 8 <= peak_megabytes(lambda: [np.zeros(10**6, np.uint8).sum() for _ in range(3)] and np.zeros(10**6)) < 9


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    seconds = interleaved(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * 3 and [len(samples) for samples in seconds] == [2, 2]


def test_a_promise_is_kept_or_not() -> None:
    row = Row("x", "ms", ours=[2, 1, 3], plain=[30, 10, 20], least_ratio=10, at_most=2)
    assert row.ratio == 10 and row.kept and row.to_json()["kept"]
    assert not Row("x", "ms", [2, 1, 3], [30, 10, 20], least_ratio=10.5).kept
    assert not Row("x", "ms", [2, 1, 3], at_most=1.9).kept
    assert table([row]).splitlines()[-1] == "| x | 20 ms (10-30) | 2 ms (1-3) | 10.0 | ≥ 10 x, ≤ 2 ms | yes |"
