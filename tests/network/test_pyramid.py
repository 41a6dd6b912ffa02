"""RoIs are pooled from the levels of the pyramid as torchvision pools them."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from src.network.pyramid import PyramidRoIAlign, pyramid_level

pytestmark = pytest.mark.torch


def random_boxes(count: int, side: int) -> torch.Tensor:
    corners = torch.rand(count, 2) * side * 0.8
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) ** 3 * side], dim=1)


def test_rois_are_pooled_as_torchvision_pools_them() -> None:
    torch.manual_seed(0)
    features = {str(level): torch.rand(2, 8, 512 >> level + 2, 512 >> level + 2) for level in range(4)}
    boxes = [random_boxes(60, 512), random_boxes(40, 512)]
    for own, theirs in ((PyramidRoIAlign(7, 2), 7), (PyramidRoIAlign(14, 1), 14)):
        torchvisions = MultiScaleRoIAlign(list(features), theirs, own.sampling_ratio)
        assert torch.equal(own(features, boxes), torchvisions(features, boxes, [(512, 512)] * 2))
    assert PyramidRoIAlign(7, 2)(features, [boxes[0][:0], boxes[0][:0]]).shape == (0, 8, 7, 7)


def test_gradients_reach_each_level_as_in_torchvision() -> None:
    torch.manual_seed(0)
    features = {str(level): torch.rand(1, 4, 512 >> level + 2, 512 >> level + 2) for level in range(4)}
    boxes, gradients = [torch.cat([random_boxes(80, 512), torch.tensor([[4.0, 4, 500, 500]])])], []
    for pool in (PyramidRoIAlign(7, 2), MultiScaleRoIAlign(list(features), 7, 2)):
        leaves = {name: level.clone().requires_grad_() for name, level in features.items()}
        pool(leaves, boxes, [(512, 512)]).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves.values()])
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0 and torch.allclose(ours, theirs, atol=1e-4)


def test_gradients_in_mixed_precision_are_those_of_float32() -> None:
    torch.manual_seed(0)
    boxes, gradients = [random_boxes(40, 64)], []
    level = torch.rand(1, 5, 16, 16)  # of five channels, which no number of threads divides
    for amp in (False, True):
        leaf = (level.bfloat16() if amp else level.clone()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            pooled = PyramidRoIAlign(7, 2)(dict.fromkeys("0123", leaf), boxes)
        pooled.float().sum().backward()
        assert leaf.grad is not None and leaf.grad.dtype == leaf.dtype
        gradients.append(leaf.grad.float())
    assert torch.allclose(*gradients, rtol=0.02, atol=0.05)


def test_levels_by_hand() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 448, 5000, 0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pyramid_level(boxes).tolist() == [0, 0, 1, 1, 2, 3, 3, 0]
