"""A perfect mask head gives the cells back: training's mask targets, turned into objects again."""

import numpy as np
import pytest
import torch

from engine.mask_targets import sample_mask_targets
from src.instances import from_detections

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


@pytest.mark.parametrize(("low", "high", "least"), [(5, 9, 0.95), (9, 16, 0.95), (16, 40, 0.95), (40, 90, 0.97)])
def test_cells_survive_the_mask_head_better_than_in_torchvision(low: float, high: float, least: float) -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    rng = np.random.default_rng(int(low))
    masks = ellipses(rng, 60, low, high)
    boxes = tight_boxes(masks) + rng.uniform(-0.3, 0.3, (60, 4)).astype(np.float32)
    label_maps = torch.from_numpy(masks.astype(np.int32))[:, None]
    index, zeros, ones = torch.arange(60), torch.zeros(60, dtype=torch.int64), torch.ones(60, dtype=torch.int64)
    targets = sample_mask_targets(label_maps, torch.from_numpy(boxes), index, zeros, ones, 28)
    found = from_detections(boxes, np.ones(60), np.ones(60, int), targets.numpy(), SIZE)
    ours = np.zeros_like(masks)
    for canvas, instance in zip(ours, found, strict=True):
        assert instance is not None
        canvas[instance.top : instance.bottom, instance.left : instance.right] = instance.mask
    theirs = paste_masks_in_image(targets[:, None], torch.from_numpy(boxes), SIZE)[:, 0].numpy() > 0.5
    assert ious(masks, ours).min() >= least
    assert ious(masks, ours).mean() > ious(masks, theirs).mean()


def test_boxes_outside_the_image_or_without_a_sure_pixel_are_none() -> None:
    boxes = np.array([(-30, -30, -5, -5), (200, 10, 220, 30), (10, 10, 30, 30), (-5, -5, 8, 8)], np.float32)
    masks = np.ones((4, 28, 28), np.float32)
    masks[2] = 0.5
    found = from_detections(boxes, np.ones(4), np.ones(4, int), masks, SIZE)
    assert found[:3] == [None] * 3
    assert found[3] is not None and (found[3].top, found[3].left, found[3].mask.shape) == (0, 0, (8, 8))
