"""Masks made from detections are those of torchvision."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from src.instances import from_detections

SIZE = (60, 80)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Fractional boxes up to 60 px, a third tiny, many partly outside (torchvision fails on those wholly so)."""
    centre = rng.uniform(0, 1, (count, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
    half = np.where(rng.random((count, 1)) < 0.3, rng.uniform(0, 2, (count, 2)), rng.uniform(1, 30, (count, 2)))
    return np.hstack([centre - half, centre + half]).astype(np.float32)


def random_masks(rng: np.random.Generator, count: int, resolution: int) -> np.ndarray:
    """Smooth probabilities in [0, 1]."""
    smooth = gaussian_filter(rng.normal(size=(count, resolution, resolution)), (0, 2, 2))
    return (1 / (1 + np.exp(-20 * smooth))).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("resolution", [14, 28, 56])
def test_masks_equal_torchvision(resolution: int) -> None:
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    rng = np.random.default_rng(resolution)
    boxes, masks = random_boxes(rng, 200), random_masks(rng, 200, resolution)
    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), SIZE)[:, 0].numpy()
    found = from_detections(boxes, np.ones(200), np.ones(200, int), masks, SIZE)
    assert sum(instance is not None for instance in found) > 50
    for instance, expected in zip(found, pasted, strict=True):
        mine = np.zeros(SIZE, bool)
        if instance:
            mine[instance.top : instance.bottom, instance.left : instance.right] = instance.mask
        # Where the interpolated probability is 0.5 itself, the two may round to different sides.
        differs = mine != (expected > 0.5)
        assert np.all(np.abs(expected[differs] - 0.5) <= 1e-5)
