"""Backbones, torchvision's and timm's: what the pyramid needs to know of them, their norms, and which layers train."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import convnext_base, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from src.common.errors import InputError, nearest
from src.config.settings import ModelSettings
from src.network.cpu_kernels import speed_up_depthwise
from src.network.norms import (
    IMAGE_MEAN,
    IMAGE_STD,
    FrozenBatchNorm2d,
    FrozenBatchNormAct2d,
    GroupNorm,
    GroupNormAct,
)
from src.network.pyramid import POOLED_LEVELS, POOLED_STRIDES

TIMM = "timm/"
_TRIED_SIZE = (96, 160)  # of an image that timm's networks are tried with, in px; a multiple of 32, and not square
MaybeNorm = Callable[..., nn.Module] | None


@dataclass(frozen=True)
class Architecture:
    """What the rest of the network must know of a backbone.

    Attributes:
        stages: names of the modules whose results feed the pyramid, at strides of 4, 8, 16 and 32 px.
        channels: of these results.
        indices: of these results among all that timm's network gives; empty for torchvision's.
        mean: of the images that the backbone was pretrained on, RGB in [0, 1].
        std: the standard deviation of these images.
    """

    stages: tuple[str, ...]
    channels: tuple[int, ...]
    indices: tuple[int, ...] = ()
    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour, RGB in 0..255, that the network sees as zero: what is outside of an image has it."""
        return tuple(round(255 * value) for value in self.mean)


class PyramidBackbone(nn.Module):
    """A backbone under a feature pyramid; its state dict has torchvision's names ``body…`` and ``fpn…``."""

    def __init__(self, body: nn.Module, fpn: FeaturePyramidNetwork, out_channels: int) -> None:
        super().__init__()
        self.body, self.fpn, self.out_channels = body, fpn, out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid of normalised images ``(B, 3, H, W)``: levels "0" to "3" of stride 4 to 32 px, and "pool"."""
        features = self.body(images)
        maps = features.values() if isinstance(features, Mapping) else features
        pyramid: dict[str, Tensor] = self.fpn(dict(zip(POOLED_LEVELS, maps, strict=True)))
        return pyramid


def build_backbone(settings: ModelSettings, norm_layer: MaybeNorm) -> PyramidBackbone:
    """The backbone and its pyramid, with random weights; ``norm_layer`` is that of the pyramid.

    Raises:
        InputError: timm has no such network, or its layers cannot feed a pyramid.
    """
    shape = architecture(settings.backbone)
    body = _timm_body(settings, shape) if shape.indices else _torchvision_body(settings)
    layers = settings.trainable_layers
    freeze(body, shape.stages, len(shape.stages) + 1 if layers == "auto" else layers)
    if not shape.indices:
        body = IntermediateLayerGetter(body, dict(zip(shape.stages, POOLED_LEVELS, strict=True)))
    channels = settings.fpn_channels
    fpn = FeaturePyramidNetwork(list(shape.channels), channels, LastLevelMaxPool(), norm_layer)
    return PyramidBackbone(body, fpn, channels)


def architecture(backbone: str) -> Architecture:
    """The architecture of a backbone; errors are as of :func:`build_backbone`."""
    if backbone.startswith(TIMM):
        return _timm_architecture(backbone)
    if backbone == "convnext_base":
        return Architecture(("1", "3", "5", "7"), (128, 256, 512, 1024))
    widest = 512 if backbone == "resnet18" else 2048
    return Architecture(("layer1", "layer2", "layer3", "layer4"), (widest // 8, widest // 4, widest // 2, widest))


@cache
def _timm_architecture(backbone: str) -> Architecture:
    """The architecture of a network of timm, which is run once on the ``meta`` device, where it costs no memory."""
    import timm  # slow to import

    name = backbone.removeprefix(TIMM)
    if not timm.is_model(name):
        close = nearest(backbone, [TIMM + known for known in timm.list_models()])
        raise InputError(f"--backbone {backbone}: timm has no network of this name{close}")
    try:
        with torch.device("meta"), torch.no_grad():
            body: Any = timm.create_model(name, features_only=True).eval()
            found = [tuple(features.shape) for features in body(torch.zeros(1, 3, *_TRIED_SIZE))]
    except Exception as error:  # each network has reasons of its own to give no features, or none at this size
        reason = (str(error) or repr(error)).splitlines()[0]
        raise InputError(f"--backbone {backbone}: cannot be the backbone ({reason})") from error
    indices = tuple(_index_of_stride(found, body.feature_info.channels(), stride) for stride in POOLED_STRIDES)
    if -1 in indices:
        raise InputError(
            f"--backbone {backbone}: cannot be the backbone (its features of an image of {_TRIED_SIZE} px are "
            f"{', '.join(map(str, found))}; strides of 4, 8, 16 and 32 are needed)"
        )
    stages = tuple(_stage_name(body, body.feature_info.module_name()[index]) for index in indices)
    stage_of_parameters(body, stages, backbone)
    mean, std = (timm.get_pretrained_cfg_value(name, key) for key in ("mean", "std"))
    channels = tuple(found[index][1] for index in indices)
    return Architecture(stages, channels, indices, mean or IMAGE_MEAN, std or IMAGE_STD)


def _index_of_stride(shapes: Sequence[tuple[int, ...]], channels: Sequence[int], stride: int) -> int:
    """The last of some features ``(1, C, H / stride, W / stride)`` of an image of ``_TRIED_SIZE``; -1 without any."""
    size = tuple(side // stride for side in _TRIED_SIZE)
    of_stride = (i for i, shape in enumerate(shapes) if shape == (1, channels[i], *size))
    return max(of_stride, default=-1)


def _stage_name(body: nn.Module, module: str) -> str:
    """The module that a feature is from; timm calls it as in the whole network, which may have more levels."""
    names = {name for name, _ in body.named_modules()}
    others = (module.replace(".", "_", 1), module.replace("stage", "layer"))  # the second in HRNet
    return next((name for name in (module, *others) if name in names), module)


def _timm_body(settings: ModelSettings, shape: Architecture) -> nn.Module:
    import timm

    name = settings.backbone.removeprefix(TIMM)
    body = timm.create_model(name, pretrained=False, features_only=True, out_indices=shape.indices)
    if settings.norm != "batch":
        _replace_batch_norms(body, settings.norm)
    speed_up_depthwise(body)
    return body


def _torchvision_body(settings: ModelSettings) -> nn.Module:
    if settings.backbone == "convnext_base":
        return convnext_base(weights=None).features  # has layer norms alone: there is nothing to replace
    body: nn.Module = getattr(resnet, settings.backbone)(weights=None, norm_layer=NORMS[settings.norm])
    return body


def _group_norm(channels: int) -> GroupNorm:
    return GroupNorm(_groups(channels), channels)


def _groups(channels: int) -> int:
    """About 32 groups of at least four channels; a divisor of the channels, which are odd numbers in some networks."""
    most = max(min(32, channels // 4), 1)
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
}


def _replace_batch_norms(module: nn.Module, norm: str) -> None:
    """Replace the batch norms in a module by frozen or group norms, with the activations that timm's have in them."""
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            _replace_batch_norms(child, norm)
            continue
        then: Any = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]
        channels, act = child.num_features, nn.Sequential(*then)
        with torch.device(child.weight.device):
            if norm == "group":
                setattr(module, name, GroupNormAct(act, _groups(channels), channels, child.eps))
            else:
                setattr(module, name, FrozenBatchNormAct2d(act, channels, child.eps))


def stage_of_parameters(body: nn.Module, stages: tuple[str, ...], backbone: str = "") -> dict[str, int]:
    """Parameter → the stage that it belongs to: 0 for the stem, 1 to 4 for the ``stages``, from the input on.

    Networks hold their layers in the order in which they use them, so what lies between two stages, like a
    downsampling, belongs to the second.

    Raises:
        InputError: the stages are not to be found, or not in this order.
    """
    names = [name for name, _ in body.named_parameters()]
    places = [[i for i, name in enumerate(names) if name.startswith(f"{stage}.")] for stage in stages]
    if not all(places) or any(before[-1] >= after[0] for before, after in pairwise(places)):
        raise InputError(f"--backbone {backbone}: its layers do not follow one another as stages {', '.join(stages)}")
    ends = [of_stage[-1] for of_stage in places[:-1]]
    return {name: 0 if i < places[0][0] else 1 + sum(i > end for end in ends) for i, name in enumerate(names)}


def freeze(body: nn.Module, stages: tuple[str, ...], trainable_layers: int) -> None:
    """Train only the top ``trainable_layers`` stages of the backbone; more than there are trains the stem too."""
    first_trained = len(stages) + 1 - trainable_layers
    stage_of = stage_of_parameters(body, stages)
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(stage_of[name] >= first_trained)
