"""Objects are stacked in batches of bounded size, in their order."""

import numpy as np
import pytest

from src.geometry.instances import Instance
from src.geometry.stacks import Stack, in_batches


def cell(height: int, width: int) -> Instance:
    return Instance(1, 1.0, 3, 4, np.ones((height, width), bool))


def test_batches_have_bounded_numbers_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.geometry.stacks.MOST_OBJECTS", 4)
    monkeypatch.setattr("src.geometry.stacks.MOST_PIXELS", 200)
    cells = [cell(2, 3) for _ in range(9)] + [cell(40, 50), cell(2, 3), cell(9, 9), cell(9, 9)]
    batches = list(in_batches(iter(cells)))
    assert [len(batch) for batch in batches] == [4, 4, 1, 1, 2, 1]
    assert [one for batch in batches for one in batch] == cells
    assert list(in_batches([])) == []


def test_masks_lie_one_below_another_in_zeros() -> None:
    stack = Stack.of([cell(2, 3), cell(1, 4)])
    assert stack.pixels.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert stack.rows.tolist() == [1, 4] and stack.objects_at(np.arange(1, 6)).tolist() == [0, 0, 0, 1, 1]
    assert stack.places.tolist() == [[4, 3], [4, 3]]


def test_the_border_is_what_an_erosion_takes() -> None:
    from scipy.ndimage import binary_erosion

    rng = np.random.default_rng(0)
    masks = [rng.random((9, 12)) < 0.8 for _ in range(20)]
    stack = Stack.of([Instance(1, 1.0, 0, 0, mask) for mask in masks])
    for row, mask in zip(stack.rows, masks, strict=True):
        assert np.array_equal(stack.border[row : row + 9, 1:13] == 1, mask & ~binary_erosion(mask))
    places, owner = stack.border_places
    assert np.array_equal(np.bincount(owner), [(mask & ~binary_erosion(mask)).sum() for mask in masks])
    assert len(places) == stack.border.sum()
