"""Stitching while tiles come gives the objects of stitching all at once, in bounded memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from src.geometry.chains import bounded_parts, whole_parts
from src.geometry.instances import Instance
from src.geometry.stitch import Stitcher, stitch
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tiles import Tile, tile_grid
from tests.geometry.test_stitch import DISC, jittered_views, keys, random_channel, tissue, visible

Scene = tuple[list[Tile], list[list[Instance]], int, int]


def crowded(seed: int) -> Scene:
    """Jittered cells in two classes, with equal scores and repeated detections, in a grid that lacks some tiles."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(90, 260, 2))
    truth = tissue(rng, height, width, 8, 50)
    size = int(rng.integers(40, 80))
    tiles = tile_grid(height, width, size, int(rng.integers(1, size)))
    tiles = [tile for tile in tiles if rng.random() < 0.85] or tiles
    views = jittered_views(rng, truth, tiles, DISC)
    views = [[replace(view, score=round(view.score, 1)) for view in some] for some in views]
    return tiles, [some + [one for one in some if rng.random() < 0.2] for some in views], height, width


def tied(seed: int) -> Scene:
    """Spots of one class, one score and two sizes at few places, so that only their places and tiles break ties."""
    rng = np.random.default_rng(seed)
    tiles = tile_grid(100, 130, 40, 16)

    def spot(tile: Tile) -> Instance | None:
        top, left = (4 * rng.integers(0, 22, 2)).tolist()
        mask = rng.random([int(rng.choice([6, 20]))] * 2) < 0.8
        mask[0, 0] = mask[-1, -1] = True
        return visible(Instance(1, 0.5, top, left, mask), tile)

    return tiles, [[cell for _ in range(70) if (cell := spot(tile))] for tile in tiles], 100, 130


def streamed(scene: Scene, settings: StitchSettings, order: Sequence[int]) -> list[Instance]:
    tiles, detections, height, width = scene
    stitcher = Stitcher(tiles, height, width, settings)
    return [one for tile in order for one in stitcher.add(tile, detections[tile])]


def full_keys(instances: Sequence[Instance]) -> list[tuple]:
    return sorted((*key, one.score) for one in instances for key in keys([one]))


@pytest.mark.parametrize(
    ("scene_of", "one_class"), [(crowded, False), (crowded, True), (tied, False)], ids=["classes", "one class", "tied"]
)
@pytest.mark.parametrize("seed", range(6))
def test_objects_are_those_of_all_tiles_at_once(seed: int, scene_of: Callable[[int], Scene], one_class: bool) -> None:
    scene, settings = scene_of(seed), StitchSettings(one_class_per_cell=one_class)
    tiles, detections, height, width = scene
    expected = full_keys(stitch(tiles, detections, height, width, settings))
    in_order = sorted(range(len(tiles)), key=lambda tile: (tiles[tile].top, tiles[tile].left))
    at_random = np.random.default_rng(seed).permutation(len(tiles)).tolist()
    first, second = (streamed(scene, settings, order) for order in (in_order, at_random))
    assert full_keys(first) == expected
    assert keys(first) == keys(second)
    assert [(one.top, one.left, one.score) for one in first] == [(one.top, one.left, one.score) for one in second]


@pytest.mark.parametrize("band", [16, 40])
@pytest.mark.parametrize("seed", range(4))
def test_chains_are_cut_alike(seed: int, band: int) -> None:
    """Bands as small as here cut cells apart; that is the same while tiles come."""
    scene, settings = crowded(seed), StitchSettings(one_class_per_cell=True, band=band)
    tiles, detections, height, width = scene
    expected = full_keys(stitch(tiles, detections, height, width, settings))
    assert full_keys(streamed(scene, settings, range(len(tiles)))) == expected


@pytest.mark.parametrize("scene_of", [crowded, tied])
@pytest.mark.parametrize("seed", range(6))
def test_the_list_of_tiles_may_have_any_order(scene_of: Callable[[int], Scene], seed: int) -> None:
    tiles, detections, height, width = scene_of(seed)
    order = np.random.default_rng(seed).permutation(len(tiles)).tolist()
    shuffled = stitch([tiles[i] for i in order], [detections[i] for i in order], height, width)
    assert full_keys(shuffled) == full_keys(stitch(tiles, detections, height, width))


def test_exact_views_of_many_shapes_come_back() -> None:
    rng = np.random.default_rng(3)
    labels = random_channel(rng, 120, 60)
    truth = [
        Instance(1, 1.0, int(rows.min()), int(columns.min()), cropped)
        for value in np.unique(labels[labels > 0])
        for rows, columns in [np.nonzero(labels == value)]
        for cropped in [labels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == value]
    ]
    tiles = tile_grid(120, 60, 24, 6)
    detections = [[part for one in truth if (part := visible(one, tile))] for tile in tiles]
    assert keys(streamed((tiles, detections, 120, 60), StitchSettings(), range(len(tiles)))) == keys(truth)


def test_memory_is_bounded_by_a_few_rows_of_tiles_or_bands() -> None:
    """One stripe as tall as the image, seen in every tile: it leaves in pieces, and few detections wait at a time."""
    height, settings = 4000, StitchSettings(band=100)
    tiles = tile_grid(height, 40, 40, 10)
    stitcher, waiting, objects = Stitcher(tiles, height, 40, settings), [], []
    for number, tile in enumerate(tiles):
        objects += stitcher.add(number, [Instance(1, 0.5, tile.top, 10, np.ones((tile.height, 5), bool))])
        waiting.append(stitcher.waiting)
    assert waiting[-1] == 0 and max(waiting) <= 3 * 100 / 30 + 3
    assert max(waiting[60:]) <= max(waiting[:60])  # it does not grow
    assert max(one.mask.shape[0] for one in objects) < 3 * 100
    covered = np.zeros(height, int)
    for one in objects:
        covered[one.top : one.bottom] += 1
    assert covered.min() >= 1


def test_a_cell_leaves_as_soon_as_no_tile_can_touch_it() -> None:
    tiles = tile_grid(90, 30, 30, 0)
    stitcher = Stitcher(tiles, 90, 30)
    cell = Instance(1, 0.9, 5, 5, np.ones((8, 8), bool))
    assert keys(stitcher.add(0, [cell])) == keys([cell])
    assert stitcher.waiting == 0
    at_the_edge = Instance(1, 0.9, 50, 5, np.ones((10, 8), bool))
    assert keys(stitcher.add(1, [at_the_edge])) == keys([at_the_edge])


def test_a_chain_is_a_part_over_three_bands() -> None:
    corners = np.array([[0, 0], [50, 0], [120, 0], [240, 0], [0, 500]])
    first, second = np.array([0, 1, 2]), np.array([1, 2, 3])
    parts = bounded_parts(first[:2], second[:2], corners, np.zeros(5, bool), 100)
    assert parts.counts.all() and not parts.in_chain.any()  # two bands
    parts = bounded_parts(first, second, corners, np.zeros(5, bool), 100)
    assert parts.counts.tolist() == [True, False, False]
    assert parts.in_chain.tolist() == [True, True, True, True, False]
    for on_side in (corners, corners[:, ::-1]):  # along rows and along columns
        assert bounded_parts(first, second, on_side, np.zeros(5, bool), 100).counts.tolist() == [True, False, False]
    marked = np.array([False, True, False, False, False])
    assert bounded_parts(first[:2], second[:2], corners, marked, 100).counts.tolist() == [True, False]


def test_a_part_is_whole_where_all_its_objects_are() -> None:
    assert whole_parts(np.array([0, 0, 1]), np.array([True, False, True])).tolist() == [False, False, True]
