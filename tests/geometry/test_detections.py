"""A perfect mask head gives the cells back: training's mask targets, turned into objects again."""

import numpy as np
import pytest
import torch

from src.geometry.detections import Detections, from_network, resample, to_instances, without_specks
from src.geometry.instances import Instance
from src.geometry.tiles import Tile
from src.geometry.views import VIEWS, View, merge, undo
from src.network.targets import sample_mask_targets

pytestmark = pytest.mark.torch
SIZE = (120, 160)


def ellipses(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """``(N, H, W)`` masks of random ellipses, diameters in px; some reach over the image's edge."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = []
    while len(masks) < count:
        y, x = rng.uniform((0, 0), SIZE)
        a, b = rng.uniform(low / 2, high / 2, 2)
        mask = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1
        if mask.sum() > 12:
            masks.append(mask)
    return np.array(masks)


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    places = [np.nonzero(mask) for mask in masks]
    return np.array([(c.min(), r.min(), c.max() + 1, r.max() + 1) for r, c in places], np.float32)


def ious(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (masks & others).sum(axis=(1, 2)) / (masks | others).sum(axis=(1, 2))


def perfect_masks(masks: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
    """What training teaches the mask head for each object in its box."""
    label_maps = torch.from_numpy(masks.astype(np.int32))[:, None]
    index, zeros = torch.arange(len(masks)), torch.zeros(len(masks), dtype=torch.int64)
    return sample_mask_targets(label_maps, torch.from_numpy(boxes), index, zeros, torch.ones_like(zeros), 28)


def perfect_network(masks: np.ndarray, boxes: np.ndarray) -> Detections:
    scores, labels = np.full(len(boxes), 0.9, np.float32), np.ones(len(boxes), np.int64)
    return from_network(boxes, scores, labels, perfect_masks(masks, boxes).numpy())


def paint(instances: list[Instance], size: tuple[int, int] = SIZE) -> np.ndarray:
    canvases = np.zeros((len(instances), *size), bool)
    for canvas, instance in zip(canvases, instances, strict=True):
        canvas[instance.top : instance.bottom, instance.left : instance.right] = instance.mask
    return canvases


@pytest.mark.parametrize(("low", "high", "least"), [(5, 9, 0.95), (9, 16, 0.95), (16, 40, 0.95), (40, 90, 0.97)])
def test_cells_survive_the_mask_head_better_than_in_torchvision(low: float, high: float, least: float) -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    rng = np.random.default_rng(int(low))
    masks = ellipses(rng, 60, low, high)
    boxes = tight_boxes(masks) + rng.uniform(-0.3, 0.3, (60, 4)).astype(np.float32)
    ours = paint(to_instances(perfect_network(masks, boxes), Tile(0, 0, *SIZE)))
    theirs = paste_masks_in_image(perfect_masks(masks, boxes)[:, None], torch.from_numpy(boxes), SIZE)[:, 0].numpy()
    assert ious(masks, ours).min() >= least
    assert ious(masks, ours).mean() > ious(masks, theirs > 0.5).mean()


def only(found: Detections, index: int) -> Detections:
    return Detections(*(values[index : index + 1] for values in vars(found).values()))


def look(masks: np.ndarray, view: View) -> np.ndarray:
    masks = masks.transpose(0, 2, 1) if view.transpose else masks
    masks = masks[:, ::-1] if view.flip_rows else masks
    return np.ascontiguousarray(masks[:, :, ::-1] if view.flip_columns else masks)


@pytest.mark.parametrize("view", VIEWS["full"])
def test_a_perfect_network_finds_the_same_in_every_view(view: View) -> None:
    """RoIAlign's half px goes the other way in a flipped view."""
    masks = ellipses(np.random.default_rng(3), 40, 5, 20)
    seen = look(masks, view)
    found = undo(perfect_network(seen, tight_boxes(seen)), view, *SIZE)
    assert ious(masks, paint(to_instances(found, Tile(0, 0, *SIZE)))).min() >= 0.95


def test_views_of_a_perfect_network_merge_to_the_cells() -> None:
    """Each view's boxes are off by up to a px: masks are averaged where they lie in the image, not in their boxes."""
    rng = np.random.default_rng(4)
    masks = ellipses(rng, 40, 8, 30)
    found = []
    for view in VIEWS["full"]:
        seen = look(masks, view)
        boxes = tight_boxes(seen) + rng.uniform(-1, 1, (len(masks), 4)).astype(np.float32)
        found.append(undo(perfect_network(seen, boxes), view, *SIZE))
    each = [
        merge([Detections(*(values[i : i + 1] for values in vars(view).values())) for view in found]) for i in range(40)
    ]
    merged = paint([to_instances(one, Tile(0, 0, *SIZE))[0] for one in each])
    assert ious(masks, merged).min() >= 0.9 and ious(masks, merged).mean() >= 0.97


@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_cells_of_a_magnified_image_come_back(scale: float) -> None:
    masks = ellipses(np.random.default_rng(5), 20, 24, 60)
    side = [round(length * scale) for length in SIZE]
    rows, columns = (((np.arange(n) + 0.5) / scale).astype(int) for n in side)
    seen = masks[:, rows][:, :, columns]
    found = perfect_network(seen, tight_boxes(seen)).placed(0, 0, (scale, scale))
    assert ious(masks, paint(to_instances(found, Tile(0, 0, *SIZE)))).mean() >= (0.99 if scale > 1 else 0.9)


def detections(boxes: list[tuple[float, ...]], masks: np.ndarray) -> Detections:
    count = len(boxes)
    places = np.array(boxes, np.float32).reshape(-1, 4)
    return from_network(places, np.linspace(0.75, 0.5, count, dtype=np.float32), np.arange(1, count + 1), masks)


def test_nothing_outside_the_image_and_without_a_sure_pixel() -> None:
    masks = np.ones((6, 28, 28), np.float32)
    masks[2] = 0.5
    boxes = [(-30, -30, -5, -5), (200, 10, 220, 30), (10, 10, 30, 30), (-5, -5, 8, 8), (50, 130, 60, 150), (9, 9, 9, 9)]
    (found,) = to_instances(detections(boxes, masks), Tile(0, 0, *SIZE))
    assert (found.class_id, found.top, found.left, found.mask.shape) == (4, 0, 0, (8, 8))
    assert to_instances(detections([], np.zeros((0, 28, 28), np.float32)), Tile(0, 0, 10, 10)) == []


def test_a_detection_by_hand() -> None:
    """In a box of 28 px each cell of the mask is one px; training sampled it half a px on, so it covers two halves."""
    masks = np.zeros((2, 28, 28), np.float32)
    masks[0, 5:20, 3:9] = 1
    (found,) = to_instances(detections([(10, 20, 38, 48), (10, 20, 38, 48)], masks), Tile(0, 0, 80, 90))
    assert (found.class_id, found.score) == (1, 0.75)
    assert (found.top, found.left, found.mask.shape) == (26, 14, (14, 5)) and found.mask.all()


def test_many_sizes_together_are_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform((-20, -20), (150, 110), (300, 2))
    boxes = np.hstack((corners, corners + rng.uniform(0.5, 90, (300, 2)) ** rng.uniform(0.2, 1, (300, 1))))
    masks = rng.random((300, 28, 28)).astype(np.float32)
    everything = detections([tuple(box) for box in boxes], masks)
    alone = [found for i in range(300) for found in to_instances(only(everything, i), Tile(0, 0, *SIZE))]
    together = to_instances(everything, Tile(0, 0, *SIZE))
    assert [(i.class_id, i.score, i.top, i.left) for i in together] == [
        (i.class_id, i.score, i.top, i.left) for i in alone
    ]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(together, alone, strict=True))


def test_resampling_by_hand() -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (1, 4, 1))
    box = np.array([[0, 0, 8, 8]], np.float32)
    assert np.array_equal(resample(ramp, box, box), ramp)
    moved = resample(ramp, box, box + np.float32([1, 0, 1, 0]))  # half a cell to the right; the last is held
    assert moved[0, 0].tolist() == [0.5, 1.5, 2.5, 3.0]


def test_a_mask_reaches_out_of_its_box_as_far_as_its_roi() -> None:
    box, roi = np.array([[10, 10, 20, 20]], np.float32), np.array([[8, 8, 22, 22]], np.float32)
    ones, sure = np.ones((1, 28, 28), np.float32), np.ones(1, np.float32)
    (narrow,) = to_instances(from_network(box, sure, np.ones(1, int), ones), Tile(0, 0, 40, 40))
    (wide,) = to_instances(from_network(box, sure, np.ones(1, int), ones, roi), Tile(0, 0, 40, 40))
    assert (narrow.top, narrow.bottom, narrow.left, narrow.right) == (10, 20, 10, 20)
    assert (wide.top, wide.bottom, wide.left, wide.right) == (8, 22, 8, 22)


def test_nothing_is_drawn_outside_of_the_tile() -> None:
    """A mask RoI may reach out of the tile, where the network saw nothing."""
    box, sure = np.array([[20, 20, 40, 40]], np.float32), np.full(1, 0.9, np.float32)
    found = from_network(box, sure, np.ones(1, int), np.ones((1, 28, 28), np.float32))
    (cell,) = to_instances(found, Tile(10, 25, 20, 30))
    assert (cell.top, cell.left, cell.bottom, cell.right) == (20, 25, 30, 40)


def test_specks_beside_a_cell_are_left_out_and_large_pieces_are_not() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:12, 2:12] = True  # 100 px
    mask[2:5, 20:24], mask[15:18, 2:5] = True, True  # 12 px and 9 px
    expected = mask.copy()
    expected[15:18, 2:5] = False
    alone, nothing = np.zeros((2, 20, 30), bool)
    alone[15:18, 2:5] = True  # no speck where there is nothing else, and none beside its neighbours in the stack
    assert (without_specks(np.stack([nothing, mask, alone])) == np.stack([nothing, expected, alone])).all()
    assert (without_specks(np.stack([expected, alone])) == np.stack([expected, alone])).all()
    assert without_specks(np.zeros((0, 4, 4), bool)).shape == (0, 4, 4)
    assert not without_specks(np.zeros((1, 4, 4), bool)).any()
