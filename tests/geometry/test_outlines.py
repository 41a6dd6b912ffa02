"""Outlines along the edges of pixels: known by hand, the same for many objects at once, and valid."""

import numpy as np
import pytest
import shapely

from src.geometry.instances import Instance, tight
from src.geometry.outlines import outlines, trace
from src.geometry.stacks import Stack, in_batches


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[px == "#" for px in row] for row in rows])


def rings_of(mask: np.ndarray, top: int = 0, left: int = 0) -> list[list[list[list[int]]]]:
    return [[ring.tolist() for ring in rings] for rings in outlines(Instance(1, 1.0, top, left, mask))]


def random_cells(count: int = 300, seed: int = 0) -> list[Instance]:
    rng = np.random.default_rng(seed)
    masks = [rng.random(rng.integers(1, 14, 2)) < rng.uniform(0.2, 0.97) for _ in range(count)]
    found = [tight(1, 1.0, *map(int, rng.integers(0, 99, 2)), mask) for mask in masks]
    return [cell for cell in found if cell]


def test_a_rectangle_begins_at_its_first_corner_and_goes_down() -> None:
    assert rings_of(np.ones((2, 3), bool), 10, 20) == [[[[20, 10], [20, 12], [23, 12], [23, 10]]]]


def test_pixels_that_touch_at_a_corner_are_pieces() -> None:
    square = [[0, 0], [0, 1], [1, 1], [1, 0]]
    assert rings_of(mask_of("#.", ".#")) == [[square], [[[x + 1, y + 1] for x, y in square]]]
    assert rings_of(mask_of(".#", "#.")) == [[[[x + 1, y] for x, y in square]], [[[x, y + 1] for x, y in square]]]


def test_a_piece_that_meets_itself_at_a_corner_has_a_hole_there() -> None:
    (rings,) = rings_of(mask_of("###", "#.#", "##."))
    assert rings == [
        [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 0]],
        [[1, 1], [1, 2], [2, 2], [2, 1]],
    ]


def test_holes_that_touch_at_a_corner_are_holes_of_their_own() -> None:
    (rings,) = rings_of(mask_of("####", "#.##", "##.#", "####"))
    assert [min(map(tuple, ring)) for ring in rings] == [(0, 0), (1, 1), (2, 2)]


def test_a_piece_in_a_hole_is_a_piece_and_the_hole_is_whole() -> None:
    outer, inner = rings_of(mask_of("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert outer == [[[0, 0], [0, 5], [5, 5], [5, 0]], [[1, 1], [1, 4], [4, 4], [4, 1]]]
    assert inner == [[[2, 2], [2, 3], [3, 3], [3, 2]]]


def test_polygons_are_valid_and_cover_the_pixels() -> None:
    for cell in random_cells():
        shape = shapely.MultiPolygon([(rings[0], rings[1:]) for rings in outlines(cell)])
        pixels = [shapely.box(cell.left + x, cell.top + y, cell.left + x + 1, cell.top + y + 1)
                  for y, x in np.argwhere(cell.mask)]  # fmt: skip
        assert shape.is_valid and shape.equals(shapely.union_all(pixels))


def test_many_objects_at_once_are_those_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.geometry.stacks.MOST_OBJECTS", 70)
    cells, found = random_cells(), []
    for batch in in_batches(cells):
        traced = trace(Stack.of(batch))
        found += list(traced.grouped(traced.rings()))
    assert len(found) == len(cells)
    for cell, polygons in zip(cells, found, strict=True):
        together, alone = ([[ring.tolist() for ring in rings] for rings in one] for one in (polygons, outlines(cell)))
        assert together == alone


def test_closed_rings_end_where_they_begin() -> None:
    traced = trace(Stack.of(random_cells(20)))
    corners, sizes = traced.closed
    ends = np.cumsum(sizes)
    assert np.array_equal(corners[ends - 1], corners[ends - sizes])
    assert np.array_equal(np.delete(corners, ends - 1, axis=0), traced.corners)


def test_no_objects_have_no_outlines() -> None:
    traced = trace(Stack.of([]))
    assert traced.rings() == [] and not len(traced.object_sizes)
