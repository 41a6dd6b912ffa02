"""A training run before its first step: what it was told, what it works on, its state."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import TileDataset
from engine.batch_size import fitting_batch
from engine.checkpoint import checkpoint_to_resume
from engine.distributed import World
from engine.interrupt import Stop
from engine.loading import EpochSampler, Item, build_loader, choose_workers
from engine.optimization import AveragedWeights, build_optimizer, class_weights
from engine.resumption import budget_changes, changes, refuse_changes
from engine.state import TrainingState
from engine.weights import load_pretrained, resolve
from model import TiledMaskRCNN, build_model, count_parameters
from src.classes import to_json
from src.config import flatten, write_toml
from src.errors import InputError
from src.files import write_json
from src.ground_truth import ImageTruth, load_ground_truth
from src.records import ImageId, Record, write_id_map
from src.settings import TrainConfig, parse_loss_weights, parse_numbers
from src.training_data import TrainingData, load_training_data
from utils import available_cores, choose_amp, choose_device, place, seed_everything, share_cores


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
    network: nn.Module  # the model, wrapped where there are several processes
    model: TiledMaskRCNN
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


def prepare(config: TrainConfig, world: World, stop: Stop) -> Run:
    """Load the data, build or resume everything, and write down what was decided."""
    device = choose_device(config.predict.device, world.local_rank)
    share_cores(device, world.size)
    checkpoint = checkpoint_to_resume(config.run.resume, Path(config.data.output_dir))
    data = load_data(config, world)
    config = resolved(config, data, checkpoint)
    dataset = TileDataset(data.train, data.cache, config.tiles, config.augment, data.swap_channels, config.run.seed)
    seed_everything(config.run.seed + world.rank)
    model, note = first_model(config, data, device)
    notes = [*data.notes, note]
    amp, weights = choose_amp(config.optimizer.amp, device), parse_loss_weights(config.optimizer.loss_weights)
    if not config.run.batch_size:  # auto
        fitting = int(world.from_main(fitting_batch(model, dataset, amp, device)))
        config = replace(config, run=replace(config.run, batch_size=fitting))
    if checkpoint:
        notes += compare(checkpoint, config, data)
    sampler = EpochSampler(len(dataset), config.run.seed, world.rank, world.size)
    cuda, batch_bytes = device.type == "cuda", config.run.batch_size * dataset.bytes_per_tile()
    workers = choose_workers(config.run.workers, cuda, available_cores() // world.size, batch_bytes * world.size)
    loader = build_loader(dataset, sampler, config.run.batch_size, workers, cuda)
    state = first_state(config, model, amp)
    if config.optimizer.compile:
        model.backbone.compile(dynamic=False)  # of the network's parts the one whose shapes never change
    network = DistributedDataParallel(model) if world.size > 1 else model
    if world.is_main and config.run.resume is None:
        keep_earlier_run(Path(config.data.output_dir))
    truth = val_truth(data, config) if world.is_main and data.val else []
    training = Run(config, world, device, amp, data, sampler, loader, network, model, state, weights, truth, stop)
    describe(training, notes, len(dataset))
    if checkpoint:
        state.restore(checkpoint)
        training.say(f"resumed at epoch {state.progress.epoch}, step {state.progress.step}")
    elif config.run.resume:
        training.say(f"nothing to resume in {training.folder}: a new run")
    return training


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


def resolved(config: TrainConfig, data: TrainingData, checkpoint: dict[str, Any] | None) -> TrainConfig:
    """The configuration with everything filled in that depends on the data: what the checkpoint will hold."""
    earlier = checkpoint["settings"]["batch_size"] if checkpoint else 0
    return replace(
        config,
        data=replace(config.data, num_classes=len(data.classes) + 1),
        image=replace(config.image, channel_order=data.channel_order),
        model=resolve(config.model, data.cell_size),
        run=replace(config.run, batch_size=config.run.batch_size or earlier),
    )


def compare(checkpoint: dict[str, Any], config: TrainConfig, data: TrainingData) -> list[str]:
    """What is not as in the checkpoint, for the user to know; an :class:`InputError` where that is refused."""
    settings = flatten(config)
    found = changes(checkpoint, settings, data.checksums)
    if config.run.on_change == "refuse":
        refuse_changes(found)
    return [f"not as in the checkpoint: {change}" for change in (*found, *budget_changes(checkpoint, settings))]


def first_model(config: TrainConfig, data: TrainingData, device: torch.device) -> tuple[TiledMaskRCNN, str]:
    """The network with its first weights, and a word about them."""
    model = build_model(config.model, len(data.classes) + 1, config.predict.score_thresh)
    report = load_pretrained(model, config.model)
    weights = config.optimizer.class_weights
    numbers = weights if weights in ("none", "auto") else parse_numbers(weights, "--class-weights")
    if not isinstance(numbers, str) and len(numbers) != len(data.classes) + 1:
        raise InputError(f"--class-weights: expected {len(data.classes) + 1} numbers, background first, got {weights}")
    found = class_weights(numbers, data.class_counts.tolist())
    model.roi_heads.class_weights = None if found is None else found.to(device)
    return place(model, device), f"weights: {config.model.weights}" + (f", {report}" if report else "")


def first_state(config: TrainConfig, model: TiledMaskRCNN, amp: torch.dtype | None) -> TrainingState:
    """Optimizer, scaler and averaged weights for a model."""
    averaged = AveragedWeights(model, config.optimizer.ema) if config.optimizer.ema else None
    scaler = torch.amp.GradScaler(enabled=amp == torch.float16)
    return TrainingState(model, build_optimizer(model, config.optimizer), scaler, averaged)


def val_truth(data: TrainingData, config: TrainConfig) -> list[ImageTruth]:
    """The true cells of the val images; their ids are 1, 2, … in the split's order, and the id map is kept."""
    id_map = Path(config.data.output_dir) / "val-id-map.json"
    ids = [ImageId(f"{record.name}.tif", i, record.height, record.width) for i, record in enumerate(data.val, start=1)]
    write_id_map(id_map, ids)
    return load_ground_truth(config.data.data_path, len(data.classes), id_map, max_pixels=config.image.max_pixels)


def keep_earlier_run(folder: Path) -> None:
    """Rename a folder that holds an earlier run, so that a new one never writes over its checkpoints."""
    if (folder / "last.pt").exists():
        number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
        print(f"{folder} holds an earlier run: it is now {folder.rename(folder.with_name(f'{folder.name}.{number}'))}")


def describe(training: Run, notes: list[str], tile_count: int) -> None:
    """Say what the run works on, and write its configuration and split into its folder."""
    data, config = training.data, training.config
    cells = ", ".join(f"{c.name} {n}" for c, n in zip(data.classes, data.class_counts, strict=True))
    for note in notes:
        training.say(note)
    training.say(f"train: {len(data.train)} images, {tile_count} tiles; val: {len(data.val)} images; cells: {cells}")
    training.say(
        f"model: {config.model.backbone}, {count_parameters(training.model) / 1e6:.1f} M parameters, anchors "
        f"{config.model.anchors}, on {training.device}, precision {training.amp or torch.float32}, "
        f"{config.run.batch_size} tiles a step"
    )
    if training.world.is_main:
        write_toml(training.folder / "config.toml", config)
        write_json(training.folder / "split.json", data.split, indent=1)
        write_json(training.folder / "classes.json", to_json(data.classes), indent=1)
