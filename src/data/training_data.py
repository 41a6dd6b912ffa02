"""The data of a training run: images, classes, channel order and split, and the notes on how they were chosen."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.common.progress import ProgressBar
from src.config.settings import DataSettings, ImageSettings
from src.data.cache import ImageCache, default_folder
from src.data.classes import HOMEWORK_CLASSES, CellClass, file_of_classes, load_classes, name_classes
from src.data.data_shift import DataStatistics, data_statistics
from src.data.image_facts import ImageFacts
from src.data.records import Record, files_of, image_folders, read_record
from src.data.splits import group_by_stain, make_split, read_groups, read_split, select
from src.data.stain import decide_channel_order

_MAX_READERS = 4  # threads; each holds an image and its masks, decoded


@dataclass(frozen=True)
class TrainingData:
    """The images of a run. ``split`` maps train and val to names; ``channel_order`` is rgb or bgr.

    ``class_counts`` (K,) and ``statistics`` are of the train part. ``checksums`` maps the names of train and val to
    checksums of the image and its masks.
    """

    classes: tuple[CellClass, ...]
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    cache: ImageCache
    split: dict[str, list[str]]
    channel_order: str
    class_counts: np.ndarray
    statistics: DataStatistics
    checksums: dict[str, str]
    notes: tuple[str, ...]

    @property
    def cell_size(self) -> float:
        """The median cell's sqrt(box area) in px after --scale."""
        return self.statistics.cell_size

    @property
    def swap_channels(self) -> bool:
        """Whether the files hold blue first."""
        return self.channel_order == "bgr"


@dataclass(frozen=True, eq=False)
class _ImageSummary:
    """What is kept of the facts about an image until the data are split: memory grows with the number of images."""

    class_counts: np.ndarray
    box_areas: np.ndarray
    contrast: float | None
    stain: np.ndarray
    checksum: str


def resolve_classes(settings: DataSettings) -> tuple[CellClass, ...]:
    """The classes of a run; --num-classes counts the background and must agree with a file of classes."""
    path = file_of_classes(settings.classes, Path(settings.data_path) / "classes.json")
    if path:
        classes = load_classes(path)
        if settings.class_count not in (None, len(classes)):
            raise InputError(f"--num-classes {settings.num_classes}: {path} and the background make {len(classes) + 1}")
        return classes
    count = settings.class_count or len(HOMEWORK_CLASSES)
    names = [cell_class.name for cell_class in HOMEWORK_CLASSES[:count]]
    return name_classes([*names, *(f"class {number}" for number in range(len(names) + 1, count + 1))])


def load_training_data(data: DataSettings, image: ImageSettings, hidden: bool = False) -> TrainingData:
    """Find, decode and split the images; with ``hidden`` no progress is shown."""
    classes = resolve_classes(data)
    folder = Path(data.cache_dir) if data.cache_dir else default_folder()
    cache = ImageCache(folder, data.cache_gb, image.intensity, image.scale)
    records, facts = _read_images(Path(data.data_path), len(classes), cache, hidden)
    found = len(records) - cache.decoded
    notes = [f"images: {cache.decoded} decoded, {found} found in the cache {cache.folder}"]
    order = image.channel_order
    if order == "auto":
        order, note = _decide_order(list(facts.values()))
        notes.append(note)
    split, note = _split(data, facts)
    notes.append(note)
    train, val = (tuple(select(records, split, part)) for part in ("train", "val"))
    if not train:
        raise InputError("the train part of the split is empty")
    class_counts = np.sum([facts[record.name].class_counts for record in train], axis=0)
    box_areas = np.concatenate([facts[record.name].box_areas for record in train])
    if not len(box_areas):
        raise InputError("the train part of the split holds no cells")
    chosen = [facts[record.name] for record in train]
    contrasts, stains = [one.contrast for one in chosen], [one.stain for one in chosen]
    statistics = data_statistics(float(np.median(np.sqrt(box_areas))), contrasts, stains, order == "bgr")
    checksums = {record.name: facts[record.name].checksum for record in (*train, *val)}
    return TrainingData(classes, train, val, cache, split, order, class_counts, statistics, checksums, tuple(notes))


def _read_images(
    data_path: Path, class_count: int, cache: ImageCache, hidden: bool
) -> tuple[list[Record], dict[str, _ImageSummary]]:
    """The records of a data folder and a summary of each image by name; images that are new are decoded.

    The headers of all new images are checked before the first of them is decoded. Images that are in the cache are not
    opened at all.
    """
    records, facts, new = [], {}, []
    for folder in ProgressBar(image_folders(data_path), "find images", hidden=hidden):
        image, masks = files_of(folder, class_count)
        known = cache.known_facts(image, masks)
        if known is None:
            record = read_record(folder, class_count)
            new.append(record)
        else:
            check_pixels(image, *known.size)
            record = Record(folder.name, image, masks, *known.size)
            facts[record.name] = _summary(known, class_count)
        records.append(record)
    with ThreadPoolExecutor(min(_MAX_READERS, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda record: _summary(cache.facts(record), class_count), new)
        try:
            for record, summary in zip(ProgressBar(new, "read images", hidden=hidden), found, strict=True):
                facts[record.name] = summary
        finally:
            pool.shutdown(cancel_futures=True)  # a bad file, or Ctrl-C, ends the reading at once
    return records, {record.name: facts[record.name] for record in records}


def _summary(facts: ImageFacts, class_count: int) -> _ImageSummary:
    areas = facts.box_areas().astype(np.int32)
    return _ImageSummary(facts.class_counts(class_count), areas, facts.contrast, facts.stain, facts.checksum)


def _decide_order(facts: list[_ImageSummary]) -> tuple[str, str]:
    order, share = decide_channel_order(image.contrast for image in facts)
    stored = {"rgb": "red first", "bgr": "blue first: they are swapped"}[order]
    return order, f"channel order: {order} ({stored}), decided by the stain colours ({share:.0%} of the images agree)"


def _split(data: DataSettings, facts: dict[str, _ImageSummary]) -> tuple[dict[str, list[str]], str]:
    if data.split:
        split = read_split(data.split)
        return {part: split.get(part, []) for part in ("train", "val")}, f"split: {data.split}"
    names = list(facts)
    if data.val_fraction == 0:
        return {"train": names, "val": []}, "split: none, all images train"
    if data.groups:
        groups: dict[str, str] | dict[str, int] = read_groups(data.groups)
        missing = [name for name in names if name not in groups]
        if missing:
            raise InputError(f"{data.groups}: has no group for {missing[0]}")
    else:
        groups = dict(zip(names, group_by_stain(np.array([facts[name].stain for name in names])), strict=True))
    counts = {name: facts[name].class_counts for name in names}
    return make_split(names, counts, groups, data.val_fraction, data.seed)
