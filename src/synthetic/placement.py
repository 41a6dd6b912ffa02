"""Make synthetic H&E-like images of cells in the homework's own layout, with the ground truth of the test images.

Every image is a pure function of (seed, part, index). Two of the four classes differ in nothing but their texture.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from src.config import option, parse
from src.errors import InputError, run
from src.files import write_json, writing
from src.records import ImageId, write_id_map
from src.tiff import write_image, write_mask
from src.tissue import KINDS, Cell, Kind, Shape, Window, noise, outline, paint, reach, sigmoid

PIXELS_PER_CELL = 600
MIN_CELLS = 156
MIN_SIZE, MAX_SIZE = 304, 2048  # a smaller image has no room for its cells
SIZES = (304, 432)
CLUSTERED = 0.18  # the chance that a cell is tried against another one instead of in a free place
CLEARANCE = 2.5  # px between a cell that stands free and those before it
MAX_COVERED = 0.06  # the share of a cell that one later cell may cover
MIN_FRAGMENT = 12  # px
ATTEMPTS = 400


@dataclass(frozen=True)
class SampleConfig:
    """Synthetic data."""

    out: str | None = option(None, "folder to write; it must be absent or empty")
    images: int = option(24, "number of training images; a quarter as many test images (at least 2) come on top", low=2)
    seed: int = option(0, "the same seed gives the same files, byte for byte", low=0)
    size: int | None = option(
        None, "side of every image in px; without it the sides vary from 304 to 432", low=MIN_SIZE, high=MAX_SIZE
    )


def write_sample(out: Path, images: int, seed: int, size: int | None = None) -> int:
    """Write the data set and return the number of its cells.

    ``out`` gets ``train/<name>/``, ``split.json`` (its parts train and val), ``test_release/``, ``test_gt/<name>/``
    and, last, ``test_image_name_to_ids.json``. Images are uint8 RGB; masks hold the ids 1..N of their class, and a
    class without cells has no file.

    Raises:
        InputError: ``out`` is not empty, is a file, or cannot be written.
    """
    with writing(f"--out {out}"):
        out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty; remove it or name another folder")
    train = [f"train_{index:03d}" for index in range(images)]
    test = [f"test_{index:03d}" for index in range(max(2, images // 4))]
    num_val = max(1, images // 4)
    ids, cells = [], 0
    for index, name in enumerate(tqdm(train + test, desc="sample", unit="image", disable=None)):
        is_test = index >= images
        rng = np.random.default_rng([seed, int(is_test), index - images if is_test else index])
        image, label_map = make_tissue(rng, *draw_size(rng, size))
        write_image(out / "test_release" / f"{name}.tif" if is_test else out / "train" / name / "image.tif", image)
        _write_masks(out / ("test_gt" if is_test else "train") / name, label_map)
        if is_test:  # in the homework, too, ids do not follow the order of the names
            ids.append(ImageId(f"{name}.tif", images + len(test) - index, *image.shape[:2]))
        cells += int(label_map.max(axis=(1, 2)).sum())
    write_json(out / "split.json", {"train": train[:-num_val], "val": train[-num_val:]}, indent=2)
    write_id_map(out / "test_image_name_to_ids.json", sorted(ids, key=lambda entry: entry.id))
    return cells


def _write_masks(folder: Path, label_map: np.ndarray) -> None:
    for class_id, labels in enumerate(label_map, start=1):
        if labels.any():
            write_mask(folder / f"class{class_id}.tif", labels)


def draw_size(rng: np.random.Generator, size: int | None) -> tuple[int, int]:
    """Height and width in px: ``size`` both, or drawn apart from each other."""
    height, width = (int(side) for side in rng.integers(*SIZES, 2, endpoint=True))
    return (height, width) if size is None else (size, size)


def make_tissue(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Make one image and its ground truth.

    Returns:
        The ``(H, W, 3)`` uint8 RGB image and a ``(K, H, W)`` int32 label map, channel k-1 holding the ids 1..N of
        class k. Cells do not overlap: where one lies over another, the pixels are those of the upper one.
    """
    lumen = _lumen(rng, (height, width))
    cells, labels = _place_cells(rng, lumen > 0.5)
    return paint(rng, lumen, cells), _by_class(labels, cells)


def _lumen(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Openings without tissue: ``(H, W)`` float in [0, 1], 1 inside."""
    field = noise(rng, size, 45)
    return sigmoid(18 * (field - np.quantile(field, 1 - rng.uniform(0.01, 0.07))))


def _place_cells(rng: np.random.Generator, closed: np.ndarray) -> tuple[list[Cell], np.ndarray]:
    """Place cells outside ``closed``, in painting order; the label map holds index + 1 of the uppermost cell."""
    labels = np.zeros(closed.shape, np.int32)
    count = max(MIN_CELLS, round(closed.size / PIXELS_PER_CELL))
    drawn = rng.choice(len(KINDS), count, p=[kind.share for kind in KINDS]) + 1
    cells: list[Cell] = []
    for category in sorted(drawn.tolist(), key=lambda category: category != len(KINDS)):  # the largest find room first
        cell = _find_room(rng, category, cells, labels, closed)
        if cell is not None:
            cells.append(cell)
            labels[cell.window][cell.distance < 0] = len(cells)
    _drop_fragments(labels, cells)
    return cells, labels


def _find_room(
    rng: np.random.Generator, category: int, cells: list[Cell], labels: np.ndarray, closed: np.ndarray
) -> Cell | None:
    height, width = labels.shape
    for _ in range(ATTEMPTS):
        shape = _draw_shape(rng, KINDS[category - 1], height, width)
        beside = bool(cells) and rng.random() < CLUSTERED
        if beside:
            shape = _moved_beside(rng, shape, cells[rng.integers(len(cells))].shape)
        if not (0 <= shape.row < height and 0 <= shape.column < width) or labels[_core(shape)].any():
            continue
        window, distance = outline(shape, (height, width))
        if not closed[window][distance < 0].any() and _fits(labels[window], distance, cells, beside):
            return Cell(category, shape, window, distance)
    return None


def _core(shape: Shape) -> Window:
    """A square within a shape; where it is taken, the outline need not be drawn to know that there is no room."""
    half = shape.radius / 2
    rows = slice(max(int(shape.row - half), 0), int(shape.row + half))
    return rows, slice(max(int(shape.column - half), 0), int(shape.column + half))


def _fits(labels: np.ndarray, distance: np.ndarray, cells: list[Cell], beside: bool) -> bool:
    """Whether a cell stands free or, where it is to lie ``beside`` others, touches one and covers little of any."""
    if not beside:
        return not labels[distance < CLEARANCE].any()
    under = labels[distance < 0]
    covered = ((np.count_nonzero(under == label), cells[label - 1]) for label in np.unique(under[under > 0]))
    return bool(labels[distance < 1].any()) and all(hidden <= MAX_COVERED * cell.area for hidden, cell in covered)


def _draw_shape(rng: np.random.Generator, kind: Kind, height: int, width: int) -> Shape:
    row, column, angle = rng.uniform(0, (height, width, math.pi)).tolist()
    radius = float(np.clip(rng.normal(*kind.radius), *kind.radius_range))
    lobes = kind.lobe * rng.uniform(0.3, 1, 4) / (1, 1.5, 2.5, 4)
    phases = rng.uniform(0, 2 * math.pi, 4)
    return Shape(row, column, radius, rng.uniform(*kind.elongation_range), angle, tuple(lobes), tuple(phases))


def _moved_beside(rng: np.random.Generator, shape: Shape, other: Shape) -> Shape:
    direction = rng.uniform(0, 2 * math.pi)
    step = reach(shape, direction + math.pi) + reach(other, direction) - rng.uniform(0, 1)
    return replace(shape, row=other.row + step * math.sin(direction), column=other.column + step * math.cos(direction))


def _drop_fragments(labels: np.ndarray, cells: list[Cell]) -> None:
    """Take pieces too small to be told from noise out of the ground truth."""
    for label, cell in enumerate(cells, start=1):
        patch = labels[cell.window]
        count, pieces, statistics, _ = cv2.connectedComponentsWithStats((patch == label).astype(np.uint8))
        for piece in range(1, count):
            if statistics[piece, cv2.CC_STAT_AREA] < MIN_FRAGMENT:
                patch[pieces == piece] = 0


def _by_class(labels: np.ndarray, cells: list[Cell]) -> np.ndarray:
    """Split a map of all cells into one channel a class, ids 1..N within each."""
    categories = np.array([0, *(cell.category for cell in cells)])
    is_visible = np.bincount(labels.ravel(), minlength=len(categories)) > 0
    layers = []
    for category in range(1, len(KINDS) + 1):
        is_member = (categories == category) & is_visible
        layers.append(np.where(is_member, np.cumsum(is_member), 0)[labels])
    return np.stack(layers).astype(np.int32)


def main() -> None:
    """Make the sample that the command line asks for."""
    config = parse(SampleConfig, __doc__.splitlines()[0], "python -m src.sample --out demo/data --images 24 --seed 0")
    if config.out is None:
        raise InputError("--out is missing: name the folder to write")
    cells = write_sample(Path(config.out), config.images, config.seed, config.size)
    num_test = max(2, config.images // 4)
    print(f"wrote {config.out}: {config.images} training and {num_test} test images with {cells} cells")


if __name__ == "__main__":
    run(main)
