"""Train a Mask R-CNN on tiles of microscopy images.

one process:   python main.py --data-path hw3-data-release/train --output-dir logs --epochs 30
several GPUs:  torchrun --standalone --nproc-per-node 4 main.py [the same flags]
resume:        python main.py [the same flags] --resume auto

All settings are flags and keys of a recipe (--recipe script/recipes/cpu.toml). The run folder, --output-dir, then holds
best.pt for inference.py, last.pt to resume from, the log, its curves and the results on the validation images.
"""

import os

from src.common.errors import run_command
from src.config.checks import check_training
from src.config.command import parse
from src.config.settings import TrainConfig

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = run_command(lambda: parse(TrainConfig, __doc__, check_training, recipe=True))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave a shared core to others

import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from dataset import TileDataset
from model import TiledMaskRCNN, build_model
from src.common.errors import run_command
from src.common.limits import set_max_pixels
from src.common.progress import ProgressBar
from src.data.open_images import OpenImages
from src.data.training_data import TrainingData
from src.engine import distributed
from src.engine.checkpoint import Checkpoint, write_checkpoint
from src.engine.devices import AMP_TYPES
from src.engine.interrupt import Stop
from src.engine.loading import Batch, EpochSampler, Item, build_loader, choose_workers, worker_errors
from src.engine.memory import auto_batch_size, largest_fitting_batch, memory_errors
from src.engine.optimization import class_weights, learning_rate
from src.engine.run import (
    TrainingRun,
    compare,
    first_state,
    load_data,
    require_one_checkpoint,
    resolved,
    run_precision,
    warnings_on,
    write_setup,
)
from src.engine.run_folder import checkpoint_to_resume, keep_earlier_run, locked
from src.engine.run_log import RunLog, Step, StepLog, StepLosses
from src.engine.state import TrainingState
from src.engine.validation import predict_val, score_val
from src.evaluation.results import write_results
from src.network.norms import norm_errors
from src.network.weights import load_matching, read_weights
from src.reporting.curves import write_curves
from utils import available_cores, peak_memory, seed_everything, seed_step, share_cores, to_device


@memory_errors("lower --batch-size, --tile-size or --mask-rois-per-tile, or choose another GPU with --device cuda:N")
def main(config: TrainConfig) -> int:
    """Train until the budget is spent or a signal comes; the run is saved either way.

    Returns:
        The exit code: 0, or 143 or 130 where SIGTERM or Ctrl-C ended the run.
    """
    check_training(config)  # as the command line has, for other callers
    set_max_pixels(config.machine.max_pixels)
    world, device = distributed.start(config.machine)
    stop = Stop()
    with stop.listening(), locked(Path(config.run.output_dir)) if world.is_main else nullcontext():
        with stop.leaving():
            run = build_run(config, world, device)
        with run.log, worker_errors():
            run.log.write_start(run.state.progress)
            train(run, stop)
            if run.state.progress.finished:
                finish(run)
    distributed.stop(world)
    return 0 if run.state.progress.finished else stop.exit_code


def build_run(config: TrainConfig, world: distributed.World, device: torch.device) -> TrainingRun:
    """Load the data, build or resume everything, and write down what was decided."""
    folder = Path(config.run.output_dir)
    share_cores(device, world.size)

    # What is resumed, and in which precision: known before anything takes time.
    checkpoint = checkpoint_to_resume(config.run.resume, folder)
    require_one_checkpoint(world, checkpoint)
    amp = run_precision(config, checkpoint, device)

    # Data
    data = load_data(config, world)

    # Model
    weights = None if checkpoint else read_weights(config.model)
    config = resolved(config, data, amp, checkpoint, weights)
    seed_everything(config.data.seed + world.rank)
    model, note = first_model(config, data, device, weights)
    notes = [*data.notes, note]

    # Loader
    images, seed = OpenImages(data.train, data.cache), config.data.seed
    dataset = TileDataset(images, data.train_facts, config.tiles, config.augment, data.swap_channels, seed, model.fill)
    sampler = EpochSampler(len(dataset), config.data.seed, world.rank, world.size)
    if config.run.batch_size == "auto":
        config, note = choose_batch_size(config, world, model, dataset, len(sampler))
        notes.append(note)
    loader = start_loader(config, world, dataset, sampler, device)

    # Optimizer, after all processes were given the same weights: its state holds copies of them.
    network = parallel(model, config, world)
    state = first_state(config, model, device)

    # Resume
    if checkpoint:
        notes += resume(checkpoint, config, data, world, state)
    elif config.run.resume:
        notes.append(f"nothing to resume in {folder}: a new run")

    # Run folder
    if world.is_main:
        keep_earlier_run(folder, checkpoint)
    log = RunLog(folder if world.is_main else None, state.progress.step)
    run = TrainingRun(config, world, device, data, loader, network, state, log)
    write_setup(run, [*notes, *warnings_on(run)])
    return run


def resume(
    checkpoint: Checkpoint, config: TrainConfig, data: TrainingData, world: distributed.World, state: TrainingState
) -> list[str]:
    """Go on from a checkpoint; lines about that and about what differs from it."""
    notes = compare(checkpoint, config, data, world.size)
    state.restore(checkpoint)
    return [*notes, f"resumed at epoch {state.progress.epoch}, step {state.progress.step}"]


def first_model(
    config: TrainConfig, data: TrainingData, device: torch.device, weights: dict[str, Tensor] | None
) -> tuple[TiledMaskRCNN, str]:
    """The network with its first weights, random where none are given, and a line about them."""
    model = build_model(config.model, len(data.classes), config.predict)
    loaded = f", {load_matching(model, weights, config.model.weights)}" if weights else ""
    of_classes = class_weights(config.optimizer.class_weights, data.class_counts.tolist())
    model.roi_heads.class_weights = None if of_classes is None else of_classes.to(device)
    return to_device(model, device), f"weights: {config.model.weights}{loaded}"


def choose_batch_size(
    config: TrainConfig, world: distributed.World, model: nn.Module, dataset: TileDataset, tiles: int
) -> tuple[TrainConfig, str]:
    """The configuration with as many tiles per step as memory and ``tiles`` per epoch allow, and a line about it."""
    device = next(model.parameters()).device
    amp = AMP_TYPES[config.optimizer.amp]
    fitting = min(world.gather(largest_fitting_batch(model, dataset.densest(), amp, device)))
    batch_size = auto_batch_size(fitting, tiles, config.optimizer.accumulate)
    room = f"; memory has room for {fitting}" if device.type == "cuda" else ""
    note = f"--batch-size auto: {batch_size} tiles per step{room}; an epoch has {tiles}"
    return replace(config, run=replace(config.run, batch_size=batch_size)), note


def start_loader(
    config: TrainConfig, world: distributed.World, dataset: TileDataset, sampler: EpochSampler, device: torch.device
) -> DataLoader[Item]:
    """The loader of the training tiles, with as many worker processes as suit the machine."""
    cuda, batch_size = device.type == "cuda", int(config.run.batch_size)
    cores = available_cores() // world.local_size
    batch_bytes = batch_size * dataset.bytes_per_tile() * world.local_size  # all share this machine's memory
    workers = choose_workers(config.run.workers, cuda, cores, batch_bytes)
    return build_loader(dataset, sampler, batch_size, workers, cuda)


def parallel(model: TiledMaskRCNN, config: TrainConfig, world: distributed.World) -> nn.Module:
    """The network as it is called in training: compiled, and wrapped where there are several processes."""
    if config.optimizer.compile:
        model.backbone.compile(dynamic=False)  # of the network's parts the one whose shapes never change
    return DistributedDataParallel(model) if world.size > 1 else model


def train(run: TrainingRun, stop: Stop) -> None:
    """Epoch after epoch until the budget is spent or a signal comes.

    The run is saved before it validates, so that an error or a kill there loses nothing, and after it, so that the best
    score and the patience are kept.
    """
    progress = run.state.progress
    progress.finished = run.share_done() >= 1 and not progress.validating
    while not progress.finished:
        if not progress.validating:  # as it is in a run that was resumed before its validation ended
            train_epoch(run, stop)
            progress.validating = validation_is_due(run)
            progress.finished = run.share_done() >= 1 and not progress.validating
            stopped = run.world.any(bool(stop.signal))
            if stopped or progress.validating or progress.finished or progress.epoch % run.config.run.save_every == 0:
                save_last(run)
            if stopped and not progress.finished:
                run.say(stop_message(run))
                return
        if progress.validating:
            validate(run, stop)
            save_last(run)


def validation_is_due(run: TrainingRun) -> bool:
    """Whether the run has ended, or an epoch after which ``--val-every`` wants a validation."""
    progress, every = run.state.progress, run.config.run.val_every
    after_epoch = bool(every) and progress.batch == 0 and progress.epoch % every == 0
    return bool(run.data.val) and (after_epoch or run.share_done() >= 1)


def stop_message(run: TrainingRun) -> str:
    """The line that a run prints when a signal ends it."""
    return f"stopped by a signal and saved: --resume auto goes on at step {run.state.progress.step}"


def train_epoch(run: TrainingRun, stop: Stop) -> None:
    """Train on the rest of the current epoch, or until the budget is spent or a signal comes.

    The last losses are read before this returns, so that nothing is saved or validated that is not known to be finite.
    """
    progress, settings = run.state.progress, run.config.optimizer
    run.sampler.epoch, run.sampler.skip = progress.epoch, progress.batch * run.batch_size
    run.network.train()
    bar = ProgressBar(run.loader, f"epoch {progress.epoch}", unit="batch", hidden=not run.world.is_main)
    steps = StepLog(run.log, bar, run.state.scaler)
    started, done = time.perf_counter(), run.share_done()
    for index, batch in enumerate(bar, start=1):
        update = index % settings.accumulate == 0 or index == len(run.loader)
        rate = learning_rate(settings, progress.step, progress.epoch, done)
        losses = train_step(run, batch, rate, update)
        seconds = time.perf_counter() - started
        started += seconds
        progress.batch, progress.step = progress.batch + 1, progress.step + update
        progress.seconds += seconds
        done = run.share_done()
        speed = len(batch.tiles) * run.world.size / seconds
        steps.add(Step(progress, losses, rate, speed, done, update, peak_memory(run.device)))
        if update and (done >= 1 or run.world.any(bool(stop.signal))):
            break
    else:
        progress.epoch, progress.batch = progress.epoch + 1, 0
    steps.flush()


def train_step(run: TrainingRun, batch: Batch, rate: float, update: bool) -> StepLosses:
    """Forward and backward on a batch, and with ``update`` a step of the optimizer.

    The CPU waits for a GPU only where the network itself asks for values (docs/hardware.md has the number).
    """
    state, settings, progress = run.state, run.config.optimizer, run.state.progress
    seed_step(run.config.data.seed, run.world.rank, progress.epoch, progress.batch)
    batch = batch.to(run.device)
    with skip_gradient_sync(run.network, update):
        with torch.autocast(run.device.type, run.amp, enabled=run.amp is not None), norm_errors():
            losses: dict[str, Tensor] = run.network(batch.tiles, batch.targets())
        loss = torch.stack([losses[name] * weight for name, weight in run.loss_weights.items()]).sum()
        state.scaler.scale(loss / settings.accumulate).backward()
    values = {"loss": loss, **losses}
    if update:
        norm = values["grad_norm"] = optimizer_step(state, settings.clip_norm, rate)
        if state.scaler.is_enabled():
            values["skipped"] = ~norm.isfinite()  # then the scaler has left the weights as they were
    return StepLosses(values, progress.step, batch.names)


def skip_gradient_sync(network: nn.Module, update: bool) -> AbstractContextManager[None]:
    """Skip the exchange of gradients between processes in batches that do not update the weights."""
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


def validate(run: TrainingRun, stop: Stop) -> None:
    """Predict the val images as a submission would, score them, and keep the weights where AP50 is the best so far."""
    progress, patience = run.state.progress, run.config.run.patience
    run.world.share(run.state.buffers())  # else each process would predict with statistics of its own
    with stop.leaving(stop_message(run) if run.world.is_main else ""):  # an unfinished validation leaves nothing
        entries = predict_val(run)
        truth = run.truth if run.world.is_main else []
    scores = score_val(run, truth, entries) if run.world.is_main else None
    ap50 = run.world.from_main(scores["uncapped"]["AP50"] or 0.0 if scores else 0.0)
    progress.validating = False
    # Without a right detection, or without true cells, there is nothing to choose by: then the latest weights are kept.
    nothing_to_choose_by = max(ap50, progress.best_ap50) <= 0
    if ap50 > progress.best_ap50 or nothing_to_choose_by:
        progress.validations_without_gain = 0
        progress.best_ap50 = ap50 if ap50 > 0 else progress.best_ap50
        if scores:
            write_checkpoint(run.folder / "best.pt", run.best(scores))
            write_results(run.folder / "val-results.json", entries)
    else:
        progress.validations_without_gain += 1
    is_patient = not patience or progress.validations_without_gain < patience
    progress.finished = run.share_done() >= 1 or not is_patient


def save_last(run: TrainingRun) -> None:
    """Save the run as ``last.pt``, from the main process, and unless a validation follows draw its curves."""
    if run.world.is_main:
        write_checkpoint(run.folder / "last.pt", run.checkpoint(), previous=run.folder / "previous.pt")
        if not run.state.progress.validating:
            write_curves(run.folder)


def best_score(run: TrainingRun) -> str:
    """What the validations came to, in words."""
    if not run.data.val:
        return "no val images"
    if not run.data.val_cells:
        return "not scored, because the val images hold no cells"
    best = run.state.progress.best_ap50
    return f"best AP50 on val {best:.3f}" if best > 0 else "no right detection on val"


def finish(run: TrainingRun) -> None:
    """Log the end and print where the run lies."""
    progress = run.state.progress
    run.log.write("end", progress, best_ap50=progress.best_ap50)
    run.say(f"wrote {run.folder}: {progress.step} steps in {progress.seconds / 60:.1f} min, {best_score(run)}")
    if run.world.is_main:
        write_curves(run.folder)
        if not run.data.val:  # then the last weights are the only choice
            write_checkpoint(run.folder / "best.pt", run.best({}))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(CONFIG)))
