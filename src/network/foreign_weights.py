"""Weights as other programs save them: what holds their state dict, and their names for a Mask R-CNN's tensors."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from src.network.norms import IMAGE_STD

# What trainers call the state dict in their files, the averaged weights first.
CONTAINERS = (
    "ema",
    "model_ema",
    "ema_state_dict",
    "model",
    "state_dict",
    "model_state_dict",
    "weights",
    "network",
    "net",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "detector.")  # of wrappers around the network

_TORCHVISION = (  # before version 0.13
    (r"backbone\.fpn\.(inner_blocks|layer_blocks)\.(\d)\.(weight|bias)", r"backbone.fpn.\1.\2.0.\3"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
)
_DETECTRON2 = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(.*)", r"backbone.body.bn1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.weight", r"backbone.body.conv1.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.(.*)", lambda m: f"{_layer(m)}.downsample.1.{m[3]}"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.weight", lambda m: f"{_layer(m)}.downsample.0.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.(.*)", lambda m: f"{_layer(m)}.bn{m[3]}.{m[4]}"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.weight", lambda m: f"{_layer(m)}.conv{m[3]}.weight"),
    (r"backbone\.fpn_lateral(\d)\.(weight|bias)", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 2}.0.{m[2]}"),
    (r"backbone\.fpn_output(\d)\.(weight|bias)", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 2}.0.{m[2]}"),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.*)", r"rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.*)", r"rpn.head.bbox_pred.\1"),
    (r"roi_heads\.box_head\.fc(\d)\.(.*)", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 5}.{m[2]}"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.*)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
    (r"roi_heads\.mask_head\.deconv\.(.*)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.*)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
)
_MMDETECTION = (
    (r"backbone\.((conv|bn)1|layer\d)\.(.*)", r"backbone.body.\1.\3"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(.*)", r"backbone.fpn.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(.*)", r"backbone.fpn.layer_blocks.\1.0.\2"),
    (r"rpn_head\.rpn_conv\.(.*)", r"rpn.head.conv.0.0.\1"),
    (r"rpn_head\.rpn_cls\.(.*)", r"rpn.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(.*)", r"rpn.head.bbox_pred.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(.*)", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 6}.{m[2]}"),
    (r"roi_head\.bbox_head\.fc_cls\.(.*)", r"roi_heads.box_predictor.cls_score.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.*)", r"roi_heads.box_predictor.bbox_pred.\1"),
    (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(.*)", r"roi_heads.mask_head.\1.0.\2"),
    (r"roi_head\.mask_head\.upsample\.(.*)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(.*)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
)
_BARE_BACKBONE = ((r"(?:features\.)?(.*)", r"backbone.body.\1"),)
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def unwrap(content: Any) -> Any:
    """The state dict in what a trainer saved, which may lie in dictionaries under one of :data:`CONTAINERS`."""
    while isinstance(content, dict):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict) and content[key]), None)
        if inner is None:
            break
        content = inner
    return content


def with_detector_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names that torchvision's Mask R-CNN has, which are those of this program.

    Understood are torchvision's detectors of any version, detectron2's and mmdetection's Mask R-CNN with ResNet and
    feature pyramid, and bare backbones; each with the prefixes that wrappers add. Other names are left as they are.
    """
    state = _without_prefixes(state)
    if any(name.startswith("backbone.bottom_up.") for name in state):
        return _background_first(_rgb_input(_renamed(state, _DETECTRON2)))
    if any(name.startswith(("neck.", "roi_head.", "rpn_head.")) for name in state):
        return _background_first(_renamed(state, _MMDETECTION))
    if any(name.startswith("backbone.") for name in state):
        return _renamed(state, _TORCHVISION)
    return _renamed(state, _BARE_BACKBONE)


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name for name in state}
    while names:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names.values())), None)
        if prefix is None:
            break
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    return {names[name]: tensor for name, tensor in state.items()}


def _layer(match: re.Match[str]) -> str:
    """detectron2 counts stages from the stem, torchvision from the first after it."""
    return f"backbone.body.layer{int(match[1]) - 1}.{match[2]}"


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    return {_rename(name, rules): tensor for name, tensor in state.items()}


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
    return name


def _rgb_input(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """detectron2's networks take BGR that is not divided by a standard deviation; adapt their first convolution."""
    name = "backbone.body.conv1.weight"
    if name in state and state[name].ndim == 4 and state[name].shape[1] == 3:
        scale = 255 * torch.tensor(IMAGE_STD, dtype=state[name].dtype).view(1, 3, 1, 1)
        state[name] = state[name].flip(1) * scale
    return state


def _background_first(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the background from the last class to the first; boxes and masks, which lack it, get zeros for it."""
    for name in list(state):
        tensor = state[name]
        if name.startswith("roi_heads.box_predictor.cls_score."):
            state[name] = tensor.roll(1, dims=0)
        elif name.startswith("roi_heads.box_predictor.bbox_pred."):
            state[name] = torch.cat([torch.zeros_like(tensor[:4]), tensor])
        elif name.startswith("roi_heads.mask_predictor.mask_fcn_logits."):
            state[name] = torch.cat([torch.zeros_like(tensor[:1]), tensor])
    return state
