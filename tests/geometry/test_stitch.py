"""Stitching, proved by oracles: ground truth is cut into tiles, disturbed or not, and must come back."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from scipy.optimize import linear_sum_assignment

from src.geometry.detections import from_network, to_instances
from src.geometry.instances import Instance, clip, from_label_map, intersection, tight
from src.geometry.overlaps import overlapping_pairs
from src.geometry.stitch import stitch
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tiles import Tile, tile_grid

EIGHT = np.ones((3, 3), np.uint8)


def block(top: int, left: int, bottom: int, right: int, score: float = 0.5, class_id: int = 1) -> Instance:
    return Instance(class_id, score, top, left, np.ones((bottom - top, right - left), bool))


def components(instance: Instance) -> list[Instance]:
    count, labels = cv2.connectedComponents(instance.mask.astype(np.uint8), connectivity=8)
    parts = (
        tight(instance.class_id, instance.score, instance.top, instance.left, labels == number)
        for number in range(1, count)
    )
    return [part for part in parts if part]


def visible(instance: Instance, tile: Tile) -> Instance | None:
    return clip(instance, tile.top, tile.left, tile.bottom, tile.right)


def iou(a: Instance, b: Instance) -> float:
    shared = intersection(a, b) if a.class_id == b.class_id else 0
    return shared / (a.area + b.area - shared) if shared else 0.0


def keys(instances: Sequence[Instance]) -> list[tuple]:
    return sorted((i.class_id, i.top, i.left, i.mask.shape, i.mask.tobytes()) for i in instances)


# Exact oracle ---------------------------------------------------------------------------------------------------------


def random_channel(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blobs of any size that touch along straight borders, lines across the image, single pixels; 8-connected."""
    smooth = gaussian_filter(rng.random((height, width)), rng.uniform(0.5, 4))
    seeds = rng.random((rng.integers(1, 10), 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    nearest = ((rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2).argmin(axis=-1)
    drawn = np.where(smooth > np.quantile(smooth, rng.uniform(0.3, 0.9)), nearest + 1, 0).astype(np.int32)
    for value in range(20, 20 + rng.integers(0, 4)):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        cv2.line(drawn, *ends, color=value, thickness=int(rng.integers(1, 3)))
    for value in range(30, 30 + rng.integers(0, 4)):
        drawn[rng.integers(height), rng.integers(width)] = value
    labels = np.zeros_like(drawn)
    for value in np.unique(drawn[drawn > 0]):
        parts, _ = label(drawn == value, EIGHT)
        labels[parts > 0] = parts[parts > 0] + labels.max()
    return labels


def random_tiles(rng: np.random.Generator, height: int, width: int) -> list[Tile]:
    """A grid with any size and overlap (up to size - 1) that gives at most 25 tiles."""
    while True:
        size = int(rng.integers(2, 41))
        tiles = tile_grid(height, width, size, int(rng.integers(1, size)))
        if len(tiles) <= 25:
            return tiles


def exact_views(
    rng: np.random.Generator, truth: Sequence[Instance], tiles: Sequence[Tile], split: bool
) -> list[list[Instance]]:
    """What is visible of each object in each tile, as one view or as one view a connected part."""
    detections = []
    for tile in tiles:
        seen = [part for instance in truth if (part := visible(instance, tile))]
        views = [piece for part in seen for piece in (components(part) if split else [part])]
        detections.append([replace(view, score=float(rng.random())) for view in views])
    return detections


@pytest.mark.parametrize("seed", range(20))
def test_exact_views_give_back_the_objects(seed: int) -> None:
    """12 cases a seed: edge margins, with and without a tile of the whole image, views connected or not."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 56, 2))
    truth = from_label_map(np.stack([random_channel(rng, height, width) for _ in range(3)]))
    grid = random_tiles(rng, height, width)
    for tiles in (grid, [*grid, Tile(0, 0, height, width)]):
        for split in (True, False):
            detections = exact_views(rng, truth, tiles, split)
            for margin in (0, 1, StitchSettings().edge_margin):
                found = stitch(tiles, detections, height, width, StitchSettings(edge_margin=margin))
                assert keys(found) == keys(truth)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 23), (17, 1), (9, 14), (16, 16)])
def test_exact_views_at_every_overlap(size: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    truth = from_label_map(random_channel(rng, *shape)[None])
    for overlap in range(1, size):
        tiles = tile_grid(*shape, size, overlap)
        assert keys(stitch(tiles, exact_views(rng, truth, tiles, True), *shape)) == keys(truth)


def test_objects_stay_in_pieces_without_overlap() -> None:
    tiles, bar = tile_grid(8, 32, 16, 0), block(2, 4, 6, 28)
    detections = exact_views(np.random.default_rng(0), [bar], tiles, True)
    assert keys(stitch(tiles, detections, 8, 32)) == keys([block(2, 4, 6, 16), block(2, 16, 6, 28)])


# Jittered oracle ------------------------------------------------------------------------------------------------------


def tissue(rng: np.random.Generator, height: int, width: int, smallest: float, largest: float) -> list[Instance]:
    """Ellipses in two classes, crowded so that many touch, at least 40 px² each; some are cut by the image's edge."""
    instances: list[Instance] = []
    for class_id in (1, 2):
        taken = np.zeros((height, width), bool)
        for _ in range(height * width // 150):
            small = rng.random() < 0.5
            axes = rng.uniform(smallest, smallest + 6 if small else largest, 2)
            half = int(max(axes)) // 2 + 2
            canvas = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
            ellipse = ((float(half), float(half)), (float(axes[0]), float(axes[1])), float(rng.uniform(0, 180)))
            cv2.ellipse(canvas, ellipse, 1, -1)
            top, left = (int(rng.integers(-half, side - half)) for side in (height, width))
            cell = clip(Instance(class_id, 1.0, top, left, canvas.astype(bool)), 0, 0, height, width)
            if cell is None:
                continue
            place = taken[cell.top : cell.bottom, cell.left : cell.right]
            free = cell.mask & ~place
            if free.sum() < max(0.85 * cell.area, 40):
                continue
            parts = components(replace(cell, mask=free))
            cell = max(parts, key=lambda part: part.area)
            if cell.area >= 40:
                taken[cell.top : cell.bottom, cell.left : cell.right] |= cell.mask
                instances.append(cell)
    return instances


def jittered(rng: np.random.Generator, view: Instance, tile: Tile, shifts: Sequence[tuple[int, int]]) -> list[Instance]:
    """A view eroded, dilated or left as it is, shifted and clipped to its tile; nothing where nothing remains."""
    mask = np.pad(view.mask.astype(np.uint8), 2)
    change = rng.integers(3)
    mask = (cv2.erode(mask, EIGHT), mask, cv2.dilate(mask, EIGHT))[change]
    down, right = shifts[rng.integers(len(shifts))]
    moved = tight(view.class_id, float(rng.random()), view.top - 2 + down, view.left - 2 + right, mask > 0)
    moved = moved and visible(moved, tile)
    return [moved] if moved else []


STEPS = range(-2, 3)
SQUARE = [(down, right) for down in STEPS for right in STEPS]
DISC = [(down, right) for down, right in SQUARE if down**2 + right**2 <= 4]


def jittered_views(
    rng: np.random.Generator, truth: Sequence[Instance], tiles: Sequence[Tile], shifts: Sequence[tuple[int, int]]
) -> list[list[Instance]]:
    exact = exact_views(rng, truth, tiles, True)
    return [
        [moved for view in views for moved in jittered(rng, view, tile, shifts)]
        for tile, views in zip(tiles, exact, strict=True)
    ]


def assert_each_once(found: Sequence[Instance], truth: Sequence[Instance]) -> None:
    table = np.array([[iou(a, b) for b in found] for a in truth])
    rows, columns = linear_sum_assignment(-table)
    assert len(found) == len(truth)
    assert table[rows, columns].min() > 0.15  # an 8 px cell, eroded and 2 px off, shares no more
    large = [row for row in rows if truth[row].area >= 300]
    assert table[large, columns[large]].min(initial=1) > 0.4


@pytest.mark.parametrize(("smallest", "shifts"), [(8, DISC), (10, SQUARE)], ids=["8px-disc", "10px-square"])
@pytest.mark.parametrize("seed", range(4))
def test_jittered_cells_come_back_once(seed: int, smallest: int, shifts: list[tuple[int, int]]) -> None:
    """Overlaps from the largest cell and four margins up; every other seed has a tile of the whole image."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(90, 180, 2))
    truth = tissue(rng, height, width, smallest, 40)
    largest = max(side for cell in truth for side in cell.mask.shape)
    overlap = largest + 4 * StitchSettings().edge_margin + int(rng.integers(0, 16))
    tiles = tile_grid(height, width, overlap + int(rng.integers(24, 80)), overlap)
    if seed % 2:
        tiles.append(Tile(0, 0, height, width))
    assert_each_once(stitch(tiles, jittered_views(rng, truth, tiles, shifts), height, width), truth)


@pytest.mark.parametrize("seed", range(4))
def test_jittered_cells_larger_than_the_overlap_are_united(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = tissue(rng, 160, 160, 10, 80)
    tiles = tile_grid(160, 160, 104, 48)
    detections = jittered_views(rng, truth, tiles, DISC)
    views = {id(view) for found in detections for view in found}
    found = stitch(tiles, detections, 160, 160)
    assert_each_once(found, truth)
    assert any(id(instance) not in views for instance in found)


# Through M×M masks ----------------------------------------------------------------------------------------------------


def through_mask_head(instances: Sequence[Instance], size: tuple[int, int]) -> list[Instance]:
    """What a perfect mask head of 28×28 says of the objects, turned back into objects."""
    boxes = np.array([(i.left, i.top, i.right, i.bottom) for i in instances], np.float32).reshape(-1, 4)
    masks = np.array([mask_target(instance.mask) for instance in instances], np.float32).reshape(-1, 28, 28)
    scores, labels = np.array([i.score for i in instances]), np.array([i.class_id for i in instances])
    return to_instances(from_network(boxes, scores, labels, masks), Tile(0, 0, *size))


def mask_target(mask: np.ndarray) -> np.ndarray:
    """What training teaches the mask head for an object whose box is tight: RoIAlign with ``aligned=False``."""
    rows, columns = (bin_weights(length) for length in mask.shape)
    return rows @ np.pad(mask, 1).astype(np.float32) @ columns.T


def bin_weights(length: int) -> np.ndarray:
    """``(28, length + 2)`` mean bilinear weights of the samples in each bin, for pixels -1 to ``length``."""
    samples = np.ceil(length / 28).astype(int)
    positions = (np.arange(28)[:, None] + (np.arange(samples) + 0.5) / samples) * length / 28
    return np.maximum(1 - np.abs(positions[..., None] - np.arange(-1, length + 1)), 0).mean(axis=1)


def stitched_through_masks(seed: int) -> tuple[list[Instance], list[Instance]]:
    rng = np.random.default_rng(seed)
    truth = tissue(rng, 150, 150, 12, 40)
    tiles = tile_grid(150, 150, 100, 60)
    detections = [through_mask_head(views, (150, 150)) for views in exact_views(rng, truth, tiles, True)]
    return truth, stitch(tiles, detections, 150, 150)


@pytest.mark.parametrize("seed", range(3))
def test_cells_come_back_once_through_masks(seed: int) -> None:
    truth, found = stitched_through_masks(seed)
    assert_each_once(found, truth)


@pytest.mark.parametrize("seed", range(3))
def test_cells_keep_their_shape_through_masks(seed: int) -> None:
    truth, found = stitched_through_masks(seed)
    best = [max(iou(cell, other) for other in found) for cell in truth if cell.area > 100]
    assert min(best) >= 0.9


# By hand --------------------------------------------------------------------------------------------------------------

LEFT, RIGHT = Tile(0, 0, 100, 100), Tile(0, 50, 100, 100)  # of a 100×150 image; both see columns 50…99


def test_nothing_in_nothing_out() -> None:
    assert stitch([], [], 10, 10) == []
    assert stitch([LEFT, RIGHT], [[], []], 100, 150) == []


def test_one_list_a_tile() -> None:
    with pytest.raises(ValueError, match="shorter"):
        stitch([LEFT, RIGHT], [[]], 100, 150)


def test_a_single_view_is_returned_as_it_is() -> None:
    cell = block(0, 0, 9, 9)
    assert stitch([Tile(0, 0, 20, 20)], [[cell]], 20, 20) == [cell]


def test_a_fragment_with_a_higher_score_gives_way_to_the_whole_cell() -> None:
    whole, fragment = block(40, 80, 60, 120, score=0.3), block(40, 80, 60, 100, score=0.9)
    assert stitch([LEFT, RIGHT], [[fragment], [whole]], 100, 150) == [whole]


def test_a_fragment_is_owned_by_the_tile_that_sees_past_its_edge() -> None:
    """The right tile sees nothing there, so the left one has seen the end of something else."""
    assert stitch([LEFT, RIGHT], [[block(40, 90, 60, 100)], []], 100, 150) == []


def test_an_edge_of_the_image_cuts_nothing() -> None:
    cell = block(0, 60, 10, 80)
    assert stitch([LEFT, RIGHT], [[cell], []], 100, 150) == [cell]


@pytest.mark.parametrize("left", range(56, 64))
def test_two_tiles_never_leave_a_cell_to_each_other(left: int) -> None:
    """The cell comes near the edges of both tiles; their views differ by one px, across the margin."""
    views = [[block(40, left, 60, left + 34)], [block(40, left - 1, 60, left + 33)]]
    assert len(stitch([LEFT, RIGHT], views, 100, 150)) == 1


def test_facing_pieces_are_united_with_the_higher_score() -> None:
    views = [[block(40, 20, 60, 100, score=0.4)], [block(40, 50, 60, 140, score=0.6)]]
    (found,) = stitch([LEFT, RIGHT], views, 100, 150)
    assert keys([found]) == keys([block(40, 20, 60, 140)])
    assert found.score == 0.6


def test_facing_pieces_that_disagree_stay_apart() -> None:
    views = [[block(20, 20, 40, 100)], [block(38, 50, 60, 140)]]
    assert len(stitch([LEFT, RIGHT], views, 100, 150)) == 2


def test_a_horseshoe_in_two_pieces_is_united() -> None:
    ends = [block(10, 10, 20, 100), block(80, 10, 90, 100)]
    bend = np.zeros((80, 90), bool)
    bend[:10], bend[-10:], bend[:, -10:] = True, True, True
    (found,) = stitch([LEFT, RIGHT], [ends, [Instance(1, 0.5, 10, 50, bend)]], 100, 150)
    assert found.area == 2 * 10 * 130 + 60 * 10


def test_small_cells_match_though_they_hardly_overlap() -> None:
    a, b = block(40, 70, 48, 78, score=0.4), block(43, 73, 51, 81, score=0.6)
    assert iou(a, b) < 0.25
    assert stitch([LEFT, RIGHT], [[a], [b]], 100, 150) == [b]


def test_two_cells_in_one_tile_stay_two() -> None:
    """The same two views as above, but one tile reports both."""
    a, b = block(40, 70, 48, 78, score=0.4), block(43, 73, 51, 81, score=0.6)
    assert stitch([LEFT, RIGHT], [[a, b], []], 100, 150) == [b, a]


def test_classes_do_not_meet() -> None:
    views = [[block(40, 60, 60, 80, 0.9, class_id=1)], [block(40, 60, 60, 80, 0.8, class_id=2)]]
    assert [found.class_id for found in stitch([LEFT, RIGHT], views, 100, 150)] == [1, 2]


def test_a_part_of_a_kept_object_is_suppressed() -> None:
    whole, half, quarter_out = block(40, 60, 60, 80, 0.9), block(40, 60, 60, 68, 0.8), block(40, 74, 60, 82, 0.7)
    assert stitch([LEFT], [[half, whole, quarter_out]], 100, 100) == [whole, quarter_out]


def test_a_tile_may_be_seen_twice() -> None:
    """As with test-time augmentation: both views of the tile, each slightly different, of two cells."""
    first = [block(10, 10, 30, 30, 0.9), block(50, 90, 70, 100, 0.5)]
    second = [block(11, 11, 31, 31, 0.8), block(50, 89, 70, 100, 0.7)]
    found = stitch([LEFT, LEFT, RIGHT], [first, second, [block(50, 90, 70, 110, 0.6)]], 100, 150)
    assert [instance.score for instance in found] == [0.9, 0.6]


def test_overlapping_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 60):
        start = rng.integers(0, 200, (count, 2))
        sides = rng.integers(1, 40, (count, 2)) ** rng.integers(1, 3, (count, 2))
        boxes = np.hstack([start, start + sides])
        overlap = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) > np.maximum(
            boxes[:, None, :2], boxes[None, :, :2]
        )
        expected = {(a, b) for a, b in np.argwhere(overlap.all(axis=-1)).tolist() if a < b}
        pairs = [
            tuple(sorted(pair)) for pair in zip(*(side.tolist() for side in overlapping_pairs(boxes)), strict=True)
        ]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected


ONE_CLASS = StitchSettings(one_class_per_cell=True)


def test_a_cell_of_two_classes_keeps_the_better_one_where_that_is_asked_for() -> None:
    tile = Tile(0, 0, 64, 64)
    both = [block(10, 10, 20, 20, 0.6, 1), block(10, 10, 20, 21, 0.8, 2), block(40, 40, 50, 50, 0.5, 1)]
    assert len(stitch([tile], [both], 64, 64)) == 3
    assert keys(stitch([tile], [both], 64, 64, ONE_CLASS)) == keys([both[1], both[2]])


def test_a_cut_cell_whose_parts_are_of_two_classes_is_one_with_the_better_class() -> None:
    tiles = [Tile(0, 0, 64, 40), Tile(0, 30, 64, 40)]
    parts = [[block(20, 5, 30, 40, 0.6, 1)], [block(20, 30, 30, 65, 0.7, 2)]]  # longer than the overlap
    assert len(stitch(tiles, parts, 64, 70)) == 2
    assert keys(stitch(tiles, parts, 64, 70, ONE_CLASS)) == keys([block(20, 5, 30, 65, 0.7, 2)])


def test_class_probabilities_of_tiles_are_averaged() -> None:
    tiles = [Tile(0, 0, 40, 40), Tile(0, 20, 40, 40)]
    seen = [replace(block(10, 24, 20, 36), probabilities=shares) for shares in ((0.6, 0.4), (1.0, 0.0))]
    (whole,) = stitch(tiles, [[seen[0]], [seen[1]]], 40, 60)
    assert whole.probabilities == pytest.approx((0.8, 0.2))
    (alone,) = stitch(tiles, [[block(10, 24, 20, 36)], [seen[1]]], 40, 60)
    assert alone.probabilities == (1.0, 0.0)  # a detection that does not tell them says nothing
