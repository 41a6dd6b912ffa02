"""timm's networks as backbones: their pyramids, norms, frozen layers and weights."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from model import build_model, build_skeleton
from src.common.errors import InputError
from src.config.settings import ModelSettings
from src.network.backbones import architecture, build_backbone, stage_of_parameters
from src.network.cpu_kernels import speed_up_depthwise
from src.network.weights import load_matching, read_weights, resolve

pytestmark = pytest.mark.torch
TESTED = (
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "efficientnetv2_rw_t",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "resnext101_64x4d",
    "convnext_tiny",
    "convnextv2_atto",
    "regnetx_002",
    "regnety_008",
    "hrnet_w18",
)
SMALL = ("tf_efficientnet_lite0", "resnet18", "convnextv2_atto", "regnetx_002", "hrnet_w18_small")


def settings(name: str, **changes: object) -> ModelSettings:
    given = ModelSettings(backbone=f"timm/{name}", weights="none", fpn_channels=16, box_head_dim=16, anchors="default")
    return resolve(replace(given, mask_head_channels=8, **changes), 20)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_a_network_feeds_the_pyramid(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **settings: nullcontext())  # it knows no meta device
    with torch.device("meta"):
        backbone = build_backbone(settings(name, norm=norm), None).eval()
        levels = backbone(torch.zeros(2, 3, 96, 160))
    assert {key: tuple(level.shape) for key, level in levels.items()} == {
        "0": (2, 16, 24, 40),
        "1": (2, 16, 12, 20),
        "2": (2, 16, 6, 10),
        "3": (2, 16, 3, 5),
        "pool": (2, 16, 2, 3),
    }
    assert any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()) == (
        norm == "batch" and "convnext" not in name
    )


@pytest.mark.parametrize("name", TESTED)
def test_layers_are_frozen_from_the_input_on(name: str) -> None:
    wanted = architecture(f"timm/{name}")
    for layers in range(6):
        with torch.device("meta"):
            body = build_backbone(settings(name, trainable_layers=layers), None).body
        stage_of = stage_of_parameters(body, wanted.stages)
        assert list(stage_of.values()) == sorted(stage_of.values()) and set(stage_of.values()) == {0, 1, 2, 3, 4}
        for parameter_name, parameter in body.named_parameters():
            assert parameter.requires_grad == (stage_of[parameter_name] >= 5 - layers)


def test_the_stages_of_resnets_are_alike_in_both_packages() -> None:
    with torch.device("meta"):
        theirs, ours = (
            build_backbone(replace(settings("resnet18"), backbone=name, trainable_layers=3), None).body
            for name in ("timm/resnet18", "resnet18")
        )
    trained = [{name: p.requires_grad for name, p in body.named_parameters()} for body in (theirs, ours)]
    assert trained[0] == trained[1] and sum(trained[0].values()) == 45 and len(trained[0]) == 60


@pytest.mark.parametrize("name", SMALL)
def test_frozen_norms_are_batch_norms_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    batch = build_backbone(settings(name, norm="batch"), None)
    for module in batch.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    frozen = build_backbone(settings(name, norm="frozen"), None)
    frozen.load_state_dict({k: v for k, v in batch.state_dict().items() if not k.endswith("num_batches_tracked")})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted, found = batch.eval()(images), frozen.train()(images)
    assert all(torch.allclose(wanted[level], found[level], atol=1e-4) for level in wanted)


def test_images_are_normalised_and_filled_as_the_network_was_pretrained() -> None:
    lite = build_model(settings("tf_efficientnet_lite0"), 2)
    assert lite.fill == (128, 128, 128)  # its mean is 0.5; that of the others is ImageNet's
    assert build_skeleton(settings("resnet18"), 2).fill == (124, 116, 104)
    tiles = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 32, 2)
    normalised = lite.normalize(tiles).tensors
    assert normalised[0, :, 0, :2].tolist() == [[-1, 1]] * 3 and (normalised[..., 2:] == 0).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/resnett50", "did you mean timm/resnet50"),
        ("timm/vit_small_patch16_224", "224"),
        ("timm/swin_tiny_patch4_window7_224", "224"),
        ("timm/inception_v3", "strides"),
        ("timm/vgg16_bn", "stages"),
        ("timm/resnet50.no_such_tag", "no_such_tag"),
    ],
)
def test_what_cannot_be_the_backbone_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_weights(ModelSettings(backbone=name, weights="imagenet"))
    assert name in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("whole", [True, False])
def test_a_local_file_of_weights_is_loaded(name: str, whole: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=not whole)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    chosen = replace(settings(name, norm="batch"), weights=str(tmp_path / "weights.pth"))
    model = build_model(chosen, 2)
    weights = read_weights(chosen)
    assert weights
    report = load_matching(model, weights, chosen.weights)
    body = {f"backbone.body.{key}" for key in model.backbone.body.state_dict() if "num_batches_tracked" not in key}
    assert body <= set(report.loaded) and not body & set(report.random)
    if not whole:
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            wanted, found = theirs.eval()(images), model.backbone.body.eval()(images)
        assert all(torch.equal(a, b) for a, b in zip(wanted[-4:], found, strict=True))


def test_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"timm/tf_efficientnet_lite0.*file"):
        read_weights(ModelSettings(backbone="timm/tf_efficientnet_lite0", weights="imagenet"))


def test_depthwise_convolutions_are_the_same_in_mixed_precision() -> None:
    """On a CPU they compute in float32, with a result of autocast's type and gradients for input and kernel."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    fast = nn.Sequential(copy.deepcopy(plain), nn.Conv2d(8, 4, 1))
    speed_up_depthwise(fast)
    images = torch.randn(2, 8, 16, 12, requires_grad=True)
    wanted = plain(images)
    assert torch.equal(fast[0](images), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast[0](images.bfloat16())
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), wanted, atol=0.05)
    found.float().square().sum().backward()
    assert images.grad is not None and fast[0].weight.grad.abs().sum() > 0
