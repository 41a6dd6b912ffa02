"""What flags alone can tell, single or together, is refused here, before torch is imported or a file is opened."""

from src.common.errors import InputError
from src.config.settings import (
    InferenceConfig,
    ModelSettings,
    OptimizerSettings,
    TrainConfig,
    parse_loss_weights,
    parse_numbers,
)

PYRAMID_LEVELS = 5
EXPORT_SUFFIX = ".safetensors"


def check_training(config: TrainConfig) -> None:
    """Refuse flags of ``main.py`` that cannot work, by name; also those that are read only after hours.

    Raises:
        InputError: for the first of them.
    """
    check_overlap("--overlap", config.tiles.overlap, config.tiles.tile_size)
    check_overlap("--predict-overlap", config.predict.predict_overlap, config.tiles.tile_size)
    check_model(config.model)
    _check_losses(config.optimizer, config.data.num_classes)
    _check_amp(config.optimizer.amp, config.predict.device)


def check_prediction(config: InferenceConfig) -> None:
    """Refuse flags of ``inference.py`` that cannot work, by name.

    Raises:
        InputError: for the first of them.
    """
    _check_amp(config.amp, config.device)
    if config.export and (len(config.ckpt) != 1 or not config.export.endswith(EXPORT_SUFFIX)):
        raise InputError(f"--export {config.export}: takes one --ckpt, and a name that ends with {EXPORT_SUFFIX}")


def check_overlap(flag: str, overlap: int, tile_size: int) -> None:
    """Refuse tiles that share as many px as they have."""
    if not 0 <= overlap < tile_size:
        raise InputError(f"{flag} must be at least 0 and below --tile-size {tile_size}, got {overlap}")


def check_model(settings: ModelSettings) -> None:
    """Refuse networks that do not exist."""
    if settings.detector == "v2" and settings.backbone != "resnet50":
        raise InputError(f"--detector v2 needs --backbone resnet50, got {settings.backbone}")
    if settings.weights == "coco" and settings.backbone != "resnet50":
        raise InputError(
            f"--weights coco exists for --backbone resnet50 only; {settings.backbone} has --weights imagenet"
        )
    if settings.anchors not in ("auto", "default"):
        parse_anchors(settings.anchors)


def parse_anchors(text: str) -> tuple[float, ...]:
    """The five anchor sides in px that ``--anchors`` lists, one per pyramid level."""
    sizes = parse_numbers(text, "--anchors")
    if len(sizes) != PYRAMID_LEVELS or min(sizes) < 1:
        raise InputError(f"--anchors: expected five sides of at least 1 px, got {text}")
    return sizes


def parse_class_weights(text: str, num_classes: int) -> tuple[float, ...]:
    """The K + 1 numbers that ``--class-weights`` lists, background first; ``num_classes`` is K + 1."""
    numbers = parse_numbers(text, "--class-weights")
    if len(numbers) != num_classes:
        raise InputError(f"--class-weights: expected {num_classes} numbers, background first, got {text}")
    return numbers


def _check_losses(settings: OptimizerSettings, num_classes: int | None) -> None:
    parse_loss_weights(settings.loss_weights)
    if settings.class_weights not in ("none", "auto"):
        given = len(parse_numbers(settings.class_weights, "--class-weights"))
        parse_class_weights(settings.class_weights, num_classes or given)


def _check_amp(amp: str | None, device: str) -> None:
    if amp == "fp16" and device == "cpu":
        raise InputError("--amp fp16 needs an NVIDIA GPU; with --device cpu there are bf16 and off")
    if amp in ("fp16", "bf16") and device == "mps":
        raise InputError(f"--amp {amp}: with --device mps there is off alone")
