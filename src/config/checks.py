"""Checks of flags, single and combined, before torch is imported or a file is opened."""

from pathlib import Path

from src.common.errors import InputError
from src.config.settings import InferenceConfig, ModelSettings, OptimizerSettings, TrainConfig

PYRAMID_LEVELS = 5
EXPORT_SUFFIX = ".safetensors"


def check_training(config: TrainConfig) -> None:
    """Refuse flags of ``main.py`` that cannot work, also those that are first used hours later.

    Raises:
        InputError: for the first of them.
    """
    check_overlap("--overlap", config.tiles.overlap, config.tiles.tile_size)
    check_overlap("--predict-overlap", config.predict.predict_overlap, config.tiles.tile_size)
    zoom = config.augment
    if zoom.min_zoom > zoom.max_zoom:
        raise InputError(f"--min-zoom {zoom.min_zoom:g} is above --max-zoom {zoom.max_zoom:g}")
    check_model(config.model)
    _check_losses(config.optimizer, config.data.class_count)
    _check_amp(config.optimizer.amp, config.machine.device)


def check_prediction(config: InferenceConfig) -> None:
    """Refuse flags of ``inference.py`` that cannot work.

    Raises:
        InputError: for the first of them.
    """
    _check_amp(config.amp, config.machine.device)
    if config.scale is not None and config.mpp is not None:
        raise InputError("--mpp: not allowed with --scale; both say how much the images are resized")
    if config.export and (len(config.ckpt) != 1 or not config.export.endswith(EXPORT_SUFFIX)):
        raise InputError(f"--export {config.export}: takes one --ckpt, and a name that ends with {EXPORT_SUFFIX}")
    if config.half and not config.export:
        raise InputError("--half: has no effect without --export")


def check_slides(config: InferenceConfig) -> None:
    """Refuse flags that slides cannot be predicted with.

    Raises:
        InputError: for the first of them.
    """
    given = {
        "--whole-image": config.predict.whole_image,
        "--overlay": config.overlay,
        "--zip": config.zip,
        "--id-map": config.id_map,
        "--split": config.split,
        "--intensity": config.intensity,
    }
    for flag, value in given.items():
        if value:
            raise InputError(f"{flag}: does not work with slides, such as those in {config.test_dir}")
    if config.tissue not in ("auto", "all") and not Path(config.tissue).exists():
        raise InputError(f"--tissue {config.tissue}: must be auto, all, or a file or folder of regions that is there")
    if Path(config.output).suffix == ".json" or Path(config.output).is_file():
        raise InputError(f"--output {config.output}: must be a folder, in which each slide gets one")


def check_no_slides(config: InferenceConfig) -> None:
    """Refuse flags that have no effect on images that are no slides."""
    for flag, is_given in (("--tissue", config.tissue != "auto"), ("--shard", config.shard is not None)):
        if is_given:
            raise InputError(f"{flag}: has no effect: {config.test_dir} holds no slides")


def check_overlap(flag: str, overlap: int, tile_size: int) -> None:
    """Refuse an overlap that is not smaller than the tile."""
    if not 0 <= overlap < tile_size:
        raise InputError(f"{flag} must be at least 0 and below --tile-size {tile_size}, got {overlap}")


def check_model(settings: ModelSettings) -> None:
    """Refuse combinations of settings for which there is no network."""
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


def parse_class_weights(text: str, class_count: int | None = None) -> tuple[float, ...]:
    """The K + 1 numbers that ``--class-weights`` lists, background first; with ``class_count``, K is checked."""
    numbers = parse_numbers(text, "--class-weights")
    if class_count is not None and len(numbers) != class_count + 1:
        raise InputError(f"--class-weights: expected {class_count + 1} numbers, background first, got {text}")
    return numbers


def parse_loss_weights(text: str) -> dict[str, float]:
    """``"box=2,mask=1"`` → a weight for each of the five losses, 1 for those left out."""
    weights = dict.fromkeys(("classifier", "box", "mask", "objectness", "rpn_box"), 1.0)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in weights:
            raise InputError(f"--loss-weights: {name.strip()!r} is not one of {', '.join(weights)}")
        weights[name.strip()] = parse_number(value, "--loss-weights")
    return weights


def parse_numbers(text: str, flag: str) -> tuple[float, ...]:
    """``"8,16,32"`` → numbers ≥ 0; an :class:`InputError` names the flag."""
    return tuple(parse_number(part, flag) for part in text.split(","))


def parse_number(text: str, flag: str) -> float:
    """A finite number ≥ 0; an :class:`InputError` names the flag."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{flag}: {text.strip()!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise InputError(f"{flag}: {text.strip()} is not a finite number of at least 0")
    return value


def _check_losses(settings: OptimizerSettings, class_count: int | None) -> None:
    parse_loss_weights(settings.loss_weights)
    if settings.class_weights not in ("none", "auto"):
        parse_class_weights(settings.class_weights, class_count)


def _check_amp(amp: str | None, device: str) -> None:
    if amp == "fp16" and device == "cpu":
        raise InputError("--amp fp16 needs an NVIDIA GPU; with --device cpu only bf16 and off are available")
    if amp in ("fp16", "bf16") and device == "mps":
        raise InputError(f"--amp {amp}: with --device mps only off is available")
