import numpy as np
import pytest

from src.geometry.tile_lists import TileGrids
from src.geometry.tiles import tile_grid


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (4, 0), (4, 1), (4, 3), (7, 5), (64, 16)])
def test_tiles_are_those_of_each_image(size: int, overlap: int) -> None:
    sizes = np.array([(height, width) for height in range(1, 20) for width in (1, 3, 4, 5, 17, 40)])
    wanted = [
        (index, tile.top, tile.left, tile.height, tile.width)
        for index, shape in enumerate(sizes.tolist())
        for tile in tile_grid(*shape, size, overlap)
    ]
    assert TileGrids(sizes, size, overlap).tiles().tolist() == [list(row) for row in wanted]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_found_in_the_tiles_that_hold_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.geometry.tile_lists._BLOCK", 7)
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 12))
    sizes = rng.integers(1, 40, (6, 2))
    images = np.sort(rng.integers(0, 6, 25))
    low = rng.integers(0, sizes[images][:, ::-1])
    high = rng.integers(low + 1, np.minimum(sizes[images][:, ::-1], low + 15) + 1)
    boxes = np.concatenate([low, high], axis=1).astype(np.int32)
    grids = TileGrids(sizes, size, int(rng.integers(0, size)))
    whole, overlapping = grids.find_boxes(images, boxes)
    for row, (image, top, left, height, width) in enumerate(grids.tiles().tolist()):
        of_image = boxes[images == image]
        inside = (of_image[:, :2] >= (left, top)) & (of_image[:, 2:] <= (left + width, top + height))
        shared = (of_image[:, :2] < (left + width, top + height)) & (of_image[:, 2:] > (left, top))
        assert (whole[row], overlapping[row]) == (inside.all(axis=1).any(), shared.all(axis=1).any())


def test_no_boxes_are_in_no_tile() -> None:
    whole, overlapping = TileGrids(np.array([(10, 10)]), 5, 0).find_boxes(np.zeros(0, int), np.zeros((0, 4), np.int32))
    assert len(whole) == len(overlapping) == 4 and not whole.any() and not overlapping.any()
