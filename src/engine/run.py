"""A training run, and the parts of its preparation: what it was told, what it works on, its state."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.common.errors import InputError
from src.common.files import write_json
from src.config.flags import flatten, write_toml
from src.config.settings import TrainConfig
from src.data.classes import to_json
from src.data.id_map import ImageId, write_id_map
from src.data.records import Record
from src.data.training_data import TrainingData, load_training_data
from src.engine.checkpoint import settings_of
from src.engine.devices import resolve_amp
from src.engine.distributed import World
from src.engine.interrupt import Stop
from src.engine.loading import EpochSampler, Item
from src.engine.optimization import AveragedWeights, build_optimizer
from src.engine.state import TrainingState
from src.engine.weights import count_parameters, norms_of, resolve
from src.evaluation.ground_truth import ImageTruth, load_ground_truth


@dataclass
class Run:
    """A training run: what it was told, what it works on, and its state."""

    config: TrainConfig
    world: World
    device: torch.device
    amp: torch.dtype | None
    data: TrainingData
    sampler: EpochSampler
    loader: "DataLoader[Item]"
    network: nn.Module  # the state's model, wrapped where there are several processes
    state: TrainingState
    loss_weights: dict[str, float]
    truth: list[ImageTruth]  # of the val images, in the main process
    stop: Stop

    @property
    def folder(self) -> Path:
        """Where the run's files lie."""
        return Path(self.config.data.output_dir)

    def say(self, text: str) -> None:
        """Print a line, from the main process alone, without tearing a progress bar."""
        if self.world.is_main:
            tqdm.write(text)

    def share_done(self) -> float:
        """Share of the budget (epochs, steps, minutes: the first to end) that is used up; alike on all processes."""
        progress, settings = self.state.progress, self.config.run
        steps_per_epoch = max(-(-self.batches_per_epoch() // self.config.optimizer.accumulate), 1)
        shares = [progress.step / (settings.epochs * steps_per_epoch)]
        if settings.max_steps:
            shares.append(progress.step / settings.max_steps)
        if settings.max_minutes:
            shares.append(self.world.from_main(progress.seconds) / 60 / settings.max_minutes)
        return max(shares)

    def batches_per_epoch(self) -> int:
        """Batches of this process in a whole epoch."""
        tiles = -(-self.sampler.length // self.sampler.world_size)
        return max(tiles // self.config.run.batch_size, 1)


def load_data(config: TrainConfig, world: World) -> TrainingData:
    """Decode the images into the cache, the main process first: the others find them there."""

    def progress(records: list[Record]) -> Iterable[Record]:
        return tqdm(records, "read images", unit="image", leave=False, disable=None if world.is_main else True)

    if not world.is_main:
        world.wait()
    data = load_training_data(config.data, config.image, config.run, progress)
    if world.is_main:
        world.wait()
    return data


def run_precision(config: TrainConfig, checkpoint: dict[str, Any] | None, device: torch.device) -> str:
    """``bf16``, ``fp16`` or ``off``: what the flag asks for; with ``auto`` what the run began with, else what suits.

    Raises:
        InputError: the device does not have it.
    """
    if checkpoint is None or config.optimizer.amp != "auto":
        return resolve_amp(config.optimizer.amp, device)
    began = settings_of(checkpoint).optimizer.amp
    if began == "auto" and device.type != "cuda":
        return "off"  # runs that did not write down what auto had meant: on a CPU it was float32
    try:
        return resolve_amp(began, device)
    except InputError as error:
        way_out = "take one with --on-change continue"
        raise InputError(f"the run that is resumed is in {began}: {error}; {way_out}") from error


def require_one_checkpoint(world: World, checkpoint: dict[str, Any] | None) -> None:
    """Refuse to resume where processes read different checkpoints, as on machines that share no folder.

    Raises:
        InputError: on all processes alike.
    """
    found = world.gather(checkpoint and (checkpoint["source"], checkpoint.get("progress")))
    if any(other != found[0] for other in found):
        raise InputError("--resume: processes find different checkpoints; all machines must share --output-dir")


def resolved(
    config: TrainConfig,
    data: TrainingData,
    amp: str,
    checkpoint: dict[str, Any] | None,
    weights: dict[str, Tensor] | None,
) -> TrainConfig:
    """The configuration with all filled in that depends on data, device and weights: what the checkpoint will hold.

    ``amp`` is the precision of :func:`run_precision`.
    """
    earlier = settings_of(checkpoint) if checkpoint else None
    norms = (earlier.model.norm, earlier.model.head_norm) if earlier else norms_of(weights or {})
    return replace(
        config,
        data=replace(config.data, num_classes=len(data.classes) + 1),
        image=replace(config.image, channel_order=data.channel_order),
        model=resolve(config.model, data.cell_size, norms),
        optimizer=replace(config.optimizer, amp=amp),
        run=replace(config.run, batch_size=config.run.batch_size or (earlier.run.batch_size if earlier else 0)),
    )


def compare(checkpoint: dict[str, Any], config: TrainConfig, data: TrainingData, processes: int) -> list[str]:
    """What is not as in the checkpoint, for the user to know; an :class:`InputError` where that is refused."""
    settings = flatten(config)
    found = changes(checkpoint, settings, data.checksums) + moved_images(checkpoint["split"], data.split)
    if (before := checkpoint.get("processes", processes)) != processes:
        found.append(f"the run had {before} processes and has {processes}")
    if config.run.on_change == "refuse":
        refuse_changes(found)
    return [f"not as in the checkpoint: {change}" for change in (*found, *budget_changes(checkpoint, settings))]


def first_state(config: TrainConfig, model: nn.Module, device: torch.device) -> TrainingState:
    """Optimizer, scaler and averaged weights for a model."""
    averaged = AveragedWeights(model, config.optimizer.ema) if config.optimizer.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.optimizer.amp == "fp16")
    return TrainingState(model, build_optimizer(model, config.optimizer), scaler, averaged)


def val_truth(data: TrainingData, config: TrainConfig) -> list[ImageTruth]:
    """The true cells of the val images; their ids are 1, 2, … in the split's order, and the id map is kept."""
    id_map = Path(config.data.output_dir) / "val-results.id-map.json"
    ids = [ImageId(f"{record.name}.tif", i, record.height, record.width) for i, record in enumerate(data.val, start=1)]
    write_id_map(id_map, ids)
    return load_ground_truth(config.data.data_path, len(data.classes), id_map, max_pixels=config.image.max_pixels)


def describe(training: Run, notes: list[str], tile_count: int) -> None:
    """Say what the run works on, and write its configuration and split into its folder."""
    data, config = training.data, training.config
    cells = ", ".join(f"{c.name} {n}" for c, n in zip(data.classes, data.class_counts, strict=True))
    for note in notes:
        training.say(note)
    training.say(f"train: {len(data.train)} images, {tile_count} tiles; val: {len(data.val)} images; cells: {cells}")
    training.say(
        f"model: {config.model.backbone}, {count_parameters(training.state.model) / 1e6:.1f} M parameters, anchors "
        f"{config.model.anchors}, on {training.device}, mixed precision {config.optimizer.amp}, "
        f"{config.run.batch_size} tiles per step"
    )
    if training.world.is_main:
        write_toml(training.folder / "config.toml", config)
        write_json(training.folder / "split.json", data.split, indent=1)
        write_json(training.folder / "classes.json", to_json(data.classes), indent=1)


FREE = frozenset({  # where and how fast, not what
    "data_path", "output_dir", "split", "classes", "groups", "resume", "on_change", "workers", "cache_dir", "cache_gb",
    "backend", "timeout_minutes", "device", "compile", "val_every", "save_every", "patience", "predict_batch_size",
    "max_pixels",
})  # fmt: skip
UNKNOWN_PRECISION = ("amp", "auto")  # in checkpoints of runs that did not yet write down what auto had meant
BUDGET = frozenset({"epochs", "max_steps", "max_minutes"})


def changes(checkpoint: Mapping[str, Any], settings: Mapping[str, Any], checksums: Mapping[str, str]) -> list[str]:
    """What differs between a checkpoint and a run, a phrase each; empty where a run goes on as it began.

    Args:
        settings: the run's settings, flat and resolved.
        checksums: name → checksum of the run's images with their masks.
    """
    before, images = checkpoint["settings"], checkpoint["checksums"]
    found = [
        f"--{key.replace('_', '-')} was {before.get(key)} and is {value}"
        for key, value in settings.items()
        if key not in FREE | BUDGET and before.get(key) != value and (key, before.get(key)) != UNKNOWN_PRECISION
    ]
    for what, names in (
        ("added", checksums.keys() - images.keys()),
        ("gone", images.keys() - checksums.keys()),
        ("changed", {name for name in images.keys() & checksums.keys() if images[name] != checksums[name]}),
    ):
        if names:
            found.append(f"{len(names)} images are {what} ({_some(names)})")
    return found


def moved_images(before: Mapping[str, Sequence[str]], split: Mapping[str, Sequence[str]]) -> list[str]:
    """A phrase where images are in another part of the split (part → names) than they were; else nothing."""
    parts = {name: part for part, names in before.items() for name in names}
    moved = {name for part, names in split.items() for name in names if parts.get(name, part) != part}
    return [f"{len(moved)} images are in another part of the split ({_some(moved)})"] if moved else []


def budget_changes(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """How the length of the run differs, a phrase each: that is what a run is often resumed for."""
    before = checkpoint["settings"]
    return [
        f"--{key.replace('_', '-')} was {before.get(key)} and is {settings[key]}"
        for key in sorted(BUDGET)
        if before.get(key) != settings[key]
    ]


def refuse_changes(found: list[str]) -> None:
    """Raise an :class:`InputError` that says what changed."""
    if found:
        raise InputError(
            f"--resume: the run is not the one that the checkpoint is of: {'; '.join(found)};"
            " --on-change continue goes on all the same"
        )


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
