"""Faster ways to the same results on a CPU, where torch and torchvision have slow ones."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
import torchvision.ops
from torch import Tensor, nn


def roi_align(features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int) -> Tensor:
    """torchvision's ``roi_align``, with a backward pass that uses all threads on a CPU."""
    if features.device.type == "cpu" and features.requires_grad:
        pooled: Tensor = _ParallelRoIAlign.apply(features, rois, size, scale, sampling_ratio)
        return pooled
    return torchvision.ops.roi_align(features, rois, size, scale, sampling_ratio)


class _ParallelRoIAlign(torch.autograd.Function):
    """torchvision's backward pass runs in one thread; here each thread has channels of its own."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.features_like, ctx.size = (features.shape, features.dtype), size
        ctx.scale, ctx.sampling_ratio = scale, sampling_ratio
        return torchvision.ops.roi_align(features, rois, size, scale, sampling_ratio)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rois,) = ctx.saved_tensors
        (batch, channels, height, width), kind = ctx.features_like
        threads = min(torch.get_num_threads(), channels)

        def of_channels(gradient: Tensor) -> Tensor:
            return torch.ops.torchvision._roi_align_backward(
                gradient.to(rois.dtype).contiguous(), rois, ctx.scale, ctx.size, ctx.size,
                batch, gradient.shape[1], height, width, ctx.sampling_ratio, False,
            )  # fmt: skip

        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(of_channels, gradients[0].chunk(threads, dim=1)))
        return torch.cat(parts, dim=1).to(kind), None, None, None, None


def speed_up_depthwise(module: nn.Module) -> None:
    """Let the depthwise convolutions in a module compute in float32 on a CPU, which takes less time there than bf16."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1:
            child.forward = partial(_in_float32, child.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        y = forward(x.float().contiguous(memory_format=torch.channels_last))
    return y.to(torch.get_autocast_dtype("cpu"))
