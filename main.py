"""Train a Mask R-CNN on tiles of microscopy images; reads top to bottom in the order it runs."""

from src.config import parse
from src.settings import TrainConfig, parse_loss_weights, parse_numbers

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = parse(
        TrainConfig, __doc__, "python main.py --data-path hw3-data-release/train --output-dir logs --epochs 30"
    )

import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import Batch, EpochSampler, Item, TileDataset, build_loader
from engine import distributed
from engine.checkpoint import checkpoint_to_resume, load_checkpoint, save_checkpoint
from engine.losses import StepLosses
from engine.optimization import AveragedWeights, build_optimizer, class_weights, learning_rate
from engine.predict import Predictor, predict_images
from engine.state import TrainingState
from engine.weights import load_pretrained, resolve
from model import TiledMaskRCNN, build_model, count_parameters
from src.classes import to_json
from src.coco import result_entries, write_results
from src.config import flatten, write_toml
from src.curves import write_curves
from src.errors import InputError, run
from src.files import write_json
from src.ground_truth import ImageTruth, load_ground_truth
from src.instances import Instance
from src.records import ImageId, Record, write_id_map
from src.score import score
from src.tiff import read_rgb
from src.training_data import TrainingData, load_training_data
from utils import (
    RunLog,
    choose_amp,
    choose_device,
    choose_workers,
    peak_memory,
    seed_everything,
    share_cores,
)


@dataclass
class Run:
    """A training run: what it was told, what it works on, and its state."""

    config: TrainConfig
    world: distributed.World
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

    @property
    def folder(self) -> Path:
        """Where the run's files lie."""
        return Path(self.config.data.output_dir)

    def say(self, text: str) -> None:
        """Print a line, from the main process alone, without tearing a progress bar."""
        if self.world.is_main:
            tqdm.write(text)


def main(config: TrainConfig) -> None:
    """Train, validate, keep the best."""
    world = distributed.start(config.run.backend)
    training = prepare(config, world)
    log = RunLog(training.folder, training.state.progress.step) if world.is_main else None
    try:
        train(training, log)
        if log:
            finish(training, log)
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "out of GPU memory; lower --batch-size, --tile-size, --rois-per-tile or --mask-rois-per-tile"
        ) from error
    finally:
        if log:
            log.close()
    distributed.stop(world)


# --- before the loop -------------------------------------------------------------------------------------------------


def prepare(config: TrainConfig, world: distributed.World) -> Run:
    """Load the data, build or resume everything, and write down what was decided."""
    device = choose_device(config.predict.device, world.local_rank)
    share_cores(device, world.size)
    data = load_data(config, world)
    config = resolved(config, data)
    dataset = TileDataset(data.train, data.cache, config.tiles, config.augment, data.swap_channels, config.run.seed)
    sampler = EpochSampler(len(dataset), config.run.seed, world.rank, world.size)
    workers = choose_workers(config.run.workers, device, world.size)
    loader = build_loader(dataset, sampler, config.run.batch_size, workers, device.type == "cuda")
    seed_everything(config.run.seed + world.rank)
    model, note = first_model(config, data, device)
    state = first_state(config, model, choose_amp(config.optimizer.amp, device))
    network = DistributedDataParallel(model) if world.size > 1 else model
    amp, weights = choose_amp(config.optimizer.amp, device), parse_loss_weights(config.optimizer.loss_weights)
    if world.is_main and config.run.resume is None:
        keep_earlier_run(Path(config.data.output_dir))
    truth = val_truth(data, config) if world.is_main and data.val else []
    training = Run(config, world, device, amp, data, sampler, loader, network, model, state, weights, truth)
    describe(training, [*data.notes, note], len(dataset))
    resume(training)
    return training


def load_data(config: TrainConfig, world: distributed.World) -> TrainingData:
    """Decode the images into the cache, the main process first: the others find them there."""

    def progress(records: list[Record]) -> Iterable[Record]:
        return tqdm(records, "read images", unit="image", leave=False, disable=None if world.is_main else True)

    if not world.is_main:
        world.wait()
    data = load_training_data(config.data, config.image, config.run, progress)
    if world.is_main:
        world.wait()
    return data


def resolved(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with everything filled in that depends on the data: what the checkpoint will hold."""
    return replace(
        config,
        data=replace(config.data, num_classes=len(data.classes) + 1),
        image=replace(config.image, channel_order=data.channel_order),
        model=resolve(config.model, data.cell_size),
    )


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
    return model.to(device), f"weights: {config.model.weights}" + (f", {report}" if report else "")


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
    return load_ground_truth(config.data.data_path, len(data.classes), id_map)


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
        f"{config.model.anchors}, on {training.device}, precision {training.amp or torch.float32}"
    )
    if training.world.is_main:
        write_toml(training.folder / "config.toml", config)
        write_json(training.folder / "split.json", data.split, indent=1)


def resume(training: Run) -> None:
    """Go on from the checkpoint that ``--resume`` names."""
    if training.config.run.resume is None:
        return
    path = checkpoint_to_resume(training.config.run.resume, training.folder)
    if path is None:
        training.say(f"nothing to resume in {training.folder}: a new run")
        return
    training.state.restore(load_checkpoint(path))
    progress = training.state.progress
    training.say(f"resumed {path} at epoch {progress.epoch}, step {progress.step}")


# --- the loop --------------------------------------------------------------------------------------------------------


def train(training: Run, log: RunLog | None) -> None:
    """Epoch after epoch until the budget is spent, validating and saving in between."""
    progress, settings = training.state.progress, training.config.run
    progress.finished = share_done(training) >= 1
    while not progress.finished:
        train_epoch(training, log)
        progress.finished |= share_done(training) >= 1
        due = settings.val_every and progress.epoch % settings.val_every == 0 and progress.batch == 0
        if training.data.val and (due or progress.finished):
            validate(training, log)
        if training.world.is_main and (progress.epoch % settings.save_every == 0 or progress.finished):
            save(training, "last.pt")
            write_curves(training.folder)


@dataclass(frozen=True)
class Step:
    """A step that was started, for the log; ``share_done`` is that of the whole run after it, in [0, 1]."""

    number: int
    epoch: int
    seconds: float
    rate: float
    images_per_s: float
    share_done: float
    updated: bool
    losses: StepLosses


def train_epoch(training: Run, log: RunLog | None) -> None:
    """Train on the rest of the current epoch, or until the budget is spent.

    The losses of a step are read while the next one runs, so that a GPU never waits for them; those of the last are
    read before this returns, so that nothing is saved or validated that is not known to be finite.
    """
    progress, accumulate = training.state.progress, training.config.optimizer.accumulate
    training.sampler.epoch, training.sampler.skip = progress.epoch, progress.batch * training.config.run.batch_size
    training.network.train()
    bar = tqdm(training.loader, f"epoch {progress.epoch}", unit="batch", leave=False, disable=None if log else True)
    started, done, previous = time.perf_counter(), share_done(training), None
    for index, batch in enumerate(bar, start=1):
        update = index % accumulate == 0 or index == len(training.loader)
        rate = learning_rate(training.config.optimizer, progress.step, progress.epoch, done)
        losses = train_step(training, batch, rate, update)
        if previous:
            report_step(training, previous, log, bar)
        progress.batch += 1
        progress.step += update
        seconds = time.perf_counter() - started
        progress.seconds, started = progress.seconds + seconds, started + seconds
        speed = len(batch[0]) * training.world.size / seconds
        done = share_done(training)
        previous = Step(progress.step, progress.epoch, progress.seconds, rate, speed, done, update, losses)
        if done >= 1:
            break
    else:
        progress.epoch, progress.batch = progress.epoch + 1, 0
    if previous:
        report_step(training, previous, log, bar)


def report_step(training: Run, step: Step, log: RunLog | None, bar: "tqdm[Batch]") -> None:
    """Read a step's losses, show them and log them."""
    values = step.losses.read()
    left = step.seconds * (1 / max(step.share_done, 1e-6) - 1)
    bar.set_postfix(
        loss=f"{values['loss']:.3f}",
        lr=f"{step.rate:.2g}",
        images_per_s=f"{step.images_per_s:.1f}",
        eta=bar.format_interval(left),
        memory=f"{peak_memory(training.device) / 1e9:.1f}GB",
    )
    if log and step.updated:
        speed = round(step.images_per_s, 2)
        log.write("step", step.number, step.epoch, step.seconds, lr=step.rate, images_per_s=speed, **values)


def train_step(training: Run, batch: Batch, rate: float, update: bool) -> StepLosses:
    """Forward and backward on a batch, and with ``update`` a step of the optimizer; nothing here waits for the GPU."""
    tiles, targets, names = batch
    state, settings = training.state, training.config.optimizer
    tiles = tiles.to(training.device, non_blocking=True)
    targets = [
        {key: value.to(training.device, non_blocking=True) for key, value in target.items()} for target in targets
    ]
    with torch.autocast(training.device.type, training.amp, enabled=training.amp is not None):
        losses: dict[str, Tensor] = training.network(tiles, targets)
    loss = torch.stack([losses[name] * weight for name, weight in training.loss_weights.items()]).sum()
    state.scaler.scale(loss / settings.accumulate).backward()
    values = {"loss": loss, **losses}
    if update:
        values["grad_norm"] = optimizer_step(state, settings.clip_norm, rate)
    return StepLosses(values, state.progress.step, names)


def optimizer_step(state: TrainingState, clip_norm: float, rate: float) -> Tensor:
    """Clip the gradient, step, move the averaged weights; the gradient's norm before clipping."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm or math.inf)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.averaged:
        state.averaged.update(state.model, state.progress.step)
    return norm


def share_done(training: Run) -> float:
    """Share of the budget (epochs, steps or minutes, whichever ends first) that is used up; alike on all processes."""
    progress, settings = training.state.progress, training.config.run
    steps_per_epoch = max(-(-len_epoch(training) // training.config.optimizer.accumulate), 1)
    shares = [progress.step / (settings.epochs * steps_per_epoch)]
    if settings.max_steps:
        shares.append(progress.step / settings.max_steps)
    if settings.max_minutes:
        shares.append(training.world.from_main(progress.seconds) / 60 / settings.max_minutes)
    return max(shares)


def len_epoch(training: Run) -> int:
    """Batches in a whole epoch."""
    tiles, size = -(-training.sampler.length // training.sampler.world_size), training.config.run.batch_size
    return max(tiles // size, 1)


# --- validation and files --------------------------------------------------------------------------------------------


def validate(training: Run, log: RunLog | None) -> None:
    """Predict the val images as a submission would, score them, and keep the model where AP50 is the best so far."""
    config, data, progress = training.config, training.data, training.state.progress
    model = training.state.predicting_model.eval()
    predictor = Predictor(
        model, training.device, training.amp, config.image.scale, config.tiles.tile_size, config.predict
    )
    mine = range(training.world.rank, len(data.val), training.world.size)

    def read(index: int) -> np.ndarray:
        return read_rgb(data.val[index].image, config.image.intensity, data.swap_channels)

    def finish(index: int, image: np.ndarray, instances: list[Instance]) -> list[dict[str, Any]]:
        return result_entries(index + 1, instances, *image.shape[:2])  # the ids that the val truth has

    bar = tqdm(mine, "validate", unit="image", leave=False, disable=None if log else True)
    entries = [entry for found in predict_images(predictor, bar, read, finish) for entry in found]
    entries = [entry for share in training.world.gather(entries) for entry in share]
    ap50 = training.world.from_main(report(training, entries, log) if log else 0.0)
    progress.validations_without_gain += 1
    if ap50 > progress.best_ap50:
        progress.best_ap50, progress.validations_without_gain = ap50, 0
        if log:
            save(training, "best.pt")
            write_results(training.folder / "val-results.json", entries)
    patience = config.run.patience
    progress.finished |= bool(patience) and progress.validations_without_gain >= patience


def report(training: Run, entries: list[dict[str, Any]], log: RunLog) -> float:
    """Score the val entries, log and say the figures; the AP50 (uncapped) that chooses the best checkpoint."""
    data, progress = training.data, training.state.progress
    scores = score(training.truth, entries, data.classes)
    capped, uncapped = scores["at_100"], scores["uncapped"]
    ap50 = uncapped["AP50"]
    figures = {"AP50": ap50, "AP": uncapped["AP"], "AP50_at_100": capped["AP50"], "scores": scores}
    log.write("val", progress.step, progress.epoch, progress.seconds, **figures)
    per_class = ", ".join(f"{c.name} {figure(uncapped['per_class'][str(c.id)]['AP50'])}" for c in data.classes)
    training.say(
        f"epoch {progress.epoch}, step {progress.step}, {progress.seconds / 60:.1f} min: AP50 {figure(ap50)} "
        f"({per_class}), AP {figure(uncapped['AP'])}, AP50 at 100 detections {figure(capped['AP50'])}"
    )
    return ap50 or 0.0


def figure(value: float | None) -> str:
    """A score for a table; ``-`` where a class has no ground truth."""
    return "-" if value is None else f"{value:.3f}"


def save(training: Run, name: str) -> None:
    """Write a checkpoint of the run; ``last.pt`` leaves the one before as ``previous.pt``."""
    content = {
        **training.state.content(),
        "settings": flatten(training.config),
        "classes": to_json(training.data.classes),
        "split": training.data.split,
    }
    previous = training.folder / "previous.pt" if name == "last.pt" else None
    save_checkpoint(training.folder / name, content, previous)


def finish(training: Run, log: RunLog) -> None:
    """Log the end and say where the run lies."""
    progress = training.state.progress
    log.write("end", progress.step, progress.epoch, progress.seconds, best_ap50=progress.best_ap50)
    write_curves(training.folder)
    if not training.data.val:
        save(training, "best.pt")  # without val images the last model is the only choice
    best = f"best AP50 on val {progress.best_ap50:.3f}" if training.data.val else "no val images"
    print(f"wrote {training.folder}: {progress.step} steps in {progress.seconds / 60:.1f} min, {best}")


if __name__ == "__main__":
    run(lambda: main(CONFIG))
