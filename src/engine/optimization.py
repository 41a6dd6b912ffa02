"""Optimizer, learning rate, averaged weights."""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from src.config.checks import parse_class_weights
from src.config.settings import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD or AdamW on the trained parameters, without weight decay for norms and biases (1-d tensors)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(parameter.is_cuda for parameter in trained)  # one kernel for all tensors
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)
    optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    if settings.momentum:
        # torch would make it in the first step, and fused in a way that leaves it unwritten where fp16 skips that step.
        for parameter in trained:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load an optimizer's state that may come from another kind of device.

    Which kernels run is this device's choice, not the file's, and the state is laid out in memory as its parameter is,
    because fused kernels take that for granted.
    """
    own = ("fused", "foreach")
    groups = [
        {**group, **{name: ours[name] for name in own}}
        for group, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def learning_rate(settings: OptimizerSettings, step: int, epoch: int, progress: float) -> float:
    """The rate of a step: linear warm-up in steps, then the schedule.

    Args:
        step: optimizer steps done before.
        progress: share of the whole run that is done, in [0, 1].
    """
    rate = settings.lr * min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if settings.schedule == "step":
        return rate * 0.1 ** (epoch // settings.step_epochs)
    return rate


class AveragedWeights:
    """An exponential moving average of a model's floating-point weights and buffers; the rest is copied.

    Early on the decay is smaller, ``(1 + n) / (10 + n)`` after n steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after its ``step``-th step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = list(_state(self.model)), list(_state(model))
        floating = [i for i, tensor in enumerate(averaged) if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[i] for i in floating], [current[i] for i in floating], 1 - decay)
        for own, other in zip(averaged, current, strict=True):
            if not own.is_floating_point():
                own.copy_(other)


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def class_weights(text: str, counts: list[int]) -> Tensor | None:
    """Weights ``(K + 1,)`` of the classifier loss, background first; ``None`` for equal ones.

    Args:
        text: ``none``; ``auto``, which weighs a class by the inverse square root of its number of cells, with a mean
            of 1 over the cells; or K + 1 numbers.
        counts: cells of classes 1..K in the training part.

    Raises:
        InputError: for other text than that.
    """
    if text == "none":
        return None
    if text != "auto":
        return torch.tensor(parse_class_weights(text, len(counts)), dtype=torch.float32)
    cells = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    inverse = cells.rsqrt()
    inverse /= (inverse * cells).sum() / cells.sum()
    return torch.cat([torch.ones(1, dtype=torch.float64), inverse]).float()
