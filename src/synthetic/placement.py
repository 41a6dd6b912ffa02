"""Placement of the cells of a synthetic image: in free space, or touching another cell and hardly covering it."""

import math
from dataclasses import replace

import cv2
import numpy as np

from src.synthetic.tissue import KINDS, Cell, Kind, Shape, Window, distance_to_outline, noise, paint, reach, sigmoid

PIXELS_PER_CELL = 600
MIN_CELLS = 156
MIN_SIZE, MAX_SIZE = 304, 2048  # a smaller image has no room for its cells
CLUSTERED = 0.18  # the chance that a cell is tried against another one instead of in a free place
CLEARANCE = 2.5  # px between a cell that stands free and those before it
MAX_COVERED = 0.06  # the share of a cell that one later cell may cover
MIN_FRAGMENT = 12  # px
ATTEMPTS = 400


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
    for class_id in sorted(
        drawn.tolist(), key=lambda class_id: class_id != len(KINDS)
    ):  # the largest cells are placed first
        cell = _find_room(rng, class_id, cells, labels, closed)
        if cell is not None:
            cells.append(cell)
            labels[cell.window][cell.distance < 0] = len(cells)
    _drop_fragments(labels, cells)
    return cells, labels


def _find_room(
    rng: np.random.Generator, class_id: int, cells: list[Cell], labels: np.ndarray, closed: np.ndarray
) -> Cell | None:
    height, width = labels.shape
    for _ in range(ATTEMPTS):
        shape = _draw_shape(rng, KINDS[class_id - 1], height, width)
        beside = bool(cells) and rng.random() < CLUSTERED
        if beside:
            shape = _moved_beside(rng, shape, cells[rng.integers(len(cells))].shape)
        if not (0 <= shape.row < height and 0 <= shape.column < width) or labels[_core(shape)].any():
            continue
        window, distance = distance_to_outline(shape, (height, width))
        if not closed[window][distance < 0].any() and _fits(labels[window], distance, cells, beside):
            return Cell(class_id, shape, window, distance)
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
    """Remove pieces from the ground truth that are too small to be distinguished from noise."""
    for label, cell in enumerate(cells, start=1):
        patch = labels[cell.window]
        count, pieces, statistics, _ = cv2.connectedComponentsWithStats((patch == label).astype(np.uint8))
        for piece in range(1, count):
            if statistics[piece, cv2.CC_STAT_AREA] < MIN_FRAGMENT:
                patch[pieces == piece] = 0


def _by_class(labels: np.ndarray, cells: list[Cell]) -> np.ndarray:
    """Split a map of all cells into one channel per class, with ids 1..N in each."""
    class_ids = np.array([0, *(cell.class_id for cell in cells)])
    is_visible = np.bincount(labels.ravel(), minlength=len(class_ids)) > 0
    layers = []
    for class_id in range(1, len(KINDS) + 1):
        is_member = (class_ids == class_id) & is_visible
        layers.append(np.where(is_member, np.cumsum(is_member), 0)[labels])
    return np.stack(layers).astype(np.int32)
