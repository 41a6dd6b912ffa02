"""The first weights of the network, and the settings that depend on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.common.errors import InputError
from src.config.checks import EXPORT_SUFFIX, check_model
from src.config.settings import ModelSettings
from src.geometry.anchors import auto_anchors
from src.network.backbones import TIMM, architecture
from src.network.foreign_weights import unwrap, with_detector_names
from src.network.tensor_files import check_weights, is_intact, read_tensors

SCRATCH_LAYERS, PRETRAINED_LAYERS = 5, 3
_PYRAMID_NORM = "backbone.fpn.inner_blocks.0.1"
_STEM_NORMS = ("backbone.body.bn1", "backbone.body.stem.bn")  # of most networks, and of RegNet
_COCO_WEIGHTS = {"v1": "MaskRCNN_ResNet50_FPN_Weights", "v2": "MaskRCNN_ResNet50_FPN_V2_Weights"}
_IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights",
    "resnet50": "ResNet50_Weights",
    "resnet101": "ResNet101_Weights",
    "resnext101_32x8d": "ResNeXt101_32X8D_Weights",
    "convnext_base": "ConvNeXt_Base_Weights",
}


@dataclass(frozen=True)
class LoadReport:
    """Names of the tensors that were loaded, those of the file that fit nowhere, and those of the model left random."""

    loaded: tuple[str, ...]
    left_over: tuple[str, ...]
    random: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors"]
        for text, names in (("not used", self.left_over), ("left random", self.random)):
            if names:
                parts.append(f"{text}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}")
        return "; ".join(parts)


def resolve(settings: ModelSettings, cell_size: float, norms: tuple[str, str] | None = None) -> ModelSettings:
    """Replace every ``auto``.

    Args:
        settings: as the user gave them.
        cell_size: the median cell's sqrt(box area) in px after --scale.
        norms: ``norm`` and ``head_norm`` that the first weights were trained with (:func:`norms_of`).

    Raises:
        InputError: for combinations that do not exist.
    """
    check_model(settings)
    scratch = settings.weights == "none"
    if norms is None:
        norms = ("batch" if scratch or settings.detector == "v2" else "frozen", "on" if scratch else "off")
    norm = settings.norm if settings.norm != "auto" else norms[0]
    auto_head = "off" if scratch and norm == "frozen" else norms[1]  # frozen at random values they would do nothing
    layers = settings.trainable_layers
    return replace(
        settings,
        norm=norm,
        head_norm=settings.head_norm if settings.head_norm != "auto" else auto_head,
        trainable_layers=layers if layers != "auto" else SCRATCH_LAYERS if scratch else PRETRAINED_LAYERS,
        anchors=settings.anchors if settings.anchors != "auto" else auto_anchors(cell_size),
    )


def count_parameters(model: nn.Module) -> int:
    """All parameters, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def read_weights(settings: ModelSettings) -> dict[str, Tensor] | None:
    """The tensors that ``settings.weights`` names, under the detector's names; ``None`` from scratch.

    Raises:
        InputError: where they cannot be had, are damaged, or are not for this network.
    """
    check_model(settings)  # before anything is downloaded
    architecture(settings.backbone)
    if settings.weights == "none":
        return None
    if settings.weights == "coco":
        state = _download(_COCO_WEIGHTS[settings.detector], "COCO_V1", "coco")
    elif settings.weights == "imagenet" and settings.backbone.startswith(TIMM):
        state = _download_timm(settings.backbone)
    elif settings.weights == "imagenet":
        state = _download(_IMAGENET_WEIGHTS[settings.backbone], "IMAGENET1K_V1", "imagenet")
    else:
        state = _read(Path(settings.weights))
    return with_detector_names(state)


def norms_of(weights: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """``norm`` and ``head_norm`` of the detector that ``weights`` are of; ``None`` for those of a backbone alone."""
    if not any(name.startswith("rpn.") for name in weights):
        return None
    head_norm = "on" if f"{_PYRAMID_NORM}.weight" in weights else "off"
    norms = (_PYRAMID_NORM,) if head_norm == "on" else _STEM_NORMS
    norm = next((name for name in norms if f"{name}.weight" in weights), norms[0])
    if f"{norm}.weight" in weights and f"{norm}.running_mean" not in weights:
        return "group", head_norm
    return "batch" if f"{norm}.num_batches_tracked" in weights else "frozen", head_norm


def load_matching(model: nn.Module, given: Mapping[str, Tensor], source: str) -> LoadReport:
    """Load the tensors of :func:`read_weights` that fit; an :class:`InputError` where none fits the backbone."""
    own = model.state_dict()
    name_of = {_without_nesting(name): name for name in own}
    given = {name_of.get(_without_nesting(name), name): tensor for name, tensor in given.items()}
    fitting = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    if not any(name.startswith("backbone.body.") for name in fitting):
        raise InputError(f"--weights {source}: no tensor in it fits the backbone (flags: --backbone, --norm)")
    model.load_state_dict(fitting, strict=False)
    # A frozen norm has no counter of batches: neither missing nor left over.
    left = (name for name in given if name not in fitting and not name.endswith("num_batches_tracked"))
    random = (name for name in own if name not in fitting and not name.endswith("num_batches_tracked"))
    return LoadReport(tuple(fitting), tuple(left), tuple(random))


def _without_nesting(name: str) -> str:
    """The name of a tensor alike in timm's whole networks (``stages.0.…``) and in its features (``stages_0.…``)."""
    return name.replace("_", ".").replace("backbone.body.features.", "backbone.body.")


def _download_timm(backbone: str) -> Mapping[str, Tensor]:
    import timm  # slow to import

    try:
        return timm.create_model(backbone.removeprefix(TIMM), pretrained=True, features_only=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:  # no network, or timm has no weights for this backbone
        reason = (str(error) or repr(error)).splitlines()[0]
        raise InputError(
            f"--weights imagenet: those of {backbone} cannot be loaded ({reason}); pass a file of them, or use "
            "--weights none"
        ) from error


def _download(weights: str, version: str, flag: str) -> Mapping[str, Tensor]:
    import torchvision.models as models

    enum = getattr(models.detection if weights.startswith("MaskRCNN") else models, weights)[version]
    place = Path(torch.hub.get_dir()) / "checkpoints" / enum.url.rsplit("/", 1)[-1]
    try:
        return enum.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"--weights {flag}: cannot be loaded ({error}); save it as {place}, pass its path, or use --weights none"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        known = ", ".join(("coco", "imagenet", "none"))
        raise InputError(f"--weights {path}: is neither {known} nor a file")
    if path.suffix == EXPORT_SUFFIX:
        tensors, _ = read_tensors(path)
        check_weights(tensors, f"--weights {path}")
        return tensors
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error of its own: a bad file shows as nearly anything
        if "Unsupported global" in str(error) or "Unsupported operand" in str(error):
            raise InputError(
                f"--weights {path}: pickles a whole model or other objects, whose code is not run; save its weights "
                "with torch.save(model.state_dict(), FILE)"
            ) from error
        raise InputError(f"--weights {path}: is damaged or no file of tensors as torch.save writes it") from error
    if isinstance(content, dict) and "format" in content and not is_intact(path):  # a checkpoint of this program
        raise InputError(f"--weights {path}: is damaged (its digest does not fit)")
    state = unwrap(content)
    check_weights(state, f"--weights {path}")
    return state
