"""Train a Mask R-CNN on tiles of microscopy images; reads top to bottom in the order it runs."""

import os

from src.config.checks import check_training
from src.config.flags import parse
from src.config.settings import TrainConfig

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = parse(
        TrainConfig,
        __doc__,
        "python main.py --data-path hw3-data-release/train --output-dir logs --epochs 30",
        check_training,
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave a shared core to others

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dataset import TileDataset
from model import TiledMaskRCNN, build_model
from src.common.errors import InputError, run
from src.config.flags import flatten
from src.config.settings import parse_loss_weights
from src.data.classes import to_json
from src.data.training_data import TrainingData
from src.engine import distributed
from src.engine.checkpoint import checkpoint_to_resume, save_checkpoint
from src.engine.devices import AMP_TYPES
from src.engine.interrupt import Stop
from src.engine.loading import Batch, EpochSampler, build_loader, choose_workers, worker_errors
from src.engine.memory import auto_batch_size, largest_fitting_batch, memory_errors
from src.engine.optimization import class_weights, learning_rate
from src.engine.run import (
    Run,
    compare,
    describe,
    first_state,
    load_data,
    require_one_checkpoint,
    resolved,
    run_precision,
    val_truth,
)
from src.engine.run_folder import keep_earlier_run, locked
from src.engine.run_log import RunLog, StepLosses
from src.engine.state import TrainingState
from src.engine.validation import predict_val, report
from src.engine.weights import load_matching, read_weights
from src.evaluation.results import write_results
from src.reporting.curves import write_curves
from utils import available_cores, peak_memory, seed_everything, seed_step, share_cores, to_device

LOWEST_SCALE = 1e-3  # of fp16 losses; it begins at 65,536 and halves with each step whose gradients overflow


@memory_errors("lower --batch-size, --tile-size or --mask-rois-per-tile, or choose another GPU with --device cuda:N")
def main(config: TrainConfig) -> None:
    """Train, validate, keep the best. A signal ends the run with 128 plus its number, once the run is saved."""
    check_training(config)  # again, for callers other than the command line
    world, device = distributed.start(config.predict.device, config.run.backend, config.run.timeout_minutes)
    stop, log = Stop(), None
    try:
        with stop.listening(), locked(Path(config.data.output_dir)) if world.is_main else nullcontext():
            with stop.leaving():
                training = prepare(config, world, device, stop)
            log = RunLog(training.folder, training.state.progress.step) if world.is_main else None
            if log:
                log.start(training.state.progress)
            with worker_errors():
                train(training, log)
            if log:
                finish(training, log)
    finally:
        if log:
            log.close()
    distributed.stop(world)


def prepare(config: TrainConfig, world: distributed.World, device: torch.device, stop: Stop) -> Run:
    """Load the data, build or resume everything, and write down what was decided."""
    share_cores(device, world.size)
    checkpoint = checkpoint_to_resume(config.run.resume, Path(config.data.output_dir))
    require_one_checkpoint(world, checkpoint)
    precision = run_precision(config, checkpoint, device)
    data = load_data(config, world)
    first_weights = None if checkpoint else read_weights(config.model)
    config = resolved(config, data, precision, checkpoint, first_weights)
    dataset = TileDataset(data.train, data.cache, config.tiles, config.augment, data.swap_channels, config.run.seed)
    seed_everything(config.run.seed + world.rank)
    model, note = first_model(config, data, device, first_weights)
    amp, weights = AMP_TYPES[config.optimizer.amp], parse_loss_weights(config.optimizer.loss_weights)
    notes = [*data.notes, note]
    sampler = EpochSampler(len(dataset), config.run.seed, world.rank, world.size)
    if not config.run.batch_size:  # auto
        fitting = min(world.gather(largest_fitting_batch(model, dataset.densest(), amp, device)))
        batch_size = auto_batch_size(fitting, len(sampler), config.optimizer.accumulate)
        config = replace(config, run=replace(config.run, batch_size=batch_size))
        room = f"; memory has room for {fitting}" if device.type == "cuda" else ""
        notes.append(f"--batch-size auto: {batch_size} tiles per step{room}; an epoch has {len(sampler)}")
    if checkpoint:
        notes += compare(checkpoint, config, data, world.size)
    cuda, batch_bytes = device.type == "cuda", config.run.batch_size * dataset.bytes_per_tile()
    cores, on_this_machine = available_cores() // world.local_size, batch_bytes * world.local_size
    workers = choose_workers(config.run.workers, cuda, cores, on_this_machine)
    loader = build_loader(dataset, sampler, config.run.batch_size, workers, cuda)
    if config.optimizer.compile:
        model.backbone.compile(dynamic=False)  # of the network's parts the one whose shapes never change
    network = DistributedDataParallel(model) if world.size > 1 else model
    state = first_state(config, model, device)  # after all processes were given the same weights: it copies them
    if world.is_main:
        keep_earlier_run(Path(config.data.output_dir), checkpoint)
    truth = val_truth(data, config) if world.is_main and data.val else []
    training = Run(config, world, device, amp, data, sampler, loader, network, state, weights, truth, stop)
    describe(training, notes, len(dataset))
    if checkpoint:
        state.restore(checkpoint)
        training.say(f"resumed at epoch {state.progress.epoch}, step {state.progress.step}")
    elif config.run.resume:
        training.say(f"nothing to resume in {training.folder}: a new run")
    return training


def first_model(
    config: TrainConfig, data: TrainingData, device: torch.device, first_weights: dict[str, Tensor] | None
) -> tuple[TiledMaskRCNN, str]:
    """The network with its first weights, and a word about them; without any they are random."""
    model = build_model(config.model, len(data.classes) + 1, config.predict.score_thresh)
    report = load_matching(model, first_weights, config.model.weights) if first_weights else None
    weights = class_weights(config.optimizer.class_weights, data.class_counts.tolist())
    model.roi_heads.class_weights = None if weights is None else weights.to(device)
    return to_device(model, device), f"weights: {config.model.weights}" + (f", {report}" if report else "")


def train(training: Run, log: RunLog | None) -> None:
    """Epoch after epoch until the budget is spent.

    The run is saved before it validates, so that an error or a kill there loses nothing, and after it, so that the best
    score and the patience are kept.

    Raises:
        SystemExit: a signal came; the run is saved.
    """
    progress, settings = training.state.progress, training.config.run
    progress.finished = training.share_done() >= 1 and not progress.validating
    while not progress.finished:
        if not progress.validating:
            train_epoch(training, log)
            is_last = training.share_done() >= 1
            progress.validating = bool(training.data.val) and (is_last or validation_is_due(training))
            progress.finished = is_last and not progress.validating
            stopped = training.world.any(bool(training.stop.signal))
            if stopped or progress.validating or progress.finished or progress.epoch % settings.save_every == 0:
                save_last(training)
            if stopped:
                training.say(stop_message(training))
                training.stop.leave()
        if progress.validating:
            validate(training, log)
            progress.finished |= training.share_done() >= 1
            save_last(training)


def validation_is_due(training: Run) -> bool:
    """Whether an epoch has just ended after which ``--val-every`` wants one."""
    progress, every = training.state.progress, training.config.run.val_every
    return bool(every) and progress.batch == 0 and progress.epoch % every == 0


def stop_message(training: Run) -> str:
    """The line that a run prints when a signal ends it."""
    return f"stopped by a signal and saved: --resume auto goes on at step {training.state.progress.step}"


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
    started, done, previous = time.perf_counter(), training.share_done(), None
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
        speed = len(batch.tiles) * training.world.size / seconds
        done = training.share_done()
        previous = Step(progress.step, progress.epoch, progress.seconds, rate, speed, done, update, losses)
        if update and (done >= 1 or training.world.any(bool(training.stop.signal))):
            break
    else:
        progress.epoch, progress.batch = progress.epoch + 1, 0
    if previous:
        report_step(training, previous, log, bar)


def report_step(training: Run, step: Step, log: RunLog | None, bar: "tqdm[Batch]") -> None:
    """Read a step's losses, show them and log them.

    Raises:
        InputError: the gradients overflow in fp16 however far the scaler has lowered the losses.
    """
    values = step.losses.read()
    skipped = bool(values.pop("skipped", 0.0))
    if skipped and training.state.scaler.get_scale() < LOWEST_SCALE:
        raise InputError(f"step {step.number}: gradients overflow in fp16 in every step; take --amp bf16 or off")
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
        flags = {"skipped": True} if skipped else {}
        log.write("step", step.number, step.epoch, step.seconds, lr=step.rate, images_per_s=speed, **values, **flags)


def train_step(training: Run, batch: Batch, rate: float, update: bool) -> StepLosses:
    """Forward and backward on a batch, and with ``update`` a step of the optimizer.

    The CPU waits for a GPU only where the network itself asks for values (docs/hardware.md has the number).
    """
    state, settings, progress = training.state, training.config.optimizer, training.state.progress
    seed_step(training.config.run.seed, training.world.rank, progress.epoch, progress.batch)
    batch = batch.to(training.device)
    with skip_gradient_sync(training.network, update):
        with torch.autocast(training.device.type, training.amp, enabled=training.amp is not None):
            losses: dict[str, Tensor] = training.network(batch.tiles, batch.targets())
        loss = torch.stack([losses[name] * weight for name, weight in training.loss_weights.items()]).sum()
        state.scaler.scale(loss / settings.accumulate).backward()
    values = {"loss": loss, **losses}
    if update:
        norm = values["grad_norm"] = optimizer_step(state, settings.clip_norm, rate)
        if state.scaler.is_enabled():
            values["skipped"] = ~norm.isfinite()  # then the scaler has left the weights as they were
    return StepLosses(values, state.progress.step, batch.names)


def skip_gradient_sync(network: nn.Module, update: bool) -> AbstractContextManager[None]:
    """Spare several processes the exchange of gradients that are not yet used."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not update else nullcontext()


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


# --- validation and files --------------------------------------------------------------------------------------------


def validate(training: Run, log: RunLog | None) -> None:
    """Predict the val images as a submission would, score them, and keep the model where AP50 is the best so far."""
    progress, patience = training.state.progress, training.config.run.patience
    training.world.share(training.state.buffers())  # else each process would predict with statistics of its own
    message = stop_message(training) if training.world.is_main else ""
    with training.stop.leaving(message):  # nothing is kept of a validation that is not finished
        entries = predict_val(training, log)
    ap50 = training.world.from_main(report(training, entries, log) if log else 0.0)
    progress.validating = False
    progress.validations_without_gain += 1
    if ap50 > progress.best_ap50:
        progress.best_ap50, progress.validations_without_gain = ap50, 0
        if log:
            save(training, "best.pt")
            write_results(training.folder / "val-results.json", entries)
    progress.finished |= bool(patience) and progress.validations_without_gain >= patience


def save_last(training: Run) -> None:
    """Save the run as ``last.pt``, from the main process, and unless a validation follows draw its curves."""
    if training.world.is_main:
        save(training, "last.pt")
        if not training.state.progress.validating:
            write_curves(training.folder)


def save(training: Run, name: str) -> None:
    """Write a checkpoint of the run; ``last.pt`` leaves the one before as ``previous.pt``."""
    content = {
        **training.state.content(),
        "settings": flatten(training.config),
        "classes": to_json(training.data.classes),
        "split": training.data.split,
        "checksums": training.data.checksums,
        "processes": training.world.size,
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
