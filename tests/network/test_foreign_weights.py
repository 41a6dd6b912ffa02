"""Weights under the names of other programs load as those of this one do."""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import TiledMaskRCNN, build_model
from src.common.errors import InputError
from src.config.settings import ModelSettings, PredictSettings
from src.network.foreign_weights import with_detector_names
from src.network.norms import IMAGE_STD
from src.network.weights import load_matching, read_weights, resolve

pytestmark = pytest.mark.torch
SETTINGS = resolve(
    ModelSettings(
        backbone="resnet50", weights="none", norm="frozen", head_norm="off", anchors="default", fpn_channels=16,
        box_head_dim=16, mask_head_channels=8, trainable_layers=5,
    ),
    20,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> TiledMaskRCNN:
    torch.manual_seed(0)
    return build_model(SETTINGS, 3, PredictSettings(score_thresh=0.0, detections_per_tile=10)).eval()


def save_and_load(model: TiledMaskRCNN, content: Any, path: Path) -> tuple[TiledMaskRCNN, Any]:
    """What ``--weights`` makes of a file, in a network whose own weights are others."""
    torch.save(content, path)
    torch.manual_seed(1)
    other = build_model(SETTINGS, 3, PredictSettings(score_thresh=0.0, detections_per_tile=10)).eval()
    report = load_matching(other, read_weights(replace(SETTINGS, weights=str(path))) or {}, str(path))
    return other, report


def same_detections(one: TiledMaskRCNN, other: TiledMaskRCNN) -> None:
    tile = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (first,), (second,) = one(tile), other(tile)
    assert len(first["boxes"]) > 0
    for name, values in first.items():
        assert torch.allclose(values.float(), second[name].float(), atol=1e-4), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},  # torchvision's reference
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "global_step": torch.tensor(3)},
        lambda state: {"model_state_dict": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {"weights": {f"module.model.{k}": v for k, v in state.items()}},
        lambda state: {"ema": {"state_dict": state}, "model": {"x": torch.zeros(1)}},
        lambda state: {"state_dict": {f"_orig_mod.{k}": v for k, v in state.items()}},
    ],
)
def test_containers_and_prefixes(model: TiledMaskRCNN, tmp_path: Path, wrap: Any) -> None:
    loaded, report = save_and_load(model, wrap(dict(model.state_dict())), tmp_path / "w.pt")
    assert not report.left_over and not report.random
    same_detections(model, loaded)


def test_torchvision_before_its_names_changed(model: TiledMaskRCNN, tmp_path: Path) -> None:
    old = OrderedDict()
    for name, tensor in model.state_dict().items():
        name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", name).replace(
            "head.conv.0.0.", "head.conv."
        )
        old[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)] = tensor
    assert old.keys() != model.state_dict().keys()
    loaded, report = save_and_load(model, old, tmp_path / "w.pt")
    assert not report.left_over and not report.random
    same_detections(model, loaded)


def background_last(name: str, tensor: Tensor) -> Tensor:
    """As detectron2 and mmdetection order classes: the background last in the scores, absent in boxes and masks."""
    if "cls_score" in name:
        return tensor.roll(-1, dims=0)
    if "box_predictor.bbox_pred" in name:
        return tensor[4:]
    return tensor[1:] if "mask_fcn_logits" in name else tensor


DETECTRON2 = [
    (r"backbone\.body\.conv1\.weight", "backbone.bottom_up.stem.conv1.weight"),
    (r"backbone\.body\.bn1\.(.*)", r"backbone.bottom_up.stem.conv1.norm.\1"),
    (r"backbone\.body\.layer(\d)\.(\d)\.downsample\.0\.(.*)", r"backbone.bottom_up.res<\1>.\2.shortcut.\3"),
    (r"backbone\.body\.layer(\d)\.(\d)\.downsample\.1\.(.*)", r"backbone.bottom_up.res<\1>.\2.shortcut.norm.\3"),
    (r"backbone\.body\.layer(\d)\.(\d)\.bn(\d)\.(.*)", r"backbone.bottom_up.res<\1>.\2.conv\3.norm.\4"),
    (r"backbone\.body\.layer(\d)\.(\d)\.conv(\d)\.(.*)", r"backbone.bottom_up.res<\1>.\2.conv\3.\4"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.*)", r"backbone.fpn_lateral<<\1>>.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.*)", r"backbone.fpn_output<<\1>>.\2"),
    (r"rpn\.head\.conv\.0\.0\.(.*)", r"proposal_generator.rpn_head.conv.\1"),
    (r"rpn\.head\.cls_logits\.(.*)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn\.head\.bbox_pred\.(.*)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(.*)", r"roi_heads.box_head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(.*)", r"roi_heads.box_head.fc2.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(.*)", r"roi_heads.mask_head.mask_fcn<\1>.\2"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.*)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.*)", r"roi_heads.mask_head.predictor.\1"),
]
MMDETECTION = [
    (r"backbone\.body\.(.*)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.*)", r"neck.lateral_convs.\1.conv.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.*)", r"neck.fpn_convs.\1.conv.\2"),
    (r"rpn\.head\.conv\.0\.0\.(.*)", r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits\.(.*)", r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred\.(.*)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.fc6\.(.*)", r"roi_head.bbox_head.shared_fcs.0.\1"),
    (r"roi_heads\.box_head\.fc7\.(.*)", r"roi_head.bbox_head.shared_fcs.1.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.*)", r"roi_head.bbox_head.fc_cls.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.*)", r"roi_head.bbox_head.fc_reg.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(.*)", r"roi_head.mask_head.convs.\1.conv.\2"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.*)", r"roi_head.mask_head.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.*)", r"roi_head.mask_head.conv_logits.\1"),
]


def rename(name: str, rules: list[tuple[str, str]]) -> str:
    """``<1>`` counts one further, ``<<1>>`` two."""
    new = next((re.sub(pattern, other, name) for pattern, other in rules if re.fullmatch(pattern, name)), name)
    new = re.sub(r"<<(\d)>>", lambda m: str(int(m[1]) + 2), new)
    return re.sub(r"<(\d)>", lambda m: str(int(m[1]) + 1), new)


@pytest.mark.parametrize("rules", [DETECTRON2, MMDETECTION], ids=["detectron2", "mmdetection"])
def test_another_detectors_names_give_the_same_detections(
    model: TiledMaskRCNN, tmp_path: Path, rules: list[tuple[str, str]]
) -> None:
    # Boxes and masks of the background take part in nothing, so zeros stand for them on both sides.
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    theirs = {rename(name, rules): background_last(name, tensor) for name, tensor in state.items()}
    assert not theirs.keys() & {name for name in state if name.startswith(("rpn.", "backbone.body."))}
    if rules is DETECTRON2:  # BGR, not divided by a standard deviation
        name = "backbone.bottom_up.stem.conv1.weight"
        theirs[name] = (theirs[name] / (255 * torch.tensor(IMAGE_STD).view(1, 3, 1, 1))).flip(1)
        theirs["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    loaded, report = save_and_load(model, {"model": theirs}, tmp_path / "w.pth")
    assert not report.random
    assert list(report.left_over) == [name for name in theirs if "anchor_generator" in name]
    same_detections(model, loaded)


def test_a_bare_backbone_with_and_without_a_wrapper() -> None:
    tensor = torch.zeros(1)
    for name in ("layer1.0.conv1.weight", "module.layer1.0.conv1.weight", "features.layer1.0.conv1.weight"):
        assert list(with_detector_names({name: tensor})) == ["backbone.body.layer1.0.conv1.weight"]
    assert with_detector_names({}) == {}


def test_a_pickled_model_is_refused_with_the_line_that_would_save_it(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: pickles a whole model .*torch\.save\(model\.state_dict\(\)"):
        read_weights(replace(SETTINGS, weights=str(tmp_path / "model.pt")))
