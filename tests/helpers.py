"""Small data that several tests share."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from src.data.cache import ImageCache
from src.data.folders import image_folders
from src.data.image_facts import ImageFacts, concatenate_facts
from src.data.records import Record, read_record
from src.data.tiff import write_image, write_mask

# The smallest network that trains, predicts and is done in a second.
TINY = {
    "backbone": "resnet18", "weights": "none", "anchors": "8,16,32,64,128", "fpn_channels": 8, "box_head_dim": 8,
    "mask_head_channels": 8, "mask_head_layers": 1, "rois_per_tile": 16, "proposals": 30, "detections_per_tile": 20,
    "tile_size": 64, "overlap": 16, "predict_overlap": 16, "batch_size": 2, "warmup_steps": 1, "num_classes": 3,
    "max_steps": 5, "epochs": 2, "score_thresh": 0.0, "ema": 0.5, "device": "cpu", "workers": 0,
    "amp": "off",
}  # fmt: skip


def write_record(folder: Path, height: int = 96, width: int = 80, cells: int = 8, seed: int = 0) -> None:
    """One training image of dark discs on pink: class 1 is large, class 2 small; they do not overlap within a class."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (225, 190, 210), np.uint8)
    masks = {1: np.zeros((height, width), np.uint16), 2: np.zeros((height, width), np.uint16)}
    for index in range(cells):
        class_id = 1 + index % 2
        center = (int(rng.integers(6, width - 6)), int(rng.integers(6, height - 6)))
        disc = cv2.circle(np.zeros((height, width), np.uint8), center, 7 if class_id == 1 else 4, 1, -1) > 0
        disc &= masks[class_id] == 0
        if disc.any():
            masks[class_id][disc] = masks[class_id].max() + 1
            image[disc] = (95, 60, 150)
    folder.mkdir(parents=True)
    write_image(folder / "image.tif", image)
    for class_id, mask in masks.items():
        write_mask(folder / f"class{class_id}.tif", mask)


def write_dataset(folder: Path, names: str = "abcd") -> Path:
    """A training folder of small images, one a letter."""
    for seed, name in enumerate(names):
        write_record(folder / name, seed=seed)
    return folder


def write_many(folder: Path, count: int) -> Path:
    """A training folder of many images, which are links to three files in turn."""
    originals = write_dataset(folder.parent / f"{folder.name}-originals", "abc")
    for number in range(count):
        (folder / f"{number:06d}").mkdir(parents=True)
        for path in (originals / "abc"[number % 3]).iterdir():
            os.link(path, folder / f"{number:06d}" / path.name)
    return folder


def find_records(data_path: str | Path, class_count: int, check_masks: bool = True) -> list[Record]:
    """All images of a data folder, by name."""
    return [read_record(folder, class_count, check_masks, name) for name, folder in image_folders(data_path).items()]


def facts_about(records: Sequence[Record], cache: ImageCache) -> ImageFacts:
    """The facts about images, each of which is read."""
    return concatenate_facts([cache.facts(record) for record in records])
