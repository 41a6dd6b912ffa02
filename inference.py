"""Predict test images tile by tile, stitch, and write COCO RLE results for a submission.

one process:   python inference.py --ckpt logs/best.pt --test-dir images --output results.json --zip submission.zip
several GPUs:  torchrun --standalone --nproc-per-node 4 inference.py [the same flags]
resume:        python inference.py [the same flags] --resume
slides:        python inference.py --ckpt logs/best.pt --test-dir slides --output out
share weights: python inference.py --ckpt logs/best.pt --export weights.safetensors

Prediction settings that are not given are those of the checkpoint. The id map, the classes, the least score and
a table of counts are written beside the results.
"""

import os

from src.common.errors import run_command
from src.config.checks import check_prediction
from src.config.command import parse
from src.config.flags import flags_of, flatten, override
from src.config.settings import InferenceConfig

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = run_command(lambda: parse(InferenceConfig, __doc__, check_prediction, recipe=True))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave a shared core to others

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from model import TiledMaskRCNN, build_model, build_skeleton
from src.common.errors import InputError, counted, run_command
from src.common.files import companion, file_digest, write_json
from src.common.limits import set_max_pixels
from src.common.progress import ProgressBar
from src.config.checks import check_no_slides, check_overlap, check_slides
from src.config.settings import HOMEWORK_ID_MAP, HOMEWORK_TEST, LEAST_SCALE, MOST_SCALE, PredictSettings
from src.data.classes import CellClass, to_json
from src.data.data_shift import DataStatistics, PredictionStatistics, shift_warnings
from src.data.id_map import write_id_map
from src.data.images_to_predict import TestImage, find_test_images, unread_test_files
from src.data.intensity import small_range_warnings
from src.data.orientation import turned_warnings
from src.data.pictures import is_wide
from src.data.splits import part_names, read_split
from src.engine import distributed
from src.engine.checkpoint import Checkpoint, read_checkpoint, write_export
from src.engine.devices import AMP_TYPES, prediction_amp
from src.engine.memory import memory_errors
from src.engine.prediction import Predictor, predict_images, warnings_on_limits
from src.engine.slide_options import SlideOptions, check_start
from src.engine.slide_run import check_unfinished, predict_slides
from src.evaluation.partial_results import PartialResults
from src.evaluation.probabilities import DIGITS, write_probabilities
from src.evaluation.result_settings import write_settings
from src.evaluation.results import cells_by_image, check_results, result_entries, write_results, write_submission_zip
from src.geometry.instances import confident
from src.network.tensor_files import check_fits, load_state
from src.reporting.counts import write_counts
from src.reporting.draw import write_overlay
from src.slides.finding import find_slides, shard_of
from utils import share_cores, to_device

SLIDES_TIMEOUT = 60.0 * 24 * 30  # minutes, in place of --timeout-minutes: slides of one process may take days longer
Entries = dict[int, list[dict[str, Any]]]  # result entries by image id
Counts = dict[int, Counter[int]]  # the number of cells by class id, by image id


@dataclass(frozen=True)
class Found:
    """What a process has found: result entries and numbers of cells, and statistics of what it has predicted."""

    entries: Entries
    counts: Counts
    statistics: PredictionStatistics = field(default_factory=PredictionStatistics)


@memory_errors(
    "lower --predict-batch-size, leave out --whole-image, choose another GPU with --device cuda:N or take --device cpu"
)
def main(config: InferenceConfig) -> None:
    """Predict every image and write the results, or export a checkpoint."""
    check_prediction(config)  # as the command line has, for other callers
    set_max_pixels(config.machine.max_pixels)
    if config.export:
        export(config, Path(config.export))
        return
    slides = find_slides(Path(config.test_dir), config.slide_pixels or config.machine.max_pixels)
    machine = replace(config.machine, timeout_minutes=SLIDES_TIMEOUT) if slides else config.machine
    world, device = distributed.start(machine)
    share_cores(device, world.size)
    if slides:
        run_slides(config, world, device, slides)
        return
    check_no_slides(config)
    images = find_images(config)
    predictor, checkpoint = load_predictor(config, device)
    if world.is_main:
        print_start(config, images, predictor, checkpoint.classes)

    partial = PartialResults(config.output, job(config, predictor.amp), world.rank)
    entries = resumed(config, partial, images, world)
    found = Found(entries, counts_of(entries, images, predictor.settings.min_score))
    waiting = [image for image in images if image.entry.id not in entries]
    bar = ProgressBar(waiting[world.rank :: world.size], "predict", hidden=not world.is_main)
    predict(config, predictor, checkpoint.classes, bar, found, partial)

    warnings = find_warnings(world, predictor, checkpoint.statistics, found.statistics)
    of_all = gathered(world, found)
    if world.is_main:
        print_lines(warnings)
        write(config, images, of_all, checkpoint.classes, predictor.settings.min_score)
        partial.remove()
    distributed.stop(world)


def run_slides(config: InferenceConfig, world: distributed.World, device: torch.device, slides: Sequence[Path]) -> None:
    """Predict slides, each by one process; exit code 1 where any failed."""
    check_slides(config)
    mine = shard_of(slides, config.shard)
    predictor, checkpoint = load_predictor(config, device)
    if world.is_main:
        print(f"predicting {counted(len(mine), 'slide')} on {device} in {name_of(predictor.amp)}")
    options = SlideOptions(
        Path(config.output), config.tissue, config.mpp, config.scale, checkpoint.config.image,
        [*job(config, predictor.amp), predictor.settings.min_score], Path(config.test_dir), checkpoint.statistics,
    )  # fmt: skip
    check_start(mine, options)
    check_unfinished(mine, options)
    world.wait()  # until all processes have checked
    image = replace(predictor.image, channel_order=config.channel_order or "rgb")  # whatever training files had
    predictor = replace(predictor, image=image)
    failed = predict_slides(predictor, checkpoint.classes, mine[world.rank :: world.size], options)
    failures = [line for of_process in world.gather(failed) for line in of_process.values()]
    if world.is_main and failures:
        print_lines([f"{len(failures)} of {counted(len(mine), 'slide')} failed:", *failures])
    distributed.stop(world)
    if failures:
        raise SystemExit(1)


def name_of(amp: torch.dtype | None) -> str:
    """The precision, like ``bfloat16``."""
    return str(amp or torch.float32).removeprefix("torch.")


def print_start(
    config: InferenceConfig, images: Sequence[TestImage], predictor: Predictor, classes: Sequence[CellClass]
) -> None:
    """Print how and what is predicted, and what of the folder is not."""
    print(f"predicting on {predictor.device} in {name_of(predictor.amp)}")
    print_lines([*unread_test_files(config.test_dir), *turned_warnings(images)])
    print(f"classes: {', '.join(f'{cell_class.id} {cell_class.name}' for cell_class in classes)}")


def print_lines(lines: Sequence[str]) -> None:
    """Print each line, and nothing where there is none."""
    print("".join(f"{line}\n" for line in lines), end="")


def predict(
    config: InferenceConfig,
    predictor: Predictor,
    classes: Sequence[CellClass],
    images: Iterable[TestImage],
    found: Found,
    partial: PartialResults,
) -> None:
    """Predict images, draw them, and keep what is found in ``found`` and, to be resumed from, in ``partial``."""
    for image, pixels, instances in predict_images(predictor, images):
        entries = result_entries(image.entry.id, instances, image.entry.height, image.entry.width)
        for entry, instance in zip(entries, instances, strict=True):
            entry["probabilities"] = [round(value, DIGITS) for value in instance.probabilities]
        cells = confident(instances, predictor.settings.min_score, *pixels.shape[:2])
        found.statistics.add(pixels, cells, is_wide(image.image))
        if config.overlay:
            write_overlay(Path(config.overlay) / f"{image.entry.name}.png", pixels, cells, classes)
        partial.add(image, entries)
        found.counts[image.entry.id] = Counter(cell.class_id for cell in cells)
        found.entries[image.entry.id] = entries


def gathered(world: distributed.World, found: Found) -> Found:
    """What all processes have found, but for the statistics."""
    shares = world.gather((found.entries, found.counts))
    entries = {image_id: of_image for share, _ in shares for image_id, of_image in share.items()}
    counts = {image_id: of_image for _, share in shares for image_id, of_image in share.items()}
    return Found(entries, counts)


def counts_of(entries: Entries, images: Sequence[TestImage], min_score: float) -> Counts:
    """The cells of each class in the images of an interrupted prediction, from its results."""
    counts: Counts = {}
    for entry in (image.entry for image in images if image.entry.id in entries):
        found = cells_by_image(entries[entry.id])[entry.id]
        counts[entry.id] = Counter(cell.class_id for cell in confident(found, min_score, entry.height, entry.width))
    return counts


def find_warnings(
    world: distributed.World, predictor: Predictor, statistics: DataStatistics | None, prediction: PredictionStatistics
) -> list[str]:
    """What is odd about the prediction of all processes: images unlike the training's, tiles that a limit cut off."""
    reached: Counter[str] = sum(world.gather(predictor.limits_reached()), Counter())
    predictions = world.gather(prediction)
    small_ranges = small_range_warnings([value for part in predictions for value in part.levels])
    differences = shift_warnings(statistics, predictions, predictor.image.scale) if statistics else []
    return [*small_ranges, *differences, *warnings_on_limits(reached).values()]


def load_predictor(config: InferenceConfig, device: torch.device) -> tuple[Predictor, Checkpoint]:
    """The predictor of one checkpoint or several, and the first of them without its weights.

    Flags win over the first checkpoint's settings.
    """
    checkpoints = [read_checkpoint(Path(path)) for path in config.ckpt]
    first = checkpoints[0]
    for other in checkpoints[1:]:
        check_alike(first, other)
    trained = first.config
    settings = override(trained.predict, config.predict)
    check_overlap("--predict-overlap", settings.predict_overlap, trained.tiles.tile_size)
    models = [to_device(restore_model(checkpoint, settings), device) for checkpoint in checkpoints]
    amp = AMP_TYPES[prediction_amp(config.amp, trained.optimizer.amp, device)]
    image = replace(
        trained.image,
        channel_order=config.channel_order or trained.image.channel_order,
        intensity=config.intensity or trained.image.intensity,
        scale=scale_of(config, first),
    )
    predictor = Predictor(models, device, amp, image, trained.tiles.tile_size, settings)
    return predictor, replace(first, weights={}, snapshot=None)


def scale_of(config: InferenceConfig, checkpoint: Checkpoint) -> float:
    """The factor by which images are resized, so that cells are as large as in training.

    Raises:
        InputError: ``--mpp`` where the training did not have it, or where it asks for a factor out of bounds.
    """
    trained = checkpoint.config.image
    if config.mpp is None:
        return trained.scale if config.scale is None else config.scale
    if trained.mpp is None:
        raise InputError(f"--mpp: {checkpoint.source} does not say the resolution of its training; pass --scale")
    scale = trained.scale * config.mpp / trained.mpp
    if not LEAST_SCALE <= scale <= MOST_SCALE:
        raise InputError(
            f"--mpp {config.mpp:g}: in training it was {trained.mpp:g}, so images would be resized by {scale:.3g}, "
            f"which is not within {LEAST_SCALE:g} and {MOST_SCALE:g}"
        )
    return scale


def check_alike(first: Checkpoint, other: Checkpoint) -> None:
    """Refuse to merge checkpoints that see different tiles or classes."""
    settings, others = flatten(first.config), flatten(other.config)
    differing = [
        key for key in ("scale", "mpp", "tile_size", "intensity", "channel_order") if settings[key] != others[key]
    ]
    if [c.name for c in first.classes] != [c.name for c in other.classes]:
        differing.append("classes")
    if differing:
        raise InputError(
            f"--ckpt {other.source}: cannot be merged with {first.source}: their {', '.join(differing)} differ"
        )


def restore_model(checkpoint: Checkpoint, predict: PredictSettings) -> TiledMaskRCNN:
    """The network of a checkpoint in evaluation mode, with averaged weights where there are any."""
    settings, class_count = checkpoint.config.model, len(checkpoint.classes)
    # Before memory is allocated, because the settings may come from anybody's file.
    check_fits(build_skeleton(settings, class_count), checkpoint.weights, checkpoint.source)
    model = build_model(settings, class_count, predict)
    load_state(model, checkpoint.weights, checkpoint.source)
    return model.eval()


def find_images(config: InferenceConfig) -> list[TestImage]:
    """The images to predict; without an id map they are numbered."""
    names = part_names(read_split(config.split), config.part) if config.split else None
    homework = Path(config.test_dir) == Path(HOMEWORK_TEST)
    id_map = config.id_map or (HOMEWORK_ID_MAP if homework else None)
    return find_test_images(config.test_dir, id_map, names)


def export(config: InferenceConfig, path: Path) -> None:
    """Write one checkpoint's weights as a safetensors file, which is safe to share.

    Prediction settings that are given, like ``--min-score``, become those of the file.
    """
    checkpoint = read_checkpoint(Path(config.ckpt[0]))
    settings = replace(checkpoint.config, predict=override(checkpoint.config.predict, config.predict))
    write_export(path, replace(checkpoint, config=settings), config.half)
    print(f"wrote {path}")


def job(config: InferenceConfig, amp: torch.dtype | None) -> list[Any]:
    """Everything that a result depends on: checkpoints, precision, and the settings that act on predictions."""
    settings = flatten(config)
    acting = [flag.key for flag in flags_of(InferenceConfig) if flag.acts_on in ("learning", "prediction")]
    values = [settings[key] for key in sorted(acting) if key != "amp"]  # a precision of auto depends on the device
    return [[file_digest(Path(path)) for path in config.ckpt], str(amp), values]


def resumed(
    config: InferenceConfig, partial: PartialResults, images: Sequence[TestImage], world: distributed.World
) -> Entries:
    """The results of an interrupted prediction with ``--resume``; without it they are deleted."""
    found = world.gather(partial.read(images) if config.resume else {})  # waits until all processes have read
    done = {image_id: entries for part in found for image_id, entries in part.items()}
    if world.is_main:
        if config.resume:
            print(f"resumed: {len(done)} of {len(images)} images are done")
        else:
            partial.remove()
    world.wait()
    return done


def write(
    config: InferenceConfig,
    images: Sequence[TestImage],
    found: Found,
    classes: tuple[CellClass, ...],
    min_score: float,
) -> None:
    """Check and write the results, what lies beside them, and the zip; list images without cells."""
    id_map = [image.entry for image in images]
    entries = [entry for of_image in found.entries.values() for entry in of_image]
    entries.sort(key=lambda entry: (entry["image_id"], -entry["score"]))
    check_results(entries, id_map, len(classes), config.output)
    output = Path(config.output)
    rows = [entry["probabilities"] if config.probabilities else entry.pop("probabilities") for entry in entries]
    write_results(output, entries)
    write_probabilities(output, rows)
    beside = companion(output, "id-map")
    # The id map of a part must not replace that of the whole.
    if config.id_map is None or Path(config.id_map).resolve() != beside.resolve():
        write_id_map(beside, id_map)
    write_json(companion(output, "classes"), to_json(classes))
    write_settings(output, min_score)
    table = companion(output, "counts", ".csv")
    write_counts(table, [(entry.file_name, entry.id) for entry in id_map], found.counts, classes)
    if config.zip:
        write_submission_zip(config.zip, output)
    empty = [entry.file_name for entry in id_map if not found.entries[entry.id]]
    if empty:
        print(f"no detections in {len(empty)} images: {', '.join(empty)}")
    print(
        f"wrote {config.output}: {len(entries)} detections in {len(images)} images; {table}: "
        f"{sum(counted.total() for counted in found.counts.values())} cells" + (f"; {config.zip}" if config.zip else "")
    )


if __name__ == "__main__":
    run_command(lambda: main(CONFIG))
