"""Predict test images tile by tile, stitch, and write COCO RLE results for a submission."""

import os

from src.config.checks import check_prediction
from src.config.flags import flatten, parse
from src.config.settings import InferenceConfig

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = parse(
        InferenceConfig,
        __doc__,
        "python inference.py --ckpt logs/best.pt --test-dir images --zip submission.zip",
        check_prediction,
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave a shared core to others

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model import TiledMaskRCNN, build_model, build_skeleton
from src.common.errors import InputError, run
from src.common.files import companion, file_digest, write_json
from src.config.checks import check_overlap
from src.config.settings import (
    HOMEWORK_ID_MAP,
    HOMEWORK_TEST,
    InferenceConfig,
    ModelSettings,
    PredictSettings,
    TrainConfig,
)
from src.data.classes import CellClass, parse_classes, to_json
from src.data.id_map import write_id_map
from src.data.records import TestImage, find_test_images
from src.data.splits import part_names, read_split
from src.data.tiff import read_rgb
from src.engine import distributed
from src.engine.checkpoint import check_fits, load_checkpoint, load_state, settings_of, write_export
from src.engine.devices import AMP_TYPES, prediction_amp
from src.engine.memory import memory_errors
from src.engine.prediction import Predictor, predict_images
from src.evaluation.partial_results import PartialResults
from src.evaluation.results import check_results, result_entries, write_results, write_submission_zip
from src.geometry.instances import Instance
from src.reporting.draw import SURE, write_overlay
from utils import share_cores, to_device


def load_predictor(
    config: InferenceConfig, device: torch.device
) -> tuple[Predictor, TrainConfig, tuple[CellClass, ...]]:
    """Build the predictor of one checkpoint or several; flags win over what the first says."""
    checkpoints = [load_checkpoint(Path(path)) for path in config.ckpt]
    configs = [settings_of(checkpoint) for checkpoint in checkpoints]
    trained, classes = configs[0], parse_classes(checkpoints[0]["classes"], config.ckpt[0])
    settings = _override(trained.predict, config)
    check_overlap("--predict-overlap", settings.predict_overlap, trained.tiles.tile_size)
    models = []
    for path, checkpoint, other in zip(config.ckpt, checkpoints, configs, strict=True):
        _check_alike(config.ckpt[0], (trained, checkpoints[0]["classes"]), path, (other, checkpoint["classes"]))
        model = restore_model(checkpoint, _override(other.model, config), len(classes) + 1, settings)
        models.append(to_device(model, device))
    amp = AMP_TYPES[prediction_amp(config.amp, trained.optimizer.amp, device)]
    predictor = Predictor(models, device, amp, trained.image.scale, trained.tiles.tile_size, settings)
    return predictor, trained, classes


def _check_alike(first: str, one: tuple[TrainConfig, Any], path: str, other: tuple[TrainConfig, Any]) -> None:
    """Refuse to merge checkpoints, each its settings and its classes, that see different tiles or classes."""
    settings, others = flatten(one[0]), flatten(other[0])
    differing = [key for key in ("scale", "tile_size", "intensity", "channel_order") if settings[key] != others[key]]
    names, other_names = ([c.name for c in parse_classes(classes, first)] for classes in (one[1], other[1]))
    if names != other_names:
        differing.append("classes")
    if differing:
        raise InputError(f"--ckpt {path}: cannot be merged with {first}: their {', '.join(differing)} differ")


def restore_model(
    checkpoint: dict[str, Any], settings: ModelSettings, num_classes: int, predict: PredictSettings
) -> TiledMaskRCNN:
    """The network of a checkpoint in evaluation mode, with averaged weights where there are any."""
    state, source = checkpoint["ema"] or checkpoint["model"], checkpoint["source"]
    check_fits(build_skeleton(settings, num_classes), state, source)  # before memory is given to a stranger's settings
    model = build_model(settings, num_classes, predict.score_thresh)
    load_state(model, state, source)
    return model.eval()


def _override(settings: Any, config: InferenceConfig) -> Any:
    """Settings with those replaced that the command line gave."""
    given = {item.name: getattr(config, item.name, None) for item in fields(settings)}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def find_images(config: InferenceConfig) -> list[TestImage]:
    """The images to predict; without an id map they are numbered."""
    names = part_names(read_split(config.split), config.part) if config.split else None
    homework = Path(config.test_dir) == Path(HOMEWORK_TEST)
    id_map = config.id_map or (HOMEWORK_ID_MAP if homework else None)
    return find_test_images(config.test_dir, id_map, names, config.max_pixels)


@memory_errors(
    "lower --predict-batch-size, leave out --whole-image, choose another GPU with --device cuda:N or take --device cpu"
)
def main(config: InferenceConfig) -> None:
    """Predict every image and write the results, or export a checkpoint."""
    check_prediction(config)  # again, for callers other than the command line
    if config.export:
        export(config.ckpt, Path(config.export))
        return
    world, device = distributed.start(config.device, config.backend, config.timeout_minutes)
    share_cores(device, world.size)
    images = find_images(config)
    predictor, trained, classes = load_predictor(config, device)
    if world.is_main:
        print(f"predicts on {device} in {str(predictor.amp or torch.float32).removeprefix('torch.')}")
    swap = (config.channel_order or trained.image.channel_order) == "bgr"

    def read(image: TestImage) -> np.ndarray:
        return read_rgb(image.image, trained.image.intensity, swap, config.max_pixels)

    def finish(image: TestImage, pixels: np.ndarray, instances: list[Instance]) -> list[dict[str, Any]]:
        if config.overlay:
            sure = [instance for instance in instances if instance.score >= SURE]
            write_overlay(Path(config.overlay) / f"{image.entry.name}.png", pixels, sure, classes)
        return result_entries(image.entry.id, instances, image.entry.height, image.entry.width)

    partial = PartialResults(config.output, job(config, predictor.amp), world.rank)
    entries = resumed(config, partial, images, world)
    waiting = [image for image in images if image.entry.id not in entries]
    mine = waiting[world.rank :: world.size]
    bar = tqdm(mine, "predict", unit="image", disable=None if world.is_main else True)
    for image, found in zip(mine, predict_images(predictor, bar, read, finish), strict=True):
        partial.add(image, found)
        entries[image.entry.id] = found
    shares = world.gather(entries)
    if world.is_main:
        everything = {image_id: found for share in shares for image_id, found in share.items()}
        write(config, images, [entry for found in everything.values() for entry in found], classes)
        partial.remove()
    distributed.stop(world)


def export(ckpt: Sequence[str], path: Path) -> None:
    """Write one checkpoint's weights in a form that is safe to share."""
    write_export(path, load_checkpoint(Path(ckpt[0])))
    print(f"wrote {path}")


def job(config: InferenceConfig, amp: torch.dtype | None) -> list[Any]:
    """What every result depends on: the checkpoints, the precision and the settings that change what is found."""
    acting = {item.name for item in fields(PredictSettings)} - {"device", "predict_batch_size"}
    acting |= {"detections_per_tile", "channel_order"}
    settings = [getattr(config, name) for name in sorted(acting)]
    return [[file_digest(Path(path)) for path in config.ckpt], str(amp), settings]


def resumed(
    config: InferenceConfig, partial: PartialResults, images: Sequence[TestImage], world: distributed.World
) -> dict[int, list[dict[str, Any]]]:
    """Image id → entries of what an interrupted prediction did, with ``--resume``; without, that is forgotten."""
    found = world.gather(partial.read(images) if config.resume else {})  # until all processes have read
    done = {image_id: entries for part in found for image_id, entries in part.items()}
    if world.is_main:
        if config.resume:
            print(f"resumed: {len(done)} of {len(images)} images are done")
        else:
            partial.remove()
    world.wait()
    return done


def write(
    config: InferenceConfig, images: Sequence[TestImage], entries: list[dict[str, Any]], classes: tuple[CellClass, ...]
) -> None:
    """Check and write the results, their classes and id map beside them, and the zip; name empty images."""
    id_map = [image.entry for image in images]
    entries.sort(key=lambda entry: (entry["image_id"], -entry["score"]))
    check_results(entries, id_map, len(classes), config.output)
    write_results(config.output, entries)
    output = Path(config.output)
    beside = companion(output, "id-map")
    if config.id_map is None or Path(config.id_map).resolve() != beside.resolve():  # a part must not replace the whole
        write_id_map(beside, id_map)
    write_json(companion(output, "classes"), to_json(classes))
    if config.zip:
        write_submission_zip(config.zip, output)
    found = {entry["image_id"] for entry in entries}
    empty = [entry.file_name for entry in id_map if entry.id not in found]
    if empty:
        print(f"no detection in {len(empty)} images: {', '.join(empty)}")
    print(
        f"wrote {config.output}: {len(entries)} detections in {len(images)} images"
        + (f", and {config.zip}" if config.zip else "")
    )


if __name__ == "__main__":
    run(lambda: main(CONFIG))
