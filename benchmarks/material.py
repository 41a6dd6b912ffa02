"""Images and detections of a chosen density, made from a seed."""

from pathlib import Path

import cv2
import numpy as np

from dataset import TileDataset
from src.config.settings import AugmentSettings, TileSettings
from src.data.cache import ImageCache
from src.data.image_facts import ImageFacts
from src.data.open_images import OpenImages
from src.data.records import ImageFiles, Record
from src.data.tiff import write_image, write_mask
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, clip, tight
from src.geometry.tiles import Tile

CELL = 32  # side of the patch that holds a cell
TILES = TileSettings(tile_size=512, overlap=256)
LATTICE = 34  # px between the cells that stitching is measured with


def cells(rng: np.random.Generator, height: int, width: int, count: int) -> list[Instance]:
    """About ``count`` ellipses of 20 to 28 px, of four classes, on a lattice over the image."""
    spacing = np.sqrt(height * width / count)
    found = []
    for row in np.arange(spacing / 2, height - CELL / 2, spacing):
        for column in np.arange(spacing / 2, width - CELL / 2, spacing):
            patch = np.zeros((CELL, CELL), np.uint8)
            axes = tuple(float(axis) for axis in rng.uniform(20, 28, 2))
            cv2.ellipse(patch, ((CELL / 2, CELL / 2), axes, float(rng.uniform(0, 180))), 1, -1)
            rows, columns = np.flatnonzero(patch.any(axis=1)), np.flatnonzero(patch.any(axis=0))
            mask = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(bool)
            top, left = int(row - CELL / 2 + rows[0]), int(column - CELL / 2 + columns[0])
            found.append(Instance(int(rng.integers(1, 5)), 1.0, max(top, 0), max(left, 0), mask))
    return found


def write_record(folder: Path, height: int, width: int, count: int, seed: int = 0) -> Record:
    """A training image with about ``count`` cells."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(120, 255, (height, width, 3), np.uint8), (0, 0), 2)
    masks = {category: np.zeros((height, width), np.uint16) for category in range(1, 5)}
    for instance in cells(rng, height, width, count):
        window = np.s_[instance.top : instance.bottom, instance.left : instance.right]
        mask = masks[instance.class_id]
        mask[window][instance.mask] = mask.max() + 1
        image[window][instance.mask] //= 2
    folder.mkdir(parents=True)
    write_image(folder / "image.tif", image)
    for category, mask in masks.items():
        write_mask(folder / f"class{category}.tif", mask)
    names = {category: f"class{category}.tif" for category in masks}
    return Record(ImageFiles(folder, "image.tif", names), height, width)


def raw_detections(rng: np.random.Generator, count: int, side: int) -> tuple[np.ndarray, ...]:
    """Boxes, scores, labels and 28 × 28 mask probabilities of discs of 20 to 40 px in a ``side``² image."""
    corners, sides = rng.uniform(0, side - 40, (count, 2)), rng.uniform(20, 40, (count, 2))
    rows, columns = np.mgrid[:28, :28] - 13.5
    disc = np.clip(1.5 - np.hypot(rows, columns) / 13.5, 0, 1)
    masks = np.clip(disc + rng.normal(0, 0.05, (count, 28, 28)), 0, 1).astype(np.float32)
    boxes = np.hstack((corners, corners + sides)).astype(np.float32)
    return boxes, rng.random(count).astype(np.float32), rng.integers(1, 5, count), masks


def truth_and_predictions(
    rng: np.random.Generator, images: int, per_image: int, false_share: float
) -> tuple[list[ImageTruth], list[list[Instance]]]:
    """True cells of 1000² images, and predictions: each cell seen a little off, and false ones beside them."""
    truths, predictions = [], []
    for number in range(1, images + 1):
        true = cells(rng, 1000, 1000, per_image)
        false = cells(rng, 1000, 1000, round(per_image * false_share))
        truths.append(ImageTruth(number, f"{number}.tif", 1000, 1000, true))
        predictions.append([_moved(rng, instance) for instance in true + false])
    return truths, predictions


def _moved(rng: np.random.Generator, instance: Instance) -> Instance:
    top, left = (int(place + rng.integers(-3, 4)) for place in (instance.top, instance.left))
    top, left = min(max(top, 0), 1000 - instance.mask.shape[0]), min(max(left, 0), 1000 - instance.mask.shape[1])
    return Instance(instance.class_id, float(rng.random()), top, left, instance.mask)


def ellipse(rng: np.random.Generator) -> np.ndarray:
    """A filled ellipse of 20 to 40 px as a ``(44, 44)`` bool mask."""
    canvas = np.zeros((44, 44), np.uint8)
    axes = tuple(float(axis) for axis in rng.uniform(20, 40, 2))
    cv2.ellipse(canvas, ((22.0, 22.0), axes, float(rng.uniform(0, 180))), 1, -1)
    return canvas.astype(bool)


def tile_detections(rng: np.random.Generator, side: int, tiles: list[Tile]) -> list[list[Instance]]:
    """What each tile sees of cells on a jittered lattice, every view off by up to 1 px and with a score of its own."""
    shapes = [ellipse(rng) for _ in range(50)]
    places = np.mgrid[0 : side - 44 : LATTICE, 0 : side - 44 : LATTICE].reshape(2, -1).T.copy()
    places += rng.integers(0, 4, places.shape)
    categories = rng.integers(1, 5, len(places))
    detections = []
    for tile in tiles:
        inside = (places + 44 > (tile.top, tile.left)) & (places < (tile.bottom, tile.right))
        views = []
        for cell in np.flatnonzero(inside.all(axis=1)):
            top, left = (places[cell] + rng.integers(-1, 2, 2)).tolist()
            score, mask = float(rng.random()), shapes[cell % len(shapes)]
            view = tight(int(categories[cell]), score, max(top, 0), max(left, 0), mask)
            views.append(view and clip(view, tile.top, tile.left, tile.bottom, tile.right))
        detections.append([view for view in views if view])
    return detections


def open_dataset(
    record: Record,
    folder: Path,
    augment: AugmentSettings,
    tiles: TileSettings = TILES,
    facts: ImageFacts | None = None,
) -> TileDataset:
    """The training tiles of one image, which is decoded to know the ``facts`` about it unless they are given."""
    cache = open_cache(folder)
    known = facts or cache.facts(record)
    return TileDataset(OpenImages([record], cache), known, tiles, augment, False, seed=0)


def open_cache(folder: Path) -> ImageCache:
    """A cache of its own."""
    return ImageCache(folder, max_gb=20, intensity="full", scale=1.0)
