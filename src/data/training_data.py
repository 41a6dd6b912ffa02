"""The data of a training run: images, classes, channel order and split, and the notes on how they were chosen."""

import itertools
import os
from collections.abc import Iterator
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
from src.data.folders import image_folders
from src.data.image_facts import ImageFacts, concatenate_facts
from src.data.intensity import small_range_warnings
from src.data.names import ImageNames
from src.data.orientation import turned_warnings
from src.data.prepared import pieces_warnings
from src.data.records import Record, files_of, read_record, unread_warnings
from src.data.splits import group_by_stain, make_split, read_groups, read_split, select
from src.data.stain import RED_FIRST, decide_channel_order, swapped_images

_MAX_READERS = 4  # threads; each holds an image and its masks, decoded
_MOST_PARTS = 1000  # facts about single images, which are joined to take less memory


@dataclass(frozen=True)
class TrainingData:
    """The images of a run. ``split`` maps train and val to names; ``channel_order`` is rgb or bgr.

    ``train_facts`` are in the order of ``train``; ``class_counts`` (K,) and ``statistics`` are of them, too, and
    ``val_cells`` is the number of cells in ``val``.
    ``checksums`` maps the names of train and val to checksums of the image and its masks.
    """

    classes: tuple[CellClass, ...]
    train: tuple[Record, ...]
    train_facts: ImageFacts
    val: tuple[Record, ...]
    cache: ImageCache
    split: dict[str, list[str]]
    channel_order: str
    class_counts: np.ndarray
    statistics: DataStatistics
    val_cells: int
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
    cache = ImageCache(folder, data.cache_gb, image.intensity, image.scale, image.split_pieces)
    records, facts = _read_images(Path(data.data_path), len(classes), cache, hidden)
    notes = [f"images: {cache.decoded} decoded, {len(records) - cache.decoded} known from the cache {cache.folder}"]
    notes += [*unread_warnings(record.files for record in records), *turned_warnings(records)]
    notes += pieces_warnings(int(facts.in_pieces.sum()), int(facts.class_counts.sum()))
    order, lines = _channel_order(image.channel_order, records, facts)
    notes += lines
    notes += small_range_warnings(facts.levels)
    split, note = _split(data, [record.name for record in records], facts, len(classes))
    notes.append(note)
    train, val = (tuple(select(records, split, part)) for part in ("train", "val"))
    if not train:
        raise InputError("the train part of the split is empty")
    rows = {record.name: row for row, record in enumerate(records)}
    train_facts = facts.take([rows[record.name] for record in train])
    if not len(train_facts.boxes):
        raise InputError("the train part of the split holds no cells")
    return TrainingData(
        classes=classes,
        train=train,
        train_facts=train_facts,
        val=val,
        cache=cache,
        split={part: [record.name for record in found] for part, found in (("train", train), ("val", val))},
        channel_order=order,
        class_counts=train_facts.counts_of(len(classes)).sum(axis=0),
        statistics=data_statistics(train_facts.cell_size(), train_facts.contrasts, train_facts.stains, order == "bgr"),
        val_cells=int(facts.class_counts[[rows[record.name] for record in val]].sum()),
        checksums={record.name: str(facts.checksums[rows[record.name]]) for record in (*train, *val)},
        notes=tuple(notes),
    )


def _read_images(data_path: Path, class_count: int, cache: ImageCache, hidden: bool) -> tuple[list[Record], ImageFacts]:
    """The records of a data folder and the facts about them, in the same order; images that are new are decoded.

    The headers of all new images are checked before the first of them is decoded. Images that the cache knows are not
    opened at all.
    """
    known = cache.load_facts(data_path)
    records, rows = _find_images(data_path, class_count, cache, known, hidden)
    new = [record for record, row in zip(records, rows, strict=True) if row is None]
    behind = itertools.count(len(known))  # the facts about new images follow those that were known
    order = [next(behind) if row is None else row for row in rows]
    if not new:
        return records, known.take(order)
    parts = [known]
    try:
        for facts in _read_facts(new, cache, hidden):
            parts.append(facts)
            if len(parts) == _MOST_PARTS:
                parts = [concatenate_facts(parts)]
    finally:  # what was read until a bad file, or Ctrl-C, stays known
        found = concatenate_facts(parts)
        found = found.take([row for row in order if row < len(found)])
        cache.save_facts(data_path, found)
    return records, found


def _find_images(
    data_path: Path, class_count: int, cache: ImageCache, known: ImageFacts, hidden: bool
) -> tuple[list[Record], list[int | None]]:
    """The records of a data folder, and for each the row of ``known`` that is about it; ``None`` for a new image."""
    row_of = {entry: row for row, entry in enumerate(known.entries.tolist())}
    sizes, is_turned = known.sizes.tolist(), known.is_turned.tolist()
    records, rows = [], []
    for name, folder in ProgressBar(image_folders(data_path).items(), "find images", hidden=hidden):
        files = files_of(folder, class_count, name=name)
        entry = cache.entry(files)
        row = row_of.get(entry.name)
        if row is None:
            record = read_record(folder, class_count, name=name)
        else:
            height, width = sizes[row]
            record = Record(files, height, width, is_turned[row])
            check_pixels(record.image, record.height, record.width)
            cache.mark_used(entry)
        records.append(record)
        rows.append(row)
    return records, rows


def _read_facts(new: list[Record], cache: ImageCache, hidden: bool) -> Iterator[ImageFacts]:
    """The facts about each of some images that the cache does not know."""
    with ThreadPoolExecutor(min(_MAX_READERS, os.cpu_count() or 1)) as pool:
        found = pool.map(cache.facts, new)
        try:
            for _, facts in zip(ProgressBar(new, "read images", hidden=hidden), found, strict=True):
                yield facts
        finally:
            pool.shutdown(cancel_futures=True)  # a bad file, or Ctrl-C, ends the reading at once


def _channel_order(given: str, records: list[Record], facts: ImageFacts) -> tuple[str, list[str]]:
    """The channel order of the files, given or decided by those that are TIFF, and lines about it.

    Raises:
        InputError: TIFF files hold blue first, and others, which never do, are among them.
    """
    others = [record.image for record in records if not record.is_tiff]
    contrasts = facts.contrasts[[record.is_tiff for record in records]]
    contrasts = contrasts[~np.isnan(contrasts)]
    order, lines = given, list[str]()
    if given == "auto":
        order, share = decide_channel_order(contrasts)
        stored = {"rgb": "red first", "bgr": "blue first: they are swapped"}[order]
        decided = f"decided by the stain colours ({share:.0%} of the images agree)"
        lines.append(RED_FIRST if len(others) == len(records) else f"channel order: {order} ({stored}), {decided}")
    if order == "bgr" and others:
        raise InputError(
            f"{others[0]}: holds red first, as all files but TIFF do, while --channel-order is bgr"
            f" ({'decided by the TIFF files' if given == 'auto' else 'given'}); they cannot be trained on together"
        )
    return order, [*lines, *swapped_images(contrasts, order)]


def _split(
    data: DataSettings, names: list[str], facts: ImageFacts, class_count: int
) -> tuple[dict[str, list[str]], str]:
    if data.split:
        split = read_split(data.split)
        return {part: split.get(part, []) for part in ("train", "val")}, f"split: {data.split}"
    if data.val_fraction == 0:
        return {"train": names, "val": []}, "split: none, all images train"
    if data.groups:
        of_names = read_groups(data.groups)
        places = ImageNames(of_names).find_all(names, data.groups, "has no group for")
        listed = list(of_names.values())
        groups: dict[str, str] | dict[str, int] = {
            name: listed[place] for name, place in zip(names, places, strict=True)
        }
    else:
        groups = dict(zip(names, group_by_stain(facts.stains), strict=True))
    counts = dict(zip(names, facts.counts_of(class_count), strict=True))
    return make_split(names, counts, groups, data.val_fraction, data.seed)
