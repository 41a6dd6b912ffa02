"""The region proposal network: torchvision's losses, and coordinates that half precision does not touch."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.rpn import RegionProposalNetwork

from model import build_model
from src.config.settings import ModelSettings
from src.network.rpn import TiledRPN
from src.network.weights import resolve

pytestmark = pytest.mark.torch
SMALL = ModelSettings(
    backbone="resnet18", weights="none", anchors="8,16,32,64,128", fpn_channels=16, box_head_dim=16,
    mask_head_channels=8, mask_head_layers=1, rois_per_tile=16, proposals=50,
)  # fmt: skip


def test_losses_are_torchvisions_for_the_same_anchors() -> None:
    torch.manual_seed(0)
    rpn = TiledRPN((8, 16), (0.5, 1, 2), channels=4, convolutions=1, proposals=10)
    logits, offsets = torch.randn(3000, 1, requires_grad=True), torch.randn(3000, 4, requires_grad=True)
    labels = [torch.randint(-1, 2, (1500,)).float(), torch.zeros(1500)]
    targets = [torch.randn(1500, 4), torch.full((1500, 4), -torch.inf)]  # a tile without cells has no box to learn
    masks = rpn.fg_bg_sampler(labels)
    rpn.fg_bg_sampler = lambda _: masks
    results = []
    for compute in (rpn.compute_loss, lambda *given: RegionProposalNetwork.compute_loss(rpn, *given)):
        losses = compute(logits, offsets, labels, targets)
        results.append([*losses, *torch.autograd.grad(sum(losses), (logits, offsets))])
    assert results[0][0] > 0 and results[0][1] > 0
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("size", [500, 1000])
def test_proposals_under_autocast_stay_where_they_are(size: int) -> None:
    """In bf16, numbers beyond 256 lie 2 px apart, and beyond 512, 4 px."""
    torch.manual_seed(0)
    model = build_model(resolve(replace(SMALL, norm="frozen"), 20), 2).eval()
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


def test_the_objectness_of_the_last_proposal_is_kept() -> None:
    torch.manual_seed(0)
    rpn = TiledRPN((8, 16), (0.5, 1, 2), channels=4, convolutions=1, proposals=10).eval()
    boxes = torch.tensor([[[0.0, 0, 8, 8], [20, 20, 30, 30], [40, 40, 44, 44]]]).repeat(2, 1, 1)
    objectness = torch.tensor([[2.0, -1, 0], [0.0, 3, -40]])
    kept, scores = rpn.filter_proposals(boxes, objectness.reshape(-1, 1), [(64, 64)] * 2, [2, 1])
    assert [len(of_tile) for of_tile in kept] == [3, 3]
    assert [last.tolist() for last in rpn.last_objectness] == [scores[0][-1:].tolist(), scores[1][-1:].tolist()]
    assert rpn.last_objectness[0].item() == pytest.approx(objectness[0, 1].sigmoid().item())
