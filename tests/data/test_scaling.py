"""A scaled mask lies where its scaled image does."""

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from src.data.masks import CellPixels, cell_pixels
from src.data.prepared import scale_image, scaled_size
from src.data.scaling import scale_cells


def scaled(mask: list[list[int]] | np.ndarray, shape: tuple[int, int]) -> list[list[int]]:
    return scale_cells(cell_pixels(np.array(mask)), shape).to_mask().tolist()


def test_a_pixel_belongs_to_the_cell_that_covers_half() -> None:
    assert scaled([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]], (2, 2)) == [[1, 0], [0, 2]]
    assert scaled([[0, 1, 1, 0], [0, 1, 1, 0]], (1, 2)) == [[1, 1]]  # half of either
    assert scaled([[1, 2]], (2, 4)) == [[1, 1, 2, 2]] * 2
    assert scaled([[1, 0, 0]], (1, 2)) == [[1, 0]]  # two thirds of the first of two
    assert scaled([[0, 1, 0]], (1, 2)) == [[0, 0]]  # a third of either
    assert scaled([[5, 0, 9]], (1, 3)) == [[1, 0, 2]]
    assert scaled(np.zeros((3, 4), int), (2, 5)) == [[0] * 5] * 2


def test_where_two_cells_cover_half_each_they_take_turns() -> None:
    assert scaled(np.tile([1, 2], (6, 1)), (3, 1)) == [[2], [1], [2]]


def test_the_id_of_a_cell_that_vanishes_is_unused() -> None:
    mask = np.zeros((20, 20), int)
    mask[0, 0], mask[8:16, 8:16] = 1, 2
    assert np.unique(scaled(mask, (5, 5))).tolist() == [0, 2]


def discs(height: int, width: int, radius: int = 9) -> np.ndarray:
    """Discs that do not touch, at random places of a grid."""
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), np.int32)
    step = 2 * radius + 8
    corners = [(y, x) for y in range(0, height - step, step) for x in range(0, width - step, step)]
    for number, (y, x) in enumerate(corners, start=1):
        shift = rng.integers(0, 8, 2)  # as often at each place of a scaled pixel
        size = radius - int(rng.integers(0, 4))
        cv2.circle(mask, (x + radius + int(shift[0]), y + radius + int(shift[1])), size, number, -1)
    return mask


def centroids(mask: np.ndarray, count: int) -> np.ndarray:
    """Centres (count, 2) of y and x in px, where the first pixel reaches from 0 to 1."""
    rows, columns = np.nonzero(mask)
    ids = mask[rows, columns]
    sizes = np.bincount(ids, minlength=count + 1)
    sums = [np.bincount(ids, axis + 0.5, minlength=count + 1) for axis in (rows, columns)]
    return np.stack(sums, axis=1)[1:] / sizes[1:, None]


def rectangles(height: int, width: int) -> np.ndarray:
    """Rectangles with sides along those of the mask, whose outlines meet the pixels of a scaled one all alike."""
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), np.int32)
    corners = [(y, x) for y in range(0, height - 28, 28) for x in range(0, width - 28, 28)]
    for number, (y, x) in enumerate(corners, start=1):
        tall, wide, down, right = *rng.integers(10, 21, 2), *rng.integers(0, 8, 2)
        mask[y + down : y + down + tall, x + right : x + right + wide] = number
    return mask


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.37, 0.5, 0.8, 1.5, 2.3])
@pytest.mark.parametrize("shape", [(512, 512), (301, 699), (511, 511)])
@pytest.mark.parametrize("draw", [discs, rectangles])
def test_cells_do_not_drift(draw: Callable[[int, int], np.ndarray], shape: tuple[int, int], scale: float) -> None:
    mask, size = draw(*shape), scaled_size(*shape, scale)
    found = scale_cells(cell_pixels(mask), size).to_mask()
    count = int(mask.max())
    before = centroids(mask, count)
    errors = centroids(found, count) * (np.array(shape) / size) - before
    for axis in (0, 1):
        ends = np.quantile(before[:, axis], (1 / 3, 2 / 3))
        for part in (before[:, axis] <= ends[0], before[:, axis] >= ends[1]):
            assert np.abs(errors[part].mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("scale", [0.5, 0.37, 1.5])
def test_cells_that_fill_the_mask_do_not_drift(scale: float) -> None:
    mask = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((15, 15), int))
    size = scaled_size(300, 300, scale)
    found = scale_cells(cell_pixels(mask), size).to_mask()
    errors = centroids(found, 400) * (300 / np.array(size)) - centroids(mask, 400)
    assert np.abs(errors.mean(axis=0)).max() < 0.1 and (found > 0).mean() > 0.97


@pytest.mark.parametrize("scale", [0.25, 0.37, 0.5])
def test_a_scaled_mask_is_its_scaled_picture(scale: float) -> None:
    mask = np.zeros((301, 211), np.int32)
    cv2.circle(mask, (123, 150), 40, 1, -1)
    picture = scale_image(np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2), scale)[..., 0]
    found = scale_cells(cell_pixels(mask), picture.shape).to_mask() > 0
    wanted = picture >= 127.5
    assert (found & wanted).sum() / (found | wanted).sum() > 0.99


def test_many_cells_are_scaled_fast() -> None:
    mask = discs(1200, 1600, 13)
    assert mask.max() > 1600
    cells = cell_pixels(mask)
    started = time.process_time()
    scale_cells(cells, (600, 800))
    assert time.process_time() - started < 2


def test_bands_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cells: CellPixels = cell_pixels(np.random.default_rng(0).integers(0, 4, (57, 40)))
    whole = scale_cells(cells, (23, 31)).to_mask()
    monkeypatch.setattr("src.data.scaling.BAND_PIXELS", 40)
    assert np.array_equal(scale_cells(cells, (23, 31)).to_mask(), whole)
