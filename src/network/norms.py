"""Normalisation: of the input, and layers that stay in their input's type, so that mixed precision saves memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import misc

from src.common.errors import InputError

IMAGE_MEAN = (0.485, 0.456, 0.406)  # RGB, of ImageNet, which torchvision's pretrained backbones expect
IMAGE_STD = (0.229, 0.224, 0.225)


@contextmanager
def norm_errors() -> Iterator[None]:
    """Report in one line that batch norm got a single value per channel, of which there is no variance.

    Raises:
        InputError: in place of torch's ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "--norm batch: a batch holds one value per channel; "
            "use a larger --tile-size or --batch-size, or --norm group"
        ) from error


class FrozenBatchNorm2d(misc.FrozenBatchNorm2d):
    """torchvision's, but with a result of the input's type.

    Its float32 statistics would turn every activation after it into float32, which takes more memory than no mixed
    precision at all. Scale and shift are computed in float32 and then rounded to the input's type.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` with the stored mean and variance."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        shape = (1, -1, 1, 1)
        return torch.addcmul(shift.to(x.dtype).reshape(shape), x, scale.to(x.dtype).reshape(shape))


class GroupNorm(nn.GroupNorm):
    """torch's, but with a result of the input's type: autocast would keep both input and result in float32.

    Mean and variance are accumulated in float32 all the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` by the mean and variance of each group of channels."""
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """A frozen batch norm followed by ``act``, as timm's networks have both in one layer; it has no other tensors."""

    def __init__(self, act: nn.Module, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` and apply the activation."""
        activated: Tensor = self.act(super().forward(x))
        return activated


class GroupNormAct(GroupNorm):
    """A group norm followed by ``act``, as timm's networks have both in one layer; it has no other tensors."""

    def __init__(self, act: nn.Module, groups: int, channels: int, eps: float) -> None:
        super().__init__(groups, channels, eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` and apply the activation."""
        activated: Tensor = self.act(super().forward(x))
        return activated
