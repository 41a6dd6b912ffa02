"""The optimizer's state: there from the start, and good for whatever device a run goes on with."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from src.config.settings import OptimizerSettings
from src.engine.optimization import build_optimizer, restore_optimizer

pytestmark = pytest.mark.torch


def network(channels_last: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return model.to(memory_format=torch.channels_last) if channels_last else model


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for step in range(count):
        torch.manual_seed(step)
        loss = model(torch.rand(2, 3, 8, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_momentum_that_is_there_from_the_start_changes_nothing() -> None:
    ours, theirs = network(), network()
    settings = OptimizerSettings(lr=0.1, weight_decay=0.0)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=settings.momentum)
    assert take_steps(ours, build_optimizer(ours, settings), 5) == take_steps(theirs, plain, 5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("to_channels_last", [False, True])
def test_a_state_goes_on_under_other_kernels_and_another_layout(optimizer: str, to_channels_last: bool) -> None:
    """As between a CPU and a GPU, whose kernels are fused and whose weights are channels-last."""
    settings = OptimizerSettings(optimizer=optimizer, lr=0.01)
    first = network(channels_last=not to_channels_last)
    fused = build_optimizer(first, settings)
    for group in fused.param_groups:
        group["fused"] = not to_channels_last
    take_steps(first, fused, 3)
    second = network(to_channels_last)
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, settings)
    for group in resumed.param_groups:
        group["fused"] = to_channels_last
    restore_optimizer(resumed, deepcopy(fused.state_dict()))
    assert [group["fused"] for group in resumed.param_groups] == [to_channels_last] * 2
    for parameter in second.parameters():
        for value in resumed.state[parameter].values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                assert value.stride() == parameter.stride() and not value.requires_grad
    assert take_steps(second, resumed, 3) == pytest.approx(take_steps(first, fused, 3), rel=1e-5)
