"""A training run: configuration, data, model, state and log; and how they are built."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.common.errors import InputError, some
from src.common.files import write_json
from src.common.progress import say
from src.config.checks import parse_loss_weights
from src.config.flags import flags_of, flatten
from src.config.recipe import write_toml
from src.config.settings import TrainConfig
from src.data.classes import to_json
from src.data.id_map import ImageId, write_id_map
from src.data.training_data import TrainingData, load_training_data
from src.engine.checkpoint import Checkpoint, Snapshot
from src.engine.devices import AMP_TYPES, resolve_amp
from src.engine.distributed import World
from src.engine.loading import EpochSampler, Item
from src.engine.optimization import AveragedWeights, build_optimizer
from src.engine.run_log import RunLog
from src.engine.state import TrainingState
from src.evaluation.ground_truth import ImageTruth, TruthSettings, load_ground_truth
from src.network.weights import count_parameters, norms_of, resolve


@dataclass
class TrainingRun:
    """A training run. ``config`` is resolved: it holds no ``auto``."""

    config: TrainConfig
    world: World
    device: torch.device
    data: TrainingData
    loader: "DataLoader[Item]"
    network: nn.Module  # the state's model, wrapped where there are several processes
    state: TrainingState
    log: RunLog
    warned: set[str] = field(default_factory=set)  # flags of which the user was warned

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.output_dir)

    @property
    def sampler(self) -> EpochSampler:
        """The order of the tiles."""
        assert isinstance(self.loader.sampler, EpochSampler)
        return self.loader.sampler

    @property
    def batch_size(self) -> int:
        """Tiles per step and process."""
        assert self.loader.batch_size is not None
        return self.loader.batch_size

    @property
    def amp(self) -> torch.dtype | None:
        """The type that autocast computes in; ``None`` for float32 alone."""
        return AMP_TYPES[self.config.optimizer.amp]

    @cached_property
    def truth(self) -> list[ImageTruth]:
        """The true cells of the val images, which are read when they are first asked for."""
        settings = TruthSettings(self.data.classes, self.config.image.split_pieces)
        return load_ground_truth(self.config.data.data_path, len(self.data.classes), self.id_map, settings=settings)

    @property
    def id_map(self) -> Path:
        """The ids of the val images: 1, 2, … in the split's order."""
        return self.folder / "val-results.id-map.json"

    @cached_property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss."""
        return parse_loss_weights(self.config.optimizer.loss_weights)

    def say(self, text: str) -> None:
        """Print a line, from the main process alone."""
        if self.world.is_main:
            say(text)

    def warn_once(self, flag: str, warning: str) -> None:
        """Print a warning about a flag, unless there was one before."""
        if flag not in self.warned:
            self.say(warning)
            self.warned.add(flag)

    def share_done(self) -> float:
        """Share of the budget (epochs, steps, minutes: the first to end) that is used up; alike on all processes."""
        progress, settings = self.state.progress, self.config.run
        shares = [progress.step / (settings.epochs * self.steps_per_epoch())]
        if settings.max_steps:
            shares.append(progress.step / settings.max_steps)
        if settings.max_minutes:
            shares.append(self.world.from_main(progress.seconds) / 60 / settings.max_minutes)
        return max(shares)

    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in a whole epoch."""
        return max(-(-self.batches_per_epoch() // self.config.optimizer.accumulate), 1)

    def batches_per_epoch(self) -> int:
        """Batches of this process in a whole epoch."""
        tiles = -(-self.sampler.length // self.sampler.world_size)
        return max(tiles // self.batch_size, 1)

    def checkpoint(self) -> Checkpoint:
        """The run as ``last.pt`` holds it."""
        state, data = self.state, self.data
        snapshot = Snapshot(
            model=state.model.state_dict(),
            optimizer=state.optimizer.state_dict(),
            scaler=state.scaler.state_dict(),
            progress=state.progress,
            split=data.split,
            checksums=data.checksums,
            processes=self.world.size,
        )
        return Checkpoint(self.config, data.classes, state.weights(), data.statistics, snapshot=snapshot)

    def best(self, scores: dict[str, Any]) -> Checkpoint:
        """The run as ``best.pt`` holds it: weights for prediction, and the scores of the val images."""
        return Checkpoint(self.config, self.data.classes, self.state.weights(), self.data.statistics, scores)


def load_data(config: TrainConfig, world: World) -> TrainingData:
    """Decode the images into the cache, the main process first: the others find them there."""
    if not world.is_main:
        world.wait()
    data = load_training_data(config.data, config.image, hidden=not world.is_main)
    if world.is_main:
        world.wait()
    return data


def run_precision(config: TrainConfig, checkpoint: Checkpoint | None, device: torch.device) -> str:
    """``bf16``, ``fp16`` or ``off``: what the flag asks for; with ``auto`` what the run began with, else what suits.

    Raises:
        InputError: the device does not have it.
    """
    if checkpoint is None or config.optimizer.amp != "auto":
        return resolve_amp(config.optimizer.amp, device)
    began = checkpoint.config.optimizer.amp
    if began == "auto" and device.type != "cuda":
        return "off"  # runs that did not write down what auto had meant: on a CPU it was float32
    try:
        return resolve_amp(began, device)
    except InputError as error:
        way_out = "choose another --amp together with --on-change continue"
        raise InputError(f"the resumed run used {began}: {error}; {way_out}") from error


def require_one_checkpoint(world: World, checkpoint: Checkpoint | None) -> None:
    """Refuse to resume where processes read different checkpoints, as on machines that share no folder.

    Raises:
        InputError: on all processes alike.
    """
    found = world.gather(checkpoint and checkpoint.snapshot and (checkpoint.source, checkpoint.snapshot.progress))
    if any(other != found[0] for other in found):
        raise InputError("--resume: processes find different checkpoints; all machines must share --output-dir")


def resolved(
    config: TrainConfig, data: TrainingData, amp: str, checkpoint: Checkpoint | None, weights: dict[str, Tensor] | None
) -> TrainConfig:
    """The configuration with everything filled in that depends on data, device and weights, as checkpoints hold it.

    ``amp`` is the precision of :func:`run_precision`. A batch size of ``auto`` is that of a resumed run.
    """
    earlier = checkpoint.config if checkpoint else None
    norms = (earlier.model.norm, earlier.model.head_norm) if earlier else norms_of(weights or {})
    batch_size = earlier.run.batch_size if earlier and config.run.batch_size == "auto" else config.run.batch_size
    return replace(
        config,
        data=replace(config.data, num_classes=len(data.classes) + 1),
        image=replace(config.image, channel_order=data.channel_order),
        model=resolve(config.model, data.cell_size, norms),
        optimizer=replace(config.optimizer, amp=amp),
        run=replace(config.run, batch_size=batch_size),
    )


def first_state(config: TrainConfig, model: nn.Module, device: torch.device) -> TrainingState:
    """Optimizer, scaler and averaged weights for a model."""
    averaged = AveragedWeights(model, config.optimizer.ema) if config.optimizer.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.optimizer.amp == "fp16")
    return TrainingState(model, build_optimizer(model, config.optimizer), scaler, averaged)


def warnings_on(run: TrainingRun) -> list[str]:
    """Settings that most likely are not meant, one line each."""
    settings, tiles = run.config, run.sampler.length
    warnings = []
    steps = settings.run.epochs * run.steps_per_epoch()
    steps = min(steps, settings.run.max_steps or steps)
    if settings.optimizer.warmup_steps > steps / 3:
        warnings.append(
            f"warning: --warmup-steps {settings.optimizer.warmup_steps} is more than a third of the run's {steps} steps"
        )
    if tiles < run.batch_size * run.world.size:
        warnings.append(
            f"warning: an epoch has {tiles} tiles, fewer than the {run.batch_size * run.world.size} of a step; "
            "lower --batch-size, or --overlap gives more tiles"
        )
    return warnings


def write_setup(run: TrainingRun, notes: Sequence[str]) -> None:
    """Print what the run works on, and write its configuration, split, classes and id map into its folder."""
    data, config, tiles = run.data, run.config, run.sampler.length
    counts = [(c.name, int(n)) for c, n in zip(data.classes, data.class_counts, strict=True)]
    unknown = int(data.train_facts.unknown_counts.sum())
    cells = ", ".join(f"{name} {n}" for name, n in (*counts, *([("unknown class", unknown)] if unknown else [])))
    for note in notes:
        run.say(note)
    run.say(f"train: {len(data.train)} images, {tiles} tiles; val: {len(data.val)} images; cells: {cells}")
    run.say(
        f"model: {config.model.backbone}, {count_parameters(run.state.model) / 1e6:.1f} M parameters, anchors "
        f"{config.model.anchors}, on {run.device}, mixed precision {config.optimizer.amp}, "
        f"{run.batch_size} tiles per step"
    )
    if run.world.is_main:
        write_toml(run.folder / "config.toml", config)
        write_json(run.folder / "split.json", data.split, indent=1)
        write_json(run.folder / "classes.json", to_json(data.classes), indent=1)
    if run.world.is_main and data.val:
        records = enumerate(data.val, start=1)
        ids = [ImageId(f"{record.name}.tif", number, record.height, record.width) for number, record in records]
        write_id_map(run.id_map, ids)


def compare(checkpoint: Checkpoint, config: TrainConfig, data: TrainingData, processes: int) -> list[str]:
    """The differences from the checkpoint, one line each.

    Raises:
        InputError: with ``--on-change refuse``, where more than the length of the run differs.
    """
    snapshot = checkpoint.snapshot
    if snapshot is None:
        return []
    found = [
        *changed_settings(checkpoint.config, config, ("learning", "prediction")),
        *changed_images(snapshot.checksums, data.checksums),
        *moved_images(snapshot.split, data.split),
    ]
    if snapshot.processes not in (None, processes):
        found.append(f"the run had {snapshot.processes} processes and has {processes}")
    if found and config.run.on_change == "refuse":
        raise InputError(
            f"--resume: the run differs from its checkpoint: {'; '.join(found)}; --on-change continue resumes it anyway"
        )
    found += changed_settings(checkpoint.config, config, ("budget",))  # what a run is often resumed for
    return [f"not as in the checkpoint: {change}" for change in found]


def changed_settings(before: TrainConfig, after: TrainConfig, effects: Collection[str]) -> list[str]:
    """The settings that act on one of ``effects`` and differ, a phrase each."""
    earlier, later = flatten(before), flatten(after)
    return [
        f"{flag.name} was {earlier[flag.key]} and is {later[flag.key]}"
        for flag in flags_of(TrainConfig)
        if flag.acts_on in effects
        and earlier[flag.key] != later[flag.key]
        and (flag.key, earlier[flag.key]) != UNKNOWN_PRECISION
    ]


UNKNOWN_PRECISION = ("amp", "auto")  # in checkpoints of runs that did not yet write down what auto had meant


def changed_images(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """How the images of a run (name → checksum of an image with its masks) differ, a phrase each."""
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    kinds = {"added": after.keys() - before.keys(), "gone": before.keys() - after.keys(), "changed": changed}
    return [f"{len(names)} images are {kind} ({some(names)})" for kind, names in kinds.items() if names]


def moved_images(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> list[str]:
    """A phrase where images are in another part of the split (part → names) than they were; else nothing."""
    parts = {name: part for part, names in before.items() for name in names}
    moved = {name for part, names in after.items() for name in names if parts.get(name, part) != part}
    return [f"{len(moved)} images are in another part of the split ({some(moved)})"] if moved else []
