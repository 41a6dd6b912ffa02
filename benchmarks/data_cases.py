"""The benchmarks of data, results and scores, and of starting; each takes a scratch folder and a number of repeats."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import utils
from benchmarks import plain
from benchmarks.material import (
    LATTICE,
    open_cache,
    open_dataset,
    raw_detections,
    tile_detections,
    truth_and_predictions,
    write_record,
)
from benchmarks.measure import Row, interleaved, milliseconds, peak_megabytes
from dataset import TileDataset
from src.config.settings import AugmentSettings, DataSettings, ImageSettings, TileSettings
from src.data.classes import HOMEWORK_CLASSES
from src.data.open_images import OpenImages
from src.data.records import Record
from src.data.training_data import load_training_data
from src.engine.loading import EpochSampler, build_loader, collate
from src.evaluation.results import result_entries
from src.evaluation.rle import encode
from src.evaluation.scores import precision, score
from src.geometry.detections import from_network, to_instances
from src.geometry.stitch import stitch
from src.geometry.tiles import Tile, tile_grid

ROOT = Path(__file__).resolve().parents[1]
MIDDLE = Tile(256, 256, 512, 512)
TORCH = ("network", "engine")  # packages that import torch
COMMAND = "\nif __name__ == "  # what a module that is a command holds
LOADS = 8  # tiles in a measured call, so that all kinds of augmentation are among them


def load_ours(dataset: TileDataset, index: int, epochs: Iterator[int]) -> None:
    """One tile in several epochs."""
    for _ in range(LOADS):
        collate([dataset[(next(epochs), index)]])


def load_plain(record: Record, transform: Any, loads: int = LOADS) -> None:
    """The tile in the middle of the image, several times."""
    for _ in range(loads):
        plain.load_tile(record, MIDDLE, transform)


def tile(folder: Path, repeats: int) -> list[Row]:
    """One 512 tile, loaded, augmented and made a batch."""
    rows, records = [], {number: write_record(folder / f"tile{number}", 1024, 1024, number * 4) for number in (54, 228)}
    for jitter in (0, 0.3):
        calls: list[Callable[[], None]] = []
        visible = []
        for record in records.values():
            dataset = open_dataset(record, folder / "cache", AugmentSettings(jitter_prob=jitter))
            index = [place for _, place in dataset.tiles].index(MIDDLE)
            calls.append(partial(load_ours, dataset, index, count()))
            calls.append(partial(load_plain, record, plain.augmentation(jitter)))
            visible.append(len(dataset[(0, index)][1]["labels"]))
        seconds = [milliseconds(samples, LOADS) for samples in interleaved(repeats, *calls)]
        for number, mine, other, least in zip(visible, seconds[::2], seconds[1::2], (20, 60), strict=True):
            what = f"a 512 tile with {number} cells, loaded and augmented, colour jitter {jitter}"
            promise = (None, None) if jitter else (least, 8)
            rows.append(Row(what, "ms", mine, other, *promise))
    ratio = median(rows[1].ours) / median(rows[0].ours)
    rows.append(Row("its time with many cells over that with few, without jitter", "times", [ratio], at_most=1.3))
    theirs = partial(load_plain, records[228], plain.augmentation(0.3), loads=1)
    rows.append(Row("peak memory with many cells", "MB", [peak_megabytes(calls[2])], [peak_megabytes(theirs)], 15))
    return rows


def whole_image(folder: Path, repeats: int) -> list[Row]:
    """All tiles of a large image once, decoding included."""
    record = write_record(folder / "large", 1400, 1872, 1000)
    tiles, transform, caches = tile_grid(1400, 1872, 512, 256), plain.augmentation(0), count()
    facts = open_cache(folder / "facts").facts(record)  # which a training reads from the cache

    def ours() -> None:
        dataset = open_dataset(record, folder / f"large{next(caches)}", AugmentSettings(jitter_prob=0), facts=facts)
        for index in range(len(dataset)):
            collate([dataset[(0, index)]])

    def theirs() -> None:
        for place in tiles:
            plain.load_tile(record, place, transform)

    mine, other = map(milliseconds, interleaved(repeats, ours, theirs))
    return [Row(f"all {len(tiles)} tiles of a 1400 x 1872 image with 1,000 cells, decoding it", "ms", mine, other, 60)]


def loading(folder: Path, repeats: int) -> list[Row]:
    """Tiles per second that the loader gives with worker processes."""
    record = write_record(folder / "loading", 1400, 1872, 2300)
    rows = []
    for workers in (number for number in (0, 1, 2, 4, 8) if number <= utils.available_cores()):
        dataset = open_dataset(record, folder / "cache", AugmentSettings())
        sampler = EpochSampler(len(dataset), 0)
        loader = build_loader(dataset, sampler, 4, workers, cuda=False)

        def epoch(sampler: EpochSampler = sampler, loader: Iterable[Any] = loader) -> None:
            sampler.epoch += 1
            for _ in loader:
                pass

        (seconds,) = interleaved(repeats, epoch)
        speeds = [len(loader) * 4 / value for value in seconds]
        rows.append(Row(f"512 tiles with 228 cells, workers: {workers}", "tiles/s", speeds))
    return rows


def many_images(folder: Path, repeats: int, images: int = 1000) -> list[Row]:
    """The start of a training on many small images that are in the cache, and the files that it holds open."""
    originals = [write_record(folder / f"original{seed}", 96, 80, 6, seed) for seed in range(8)]
    for number in range(images):
        record, place = originals[number % len(originals)], folder / "many" / f"{number:06d}"
        place.mkdir(parents=True)
        for path in (record.image, *record.masks.values()):
            (place / path.name).hardlink_to(path)
    data = DataSettings(data_path=str(folder / "many"), cache_dir=str(folder / "cache"), cache_gb=1000)
    open_before = open_files()

    def start() -> TileDataset:
        found = load_training_data(data, ImageSettings(channel_order="rgb"), hidden=True)
        images = OpenImages(found.train, found.cache)
        return TileDataset(images, found.train_facts, TileSettings(64, 16), AugmentSettings(), False, seed=0)

    (seconds,) = interleaved(repeats, start)
    dataset = start()
    for index in range(len(dataset)):
        dataset[(0, index)]
    return [
        Row(f"{images:,} small images in the cache, before the first step", "ms", milliseconds(seconds)),
        Row("files that it holds open after all tiles", "", [open_files() - open_before], at_most=100),
    ]


def open_files() -> int:
    """The number of file descriptors that this process has open; on Linux and macOS."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def encode_ours(raw: tuple[np.ndarray, ...]) -> None:
    """The network's detections of a 1000² image as RLE."""
    encode(to_instances(from_network(*raw), Tile(0, 0, 1000, 1000)), 1000, 1000)


def results(folder: Path, repeats: int) -> list[Row]:
    """Raw masks of an image turned into RLE."""
    rows = []
    for number, least, limit in ((100, 50, 60), (1000, 100, 120)):
        raw = raw_detections(np.random.default_rng(0), number, 1000)

        ours, theirs = partial(encode_ours, raw), partial(plain.result_entries, raw, (1000, 1000))
        mine, other = map(milliseconds, interleaved(repeats, ours, theirs))
        rows.append(Row(f"{number:,} raw masks → RLE", "ms", mine, other, least, limit))
    rows.append(Row("its memory for 1,000", "MB", [peak_megabytes(ours)], at_most=20))
    return rows


def stitching(folder: Path, repeats: int) -> list[Row]:
    """The objects of one image from the detections of its tiles."""
    rows = []
    for number, limit in ((10_000, 1000), (100_000, None)):
        side = round(LATTICE * np.sqrt(number / 4))  # a cell in the middle of the image lies in four tiles
        tiles = tile_grid(side, side, size=512, overlap=256)
        detections = tile_detections(np.random.default_rng(0), side, tiles)
        total = sum(map(len, detections))
        (mine,) = interleaved(repeats, partial(stitch, tiles, detections, side, side))
        rows.append(Row(f"stitching {total:,} detections", "ms", milliseconds(mine), at_most=limit))
    return rows


def evaluation(folder: Path, repeats: int) -> list[Row]:
    """AP and PQ of a test set."""
    truths, predictions = truth_and_predictions(np.random.default_rng(0), images=20, per_image=324, false_share=1.4)
    entries = [
        entry
        for truth, found in zip(truths, predictions, strict=True)
        for entry in result_entries(truth.id, found, truth.height, truth.width)
    ]

    def by_plain() -> np.ndarray:
        with redirect_stdout(io.StringIO()):
            return plain.average_precision(truths, list(map(dict, entries)), [100, 10_000])

    def by_ours() -> np.ndarray:
        return precision(truths, entries, 4)

    mine, other = map(milliseconds, interleaved(repeats, by_ours, by_plain))
    (everything,) = interleaved(repeats, partial(score, truths, entries, HOMEWORK_CLASSES))
    off = float(np.abs(by_ours() - by_plain()).max())
    total = sum(len(truth.instances) for truth in truths)
    what = f"{total:,} cells, {len(entries):,} detections"
    return [
        Row(f"AP of {what}", "ms", mine, other, 10),
        Row("largest difference in precision", "", [off], at_most=1e-9),
        Row(f"everything that is scored of {what}: checks, AP, PQ", "ms", milliseconds(everything)),
    ]


def starting(folder: Path, repeats: int) -> list[Row]:
    """Help of every command, and import of every module that imports no torch, whose start alone takes seconds."""
    files = [path for place in ("src", "benchmarks") for path in sorted((ROOT / place).rglob("*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    scripts = [[name] for name in ("main.py", "inference.py", "dataset.py")]
    commands = scripts + [["-m", name] for path, name in names.items() if COMMAND in path.read_text()]
    without_torch = (name for name in names.values() if name.startswith("src.") and name.split(".")[1] not in TORCH)
    modules = [name for name in without_torch if not name.endswith("__init__")]
    groups = {
        "--help": [[*command, "--help"] for command in commands],
        "import of a module of src": [["-c", f"import {name}"] for name in modules],
    }
    rows = []
    for what, arguments in groups.items():
        slowest: list[float] = []
        for argument in arguments:
            (seconds,) = interleaved(repeats, partial(_run, argument))
            slowest = max(slowest, seconds, key=lambda samples: median(samples) if samples else 0)
        rows.append(Row(f"{what}, the slowest of {len(arguments)}", "ms", milliseconds(slowest), at_most=500))
    return rows


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
