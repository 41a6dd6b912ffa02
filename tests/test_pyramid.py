"""Levels of the pyramid: RoIs pooled as torchvision pools them, and coordinates that half precision does not touch."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from engine.pyramid import PyramidRoIAlign, pyramid_level
from engine.weights import resolve
from model import build_model
from src.settings import ModelSettings

pytestmark = pytest.mark.torch
SMALL = ModelSettings(
    backbone="resnet18", weights="none", anchors="8,16,32,64,128", fpn_channels=16, box_head_dim=16,
    mask_head_channels=8, mask_head_layers=1, rois_per_tile=16, proposals=50,
)  # fmt: skip


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


def test_levels_by_hand() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 448, 5000, 0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pyramid_level(boxes).tolist() == [0, 0, 1, 1, 2, 3, 3, 0]


@pytest.mark.parametrize("size", [500, 1000])
def test_proposals_under_autocast_stay_where_they_are(size: int) -> None:
    """In bf16, numbers beyond 256 lie 2 px apart, and beyond 512, 4 px."""
    torch.manual_seed(0)
    model = build_model(resolve(replace(SMALL, norm="frozen"), 20), 3).eval()
    tile = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    decoded = []
    decode = model.rpn.box_coder.decode
    model.rpn.box_coder.decode = lambda *arguments: decoded.append(decode(*arguments)) or decoded[-1]
    with torch.inference_mode():
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                model(tile)
    exact, under_autocast = decoded
    assert under_autocast.dtype == torch.float32 and exact.max() > size
    assert (under_autocast - exact).abs().max() < 0.5
