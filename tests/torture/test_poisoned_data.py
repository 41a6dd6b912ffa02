"""Data that are wrong in ways that losses do not notice: each is named, or trains to finite losses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from dataset import TileDataset
from model import build_model
from src.common.errors import InputError
from src.config.flags import build
from src.config.settings import TrainConfig
from src.data.open_images import OpenImages
from src.data.training_data import load_training_data
from src.engine.loading import EpochSampler, build_loader, collate
from src.network.weights import resolve
from tests.helpers import TINY, write_dataset

pytestmark = pytest.mark.torch
NAN, INF = float("nan"), float("inf")


def mask(*places: tuple[int, int, int, int, float], dtype: Any = np.uint16, background: float = 0) -> np.ndarray:
    """A 96 x 80 mask with rectangles (top, left, bottom, right, id)."""
    labels = np.full((96, 80), background, dtype)
    for top, left, bottom, right, label in places:
        labels[top:bottom, left:right] = label
    return labels


def losses_of(folder: Path) -> dict[str, float]:
    """Those of a step on every tile of a folder."""
    config = build(TrainConfig, {**TINY, "data_path": str(folder), "val_fraction": 0.0, "cache_gb": 0.0})
    config = replace(config, augment=replace(config.augment, augment="none"))
    data = load_training_data(config.data, config.image)
    images = OpenImages(data.train, data.cache)
    dataset = TileDataset(images, data.train_facts, config.tiles, config.augment, False, 0)
    torch.manual_seed(0)
    network = build_model(resolve(config.model, data.cell_size), 2).train()
    batches = list(build_loader(dataset, EpochSampler(len(dataset), 0), len(dataset), 0, cuda=False))
    return {name: loss.item() for name, loss in network(batches[0].tiles, batches[0].targets()).items()}


CELL = (10, 10, 30, 30, 1)
NAMED = {
    "inf as an id": (mask((5, 5, 9, 9, INF), dtype=np.float64), "NaN or infinite ids"),
    "NaN as background": (mask(CELL, dtype=np.float32, background=NAN), "NaN or infinite ids"),
    "a negative id": (mask(CELL, (50, 50, 60, 60, -1), dtype=np.int16), "negative ids"),
    "a fractional id": (mask((5, 5, 9, 9, 1.5), dtype=np.float64), "fractional ids"),
    "another size": (mask(CELL)[:-1], "is 95 x 80"),
    "three channels": (np.dstack([mask(CELL).astype(np.uint8)] * 3), "3 channels"),
    "a stack": (np.stack([mask(CELL)] * 2), "several pages"),
}
TRAINS = {
    "one pixel": mask((40, 40, 41, 41, 1)),
    "one row": mask((40, 0, 41, 80, 1)),
    "nothing": mask(),
    "0 and 255": mask((10, 10, 30, 30, 255), (50, 50, 60, 60, 255)).astype(np.uint8),
    "ids above 2**24": mask((10, 10, 30, 30, 2**24 + 1), (50, 50, 60, 60, 2**24 + 2), dtype=np.uint32),
    "the largest id": mask((10, 10, 30, 30, 2**32 - 1), dtype=np.uint32),
    "the whole image": mask((0, 0, 96, 80, 1)),
    "a thousand cells of one pixel": np.arange(1, 96 * 80 + 1).reshape(96, 80).astype(np.uint16)
    * (np.indices((96, 80)).sum(0) % 7 == 0),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_mask_that_cannot_be_meant_is_named(tmp_path: Path, kind: str) -> None:
    labels, reason = NAMED[kind]
    folder = write_dataset(tmp_path / "train", "ab")
    tifffile.imwrite(folder / "a/class1.tif", labels, metadata=None)
    with pytest.raises(InputError, match=rf"a/class1\.tif: .*{reason}"):
        losses_of(folder)


def test_a_class_above_the_last_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "train", "ab")
    tifffile.imwrite(folder / "a/class3.tif", mask(CELL), metadata=None)
    with pytest.raises(InputError, match=r"a/class3\.tif: there is no class 3; classes are 1 to 2"):
        losses_of(folder)


@pytest.mark.parametrize("kind", TRAINS)
def test_an_odd_mask_trains(tmp_path: Path, kind: str) -> None:
    folder = write_dataset(tmp_path / "train", "ab")
    tifffile.imwrite(folder / "a/class1.tif", TRAINS[kind], metadata=None)
    losses = losses_of(folder)
    assert all(np.isfinite(value) and value >= 0 for value in losses.values()), losses


@pytest.mark.parametrize("value", [NAN, INF])
def test_an_image_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    folder = write_dataset(tmp_path / "train", "ab")
    tifffile.imwrite(folder / "b/image.tif", np.full((96, 80, 3), value, np.float32), photometric="rgb", metadata=None)
    with pytest.raises(InputError, match=r"b/image\.tif: holds NaN or infinite values"):
        losses_of(folder)


GOOD = {
    "boxes": np.array([[1, 1, 5, 5]], np.float32),
    "labels": np.array([1]),
    "layers": np.array([0]),
    "ids": np.array([3]),
    "label_map": np.zeros((1, 8, 8), np.uint16),
}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("boxes", [[1, 1, INF, 5]], "not finite"),
        ("boxes", [[1, NAN, 5, 5]], "not finite"),
        ("boxes", [[5, 1, 1, 5]], "without area"),
        ("boxes", [[1, 1, 1, 5]], "without area"),
        ("boxes", [[1, 1, 5, 9]], "outside its tile"),
        ("boxes", [[-1, 1, 5, 5]], "outside its tile"),
        ("labels", [0], "a class below 1"),
        ("labels", [-1], "a class below 1"),
        ("ids", [0], "an id below 1"),
        ("layers", [1], "a layer that is not there"),
        ("layers", [-1], "a layer that is not there"),
        ("labels", [1, 2], "2 labels"),
    ],
)
def test_a_poisoned_target_is_named(key: str, value: Any, reason: str) -> None:
    tile = np.zeros((8, 8, 3), np.uint8)
    collate([(tile, GOOD, "good")])
    poisoned = {**GOOD, key: np.array(value, GOOD[key].dtype)}
    with pytest.raises(InputError, match=f"b at row 3: .*{reason}"):
        collate([(tile, GOOD, "good"), (tile, poisoned, "b at row 3")])
