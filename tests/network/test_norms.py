"""Norms in half precision: the same values, and half the memory of what a step keeps."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import misc

from model import build_model
from src.config.settings import ModelSettings
from src.network.norms import FrozenBatchNorm2d, GroupNorm
from src.network.weights import resolve
from tests.fake_cuda import to_cpu

pytestmark = pytest.mark.torch
SMALL = ModelSettings(backbone="resnet18", weights="none", trainable_layers=5, fpn_channels=64, head_norm="off")


def test_values_are_those_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5) * 3
    frozen, theirs = FrozenBatchNorm2d(8), misc.FrozenBatchNorm2d(8)
    state = {name: torch.rand(8) + 0.5 for name in frozen.state_dict()}
    frozen.load_state_dict(state)
    theirs.load_state_dict(state)
    group, group_theirs = GroupNorm(2, 8), torch.nn.GroupNorm(2, 8)
    for ours, reference in ((frozen, theirs), (group, group_theirs)):
        assert torch.allclose(ours(x), reference(x), atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = ours(x.bfloat16())
        assert half.dtype == torch.bfloat16 and (half.float() - reference(x)).abs().max() < 0.1


def kept_bytes(model: torch.nn.Module, amp: bool, device: str = "cpu") -> int:
    """Bytes that the backward pass of the backbone keeps, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = to_cpu(tensor).untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no other storage gets its address
        return tensor

    parameters = {to_cpu(parameter).untyped_storage().data_ptr() for parameter in model.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(device, torch.bfloat16, enabled=amp),
    ):
        features = model(torch.rand(1, 3, 128, 128, device=device))
    assert features
    return sum(storage.nbytes() for place, storage in storages.items() if place not in parameters)


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_half_precision_halves_what_a_step_keeps(norm: str) -> None:
    """Besides activations, a step keeps the weights in half precision: without them it would be half."""
    backbone = build_model(resolve(replace(SMALL, norm=norm), 20), 2).backbone.train()
    in_half = sum(parameter.numel() * 2 for parameter in backbone.parameters() if parameter.ndim > 1)
    full, half = kept_bytes(backbone, amp=False), kept_bytes(backbone, amp=True) - in_half
    assert 0.4 * full < half < 0.6 * full
