"""The data of a training run: images, classes, channel order and split, and the notes on how they were chosen."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.progress import ProgressBar
from src.config.settings import DataSettings, ImageSettings
from src.data.cache import ImageCache, default_folder, folder_bytes
from src.data.classes import HOMEWORK_CLASSES, CellClass, file_of_classes, load_classes, name_classes
from src.data.records import Record, find_records
from src.data.splits import group_by_stain, make_split, read_groups, read_split, select
from src.data.stain import decide_channel_order, red_contrast, stain_features

_MAX_READERS = 4  # threads; each holds an image and its masks, decoded


@dataclass(frozen=True)
class TrainingData:
    """The images of a run. ``split`` maps train and val to names; ``channel_order`` is rgb or bgr.

    ``class_counts`` (K,) and ``cell_size`` are of the train part; the latter is the median cell's sqrt(box area) in px
    after --scale. ``checksums`` maps the names of train and val to checksums of the image and its masks.
    """

    classes: tuple[CellClass, ...]
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    cache: ImageCache
    split: dict[str, list[str]]
    channel_order: str
    class_counts: np.ndarray
    cell_size: float
    checksums: dict[str, str]
    notes: tuple[str, ...]

    @property
    def swap_channels(self) -> bool:
        """Whether the files hold blue first."""
        return self.channel_order == "bgr"


@dataclass(frozen=True)
class ImageFacts:
    """What a run needs to know of an image before it starts, so that no image has to stay in memory.

    ``class_counts`` (K,); ``cell_sizes`` (N,), the sqrt(box area) of the objects in px after --scale; ``contrast`` and
    ``stain`` as :func:`red_contrast` and :func:`stain_features` give them; ``checksum`` of all its files.
    """

    class_counts: np.ndarray
    cell_sizes: np.ndarray
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
    records = find_records(Path(data.data_path), len(classes))
    folder = Path(data.cache_dir) if data.cache_dir else default_folder()
    cache = ImageCache(folder, data.cache_gb, image.intensity, image.scale)
    facts = _read_facts(records, cache, len(classes), hidden)
    found, size = len(records) - cache.decoded, folder_bytes(cache.folder) / 1e9
    notes = [f"images: {cache.decoded} decoded, {found} found in the cache {cache.folder}, which holds {size:.2f} GB"]
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
    cell_sizes = np.concatenate([facts[record.name].cell_sizes for record in train])
    if not len(cell_sizes):
        raise InputError("the train part of the split holds no cells")
    cell_size = float(np.median(cell_sizes))
    checksums = {record.name: facts[record.name].checksum for record in (*train, *val)}
    return TrainingData(classes, train, val, cache, split, order, class_counts, cell_size, checksums, tuple(notes))


def _read_facts(records: list[Record], cache: ImageCache, class_count: int, hidden: bool) -> dict[str, ImageFacts]:
    """Decode all images into the cache, several at a time, and look at each once."""

    def look(record: Record) -> ImageFacts:
        prepared = cache.get(record)
        boxes = prepared.boxes[prepared.areas > 0]
        return ImageFacts(
            class_counts=prepared.class_counts(class_count),
            cell_sizes=np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)),
            contrast=red_contrast(prepared.image),
            stain=stain_features(prepared.image),
            checksum="".join(f"{value:08x}" for value in prepared.checksums),
        )

    with ThreadPoolExecutor(min(_MAX_READERS, os.cpu_count() or 1)) as pool:
        found, bar = pool.map(look, records), ProgressBar(records, "read images", hidden=hidden)
        try:
            return {record.name: facts for record, facts in zip(bar, found, strict=True)}
        finally:
            pool.shutdown(cancel_futures=True)  # a bad file, or Ctrl-C, ends the reading at once


def _decide_order(facts: list[ImageFacts]) -> tuple[str, str]:
    order, share = decide_channel_order(image.contrast for image in facts)
    stored = {"rgb": "red first", "bgr": "blue first: they are swapped"}[order]
    return order, f"channel order: {order} ({stored}), decided by the stain colours ({share:.0%} of the images agree)"


def _split(data: DataSettings, facts: dict[str, ImageFacts]) -> tuple[dict[str, list[str]], str]:
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
