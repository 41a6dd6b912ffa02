"""What a training run works on: which images, which classes, which colours, and what was decided on the way."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.cache import ImageCache, PreparedImage, default_folder
from src.classes import HOMEWORK_CLASSES, CellClass, load_classes
from src.errors import InputError
from src.records import Record, find_records, read_groups, read_split, select
from src.settings import DataSettings, ImageSettings, RunSettings
from src.split import group_by_stain, make_split
from src.stain import decide_channel_order, stain_features

Progress = Callable[[list[Record]], Iterable[Record]]  # wraps a list while it is worked through, as tqdm does
_IMAGES_FOR_COLOUR = 50


@dataclass(frozen=True)
class TrainingData:
    """The images of a run. ``split`` maps train and val to names; ``channel_order`` is rgb or bgr.

    ``class_counts`` (K,) and ``cell_size`` are of the train part; the latter is the median cell's sqrt(box area) in px
    after --scale.
    """

    classes: tuple[CellClass, ...]
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    cache: ImageCache
    split: dict[str, list[str]]
    channel_order: str
    class_counts: np.ndarray
    cell_size: float
    notes: tuple[str, ...]

    @property
    def swap_channels(self) -> bool:
        """Whether the files hold blue first."""
        return self.channel_order == "bgr"


def resolve_classes(settings: DataSettings) -> tuple[CellClass, ...]:
    """The classes of a run; --num-classes counts the background and must agree with --classes."""
    if settings.classes:
        classes = load_classes(settings.classes)
        if settings.num_classes not in (None, len(classes) + 1):
            raise InputError(
                f"--num-classes {settings.num_classes}: {settings.classes} and the background make {len(classes) + 1}"
            )
        return classes
    count = (settings.num_classes or len(HOMEWORK_CLASSES) + 1) - 1
    named = HOMEWORK_CLASSES[:count]
    return named + tuple(CellClass(i, f"class {i}", _color(i)) for i in range(len(named) + 1, count + 1))


def _color(index: int) -> str:
    """A further colour: hues a golden angle apart."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.75, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def load_training_data(data: DataSettings, image: ImageSettings, run: RunSettings, progress: Progress) -> TrainingData:
    """Find, decode and split the images."""
    classes = resolve_classes(data)
    records = find_records(Path(data.data_path), len(classes))
    folder = Path(run.cache_dir) if run.cache_dir else default_folder()
    cache = ImageCache(folder, run.cache_gb, image.intensity, image.scale)
    prepared = {record.name: cache.get(record) for record in progress(records)}
    order, notes = image.channel_order, []
    if order == "auto":
        order, note = _decide_order([prepared[record.name] for record in records])
        notes.append(note)
    counts = {name: image.class_counts(len(classes) + 1) for name, image in prepared.items()}
    split, note = _split(data, prepared, counts, run.seed)
    notes.append(note)
    train, val = (tuple(select(records, split, part)) for part in ("train", "val"))
    if not train:
        raise InputError("the train part of the split is empty")
    class_counts = np.sum([counts[record.name] for record in train], axis=0)
    cell_size = median_cell_size([prepared[record.name] for record in train])
    return TrainingData(classes, train, val, cache, split, order, class_counts, cell_size, tuple(notes))


def _decide_order(images: list[PreparedImage]) -> tuple[str, str]:
    step = -(-len(images) // _IMAGES_FOR_COLOUR)
    order, share = decide_channel_order([prepared.image for prepared in images[::step]])
    stored = {"rgb": "red first", "bgr": "blue first: they are swapped"}[order]
    return order, f"channel order: {order} ({stored}), decided by the stain colours ({share:.0%} of the images agree)"


def _split(
    data: DataSettings, prepared: dict[str, PreparedImage], counts: dict[str, np.ndarray], seed: int
) -> tuple[dict[str, list[str]], str]:
    if data.split:
        split = read_split(data.split)
        return {part: split.get(part, []) for part in ("train", "val")}, f"split: {data.split}"
    names = list(prepared)
    if data.val_fraction == 0:
        return {"train": names, "val": []}, "split: none, all images train"
    if data.groups:
        groups: dict[str, str] | dict[str, int] = read_groups(data.groups)
        missing = [name for name in names if name not in groups]
        if missing:
            raise InputError(f"{data.groups}: has no group for {missing[0]}")
    else:
        features = np.array([stain_features(prepared[name].image) for name in names])
        groups = dict(zip(names, group_by_stain(features), strict=True))
    return make_split(names, counts, groups, data.val_fraction, seed)


def median_cell_size(images: Iterable[PreparedImage]) -> float:
    """The median of the objects' sqrt(box area), px after --scale."""
    sizes = [size for prepared in images for size in _box_sizes(prepared)]
    if not sizes:
        raise InputError("the train part of the split holds no cells")
    return float(np.median(sizes))


def _box_sizes(prepared: PreparedImage) -> Iterator[float]:
    from scipy.ndimage import find_objects  # slow to import

    for layer in range(prepared.label_map.shape[-1]):
        for rows, columns in filter(None, find_objects(prepared.label_map[..., layer])):
            yield ((rows.stop - rows.start) * (columns.stop - columns.start)) ** 0.5
