"""The tile grid covers an image with full-size tiles that overlap enough."""

from itertools import pairwise

import numpy as np
import pytest

from src.geometry.tiles import Tile, tile_grid


@pytest.mark.parametrize(
    ("height", "width", "size", "overlap"),
    [(1, 1, 4, 2), (4, 4, 4, 0), (5, 4, 4, 3), (33, 86, 32, 8), (100, 7, 16, 15), (61, 60, 20, 0), (64, 129, 32, 16)],
)
def test_grid(height: int, width: int, size: int, overlap: int) -> None:
    tiles = tile_grid(height, width, size, overlap)
    covered = np.zeros((height, width), int)
    for tile in tiles:
        assert (tile.height, tile.width) == (min(size, height), min(size, width))
        assert tile.top >= 0 and tile.left >= 0 and tile.bottom <= height and tile.right <= width
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.min() >= 1
    assert len(set(tiles)) == len(tiles)
    for starts, side in (({tile.top for tile in tiles}, size), ({tile.left for tile in tiles}, size)):
        assert all(side - (after - before) >= overlap for before, after in pairwise(sorted(starts)))


def test_grid_by_hand() -> None:
    assert tile_grid(3, 10, 4, 1) == [Tile(0, 0, 3, 4), Tile(0, 3, 3, 4), Tile(0, 6, 3, 4)]
    assert [tile.left for tile in tile_grid(4, 9, 4, 1)] == [0, 3, 5]
    assert tile_grid(1, 1, 512, 256) == [Tile(0, 0, 1, 1)]


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_bad_overlap(overlap: int) -> None:
    with pytest.raises(ValueError, match=f"tiles of 8 px .* got {overlap}"):
        tile_grid(10, 10, 8, overlap)


def test_unscaled() -> None:
    assert Tile(10, 20, 30, 40).unscaled((1.0, 1.0), 100, 100) == Tile(10, 20, 30, 40)
    assert Tile(10, 20, 30, 40).unscaled((2.0, 2.0), 100, 100) == Tile(5, 10, 15, 20)
    assert Tile(10, 20, 30, 40).unscaled((0.5, 0.5), 100, 200) == Tile(20, 40, 60, 80)
    assert Tile(10, 20, 30, 40).unscaled((0.5, 2), 100, 200) == Tile(20, 10, 60, 20)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0, 1.5, 2.0, 3.1])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 86), (50, 7)])
def test_unscaled_tiles_cover_the_unscaled_image(scale: float, height: int, width: int) -> None:
    covered = np.zeros((height, width), bool)
    scaled_height, scaled_width = max(round(height * scale), 1), max(round(width * scale), 1)
    for tile in tile_grid(scaled_height, scaled_width, 16, 4):
        place = tile.unscaled((scaled_height / height, scaled_width / width), height, width)
        assert place.height >= 1 and place.width >= 1
        assert place.top >= 0 and place.left >= 0 and place.bottom <= height and place.right <= width
        covered[place.top : place.bottom, place.left : place.right] = True
    assert covered.all()


def test_a_tile_is_resized_about_its_centre_and_stays_inside() -> None:
    assert Tile(40, 60, 20, 20).resized(10, 200, 300) == Tile(45, 65, 10, 10)
    assert Tile(0, 280, 20, 20).resized(40, 200, 300) == Tile(0, 260, 40, 40)
    assert Tile(0, 0, 20, 30).resized(60, 20, 50) == Tile(0, 0, 20, 50)
