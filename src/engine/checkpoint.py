"""Checkpoints: one type, one writer and one reader. The files hold numbers, strings and tensors alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.common.errors import InputError, nearest_path
from src.common.files import replacing
from src.config.checks import EXPORT_SUFFIX
from src.config.flags import build, flags_of, flatten
from src.config.settings import PredictSettings, TrainConfig
from src.data.classes import CellClass, parse_classes, to_json
from src.data.data_shift import DataStatistics
from src.network.tensor_files import EXPORTED, check_weights, is_intact, read_tensors, seal, write_tensors

FORMAT = 2
Weights = Mapping[str, Tensor]


@dataclass
class Progress:
    """How far a run has come: ``batch`` batches of ``epoch`` are done; ``seconds`` of training, without validation.

    ``validating``: the training up to here is done, its validation is not.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_ap50: float = -1.0
    validations_without_gain: int = 0
    validating: bool = False
    finished: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What training needs, beside the weights that predict, to go on.

    ``model`` are the weights being trained, ``optimizer`` and ``scaler`` torch's state dicts, ``split`` part → names of
    images, ``checksums`` name → checksum of an image with its masks; ``processes`` is how many trained together.
    """

    model: Weights
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    progress: Progress
    split: dict[str, list[str]]
    checksums: dict[str, str]
    processes: int | None  # unknown in the oldest files


@dataclass(frozen=True)
class Checkpoint:
    """A training as a file holds it.

    Attributes:
        config: all settings, resolved: no ``auto`` is left that the network depends on.
        classes: the classes 1..K.
        weights: the state dict that predicts: the averaged one where the training keeps an average.
        statistics: of the training images; ``None`` in files of earlier versions.
        scores: of the val images, as :func:`src.evaluation.scores.score` gives them; empty in ``last.pt``.
        snapshot: what training needs to go on; ``None`` in ``best.pt`` and in exported weights.
        source: the file's path, for messages.
    """

    config: TrainConfig
    classes: tuple[CellClass, ...]
    weights: Weights
    statistics: DataStatistics | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    source: str = ""


def write_checkpoint(path: Path, checkpoint: Checkpoint, previous: Path | None = None) -> None:
    """Write a sealed checkpoint atomically; the file that it replaces is kept as ``previous`` where that is given.

    Raises:
        InputError: it cannot be written (no room, no right); what was there before still is.
    """
    try:
        with replacing(path) as temporary:
            torch.save(_content(checkpoint), temporary)
            seal(temporary)
            if previous is not None and path.exists():
                path.replace(previous)
    except RuntimeError as error:  # what torch's own writer says where the disk is full
        raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or exported weights, onto the CPU without running any code in it.

    Raises:
        InputError: naming the file and the reason, where it is missing, not as it was written, no checkpoint of this
            program, or holds weights or settings that no training leaves.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint{nearest_path(path)}")
    content = _read_export(path) if path.suffix == EXPORT_SUFFIX else _read(path)
    for part in ("model", "ema"):
        check_weights(content.get(part) or {}, path)
    return Checkpoint(
        config=_read_config(content["settings"], path),
        classes=parse_classes(content["classes"], str(path)),
        weights=content.get("ema") or content["model"],
        statistics=_read_statistics(content.get("statistics"), path),
        scores=content.get("scores", {}),
        snapshot=_read_snapshot(content, path) if "optimizer" in content else None,
        source=str(path),
    )


def write_export(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write the weights that predict, with the settings and the classes, as a safetensors file.

    With ``half`` matrices and kernels are float16; norms and biases, which are few and of wider range, stay float32.
    """
    parts: dict[str, Any] = {"settings": settings_to_share(checkpoint.config), "classes": to_json(checkpoint.classes)}
    if checkpoint.statistics:
        parts["statistics"] = asdict(checkpoint.statistics)
    weights = {
        name: tensor.half() if half and tensor.ndim > 1 else tensor for name, tensor in checkpoint.weights.items()
    }
    write_tensors(path, weights, {name: json.dumps(part) for name, part in parts.items()})


def settings_to_share(config: TrainConfig) -> dict[str, Any]:
    """The settings that others need, without places on the machine that trained."""
    needed = {item.name for item in fields(PredictSettings)}
    local = {flag.key: flag.default for flag in flags_of(TrainConfig) if flag.acts_on in ("nothing", "budget")}
    settings = {key: local.get(key, value) if key not in needed else value for key, value in flatten(config).items()}
    return {**settings, "weights": Path(config.model.weights).name}


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    content = {
        "format": FORMAT,
        "settings": flatten(checkpoint.config),
        "classes": to_json(checkpoint.classes),
        "statistics": asdict(checkpoint.statistics) if checkpoint.statistics else None,
        "scores": checkpoint.scores,
    }
    snapshot = checkpoint.snapshot
    if snapshot is None:
        return {**content, "model": checkpoint.weights}
    averaged = checkpoint.weights if checkpoint.config.optimizer.ema else None
    parts = {
        name: getattr(snapshot, name) for name in ("model", "optimizer", "scaler", "split", "checksums", "processes")
    }
    return {**content, **parts, "ema": averaged, "progress": asdict(snapshot.progress)}


def _read(path: Path) -> dict[str, Any]:
    try:
        intact = is_intact(path)
        content = torch.load(path, map_location="cpu", weights_only=True) if intact else None
    except Exception as error:  # torch.load has no error of its own: a bad file shows as nearly anything
        reason = (str(error) or repr(error)).splitlines()[0].split(". ")[0]  # not torch's advice to load it unsafely
        raise InputError(f"{path}: is not a checkpoint ({reason})") from error
    if not intact:
        raise InputError(f"{path}: is damaged, or not a checkpoint of this program (its digest does not fit)")
    kinds: dict[str, Any] = {"settings": dict, "classes": list, "model": dict}
    optional: dict[str, Any] = {"ema": (dict, type(None)), "scores": dict}
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not all(isinstance(content.get(key), kind) for key, kind in kinds.items())
        or not all(isinstance(content[key], kind) for key, kind in optional.items() if key in content)
    ):
        raise InputError(f"{path}: is not a checkpoint of this program")
    return content


def _read_export(path: Path) -> dict[str, Any]:
    weights, metadata = read_tensors(path)
    try:
        if not metadata.keys() >= EXPORTED:
            raise KeyError(*sorted(EXPORTED - metadata.keys()))
        parts: dict[str, Any] = {
            name: json.loads(metadata[name]) for name in ("settings", "classes", "statistics") if name in metadata
        }
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not what --export writes: it lacks settings or classes") from error
    return {**parts, "model": weights}


def _read_config(settings: Any, path: Path) -> TrainConfig:
    try:
        config = build(TrainConfig, settings)
    except (InputError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: its settings are not this program's: {error}") from error
    for name in ("norm", "head_norm", "anchors"):
        if getattr(config.model, name) == "auto":
            raise InputError(f"{path}: its settings are not those of a run: {name} is auto")
    return config


def _read_statistics(values: Any, path: Path) -> DataStatistics | None:
    if values is None:
        return None
    try:
        shares = values.get("absorption")
        statistics = DataStatistics(**{**values, "absorption": shares if shares is None else tuple(shares)})
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not a checkpoint of this program") from error
    parts = (statistics.cell_size, statistics.contrast, statistics.darkness, *(statistics.absorption or ()))
    numbers = [value for value in parts if value is not None]
    if not all(isinstance(value, float) and math.isfinite(value) for value in numbers) or not statistics.cell_size > 0:
        raise InputError(f"{path}: is not a checkpoint of this program")
    return statistics


def _read_snapshot(content: Mapping[str, Any], path: Path) -> Snapshot:
    parts: dict[str, Any] = {name: content.get(name) for name in ("optimizer", "scaler", "split", "checksums")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise InputError(f"{path}: is not a checkpoint of this program")
    try:
        progress = read_progress(content["progress"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: training cannot be resumed from it ({error})") from error
    return Snapshot(content["model"], progress=progress, processes=content.get("processes"), **parts)


def read_progress(values: Mapping[str, Any]) -> Progress:
    """How far a run has come, from a file.

    Raises:
        TypeError: a value is of another type, or unknown.
        ValueError: a count is negative or the time is not finite.
    """
    progress = Progress(**values)
    for name, value in asdict(Progress()).items():
        if type(getattr(progress, name)) is not type(value):
            raise TypeError(f"progress: {name} is {getattr(progress, name)!r}")
    if not min(progress.epoch, progress.batch, progress.step) >= 0 or not 0 <= progress.seconds < math.inf:
        raise ValueError("progress: a count is negative, or the time is not finite")
    return progress
