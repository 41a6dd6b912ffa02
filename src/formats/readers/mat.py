"""MATLAB files with a map of instances and, mostly, their types, as HoVer-Net, Lizard, Kumar and CPM have them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from src.common.errors import InputError, some
from src.common.files import read_json
from src.common.progress import ProgressBar
from src.common.values import integer, plain
from src.data.classes import CellClass, name_classes, parse_classes, to_json
from src.data.masks import CellPixels
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    drop,
    files_in,
    read_matching,
    say_unread,
    with_readers,
)
from src.formats.places import PICTURES, key_of, keyed, pair
from src.formats.readers.labels import is_label
from src.formats.readers.matlab import Nuclei, load_variables, nuclei_of, variables_in
from src.geometry.instances import Instance

LIZARD_CLASSES = name_classes(
    ["neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective tissue"]
)  # in the order of their numbers, 1 to 6
OVERLAYS = frozenset({"overlay", "overlays"})  # folders of pictures with outlines, which are no images
# Where the types of nuclei stand: variables that are read, of the first set that a file has.
TYPED: Mapping[str, tuple[str, ...]] = {
    "class": ("id", "class"),
    "inst_type": ("inst_type",),
    "type_map": ("type_map",),
}
UNTYPED = "no types"
ONLY_TYPE = 1  # of all nuclei of a file without types


class Types(NamedTuple):
    """The classes of an import, and for each number of a type its class id, or ``None`` where it is dropped."""

    classes: tuple[CellClass, ...]
    class_ids: Mapping[int, int | None]
    source: str  # what names the types


def import_mat(folder: Path, settings: ImportSettings) -> Source:
    """MATLAB files with ``inst_map``, each with an image of its name anywhere below the folder.

    Types of nuclei are ``class`` by ``id`` (Lizard), ``inst_type`` for each id in ascending order (HoVer-Net), or the
    most frequent number of ``type_map`` in a nucleus. Files without any of these hold one class, ``nucleus``.
    ``settings.types`` names the numbers, and may merge or drop them.
    """
    everything = files_in(folder)
    found = [path for path in everything if path.suffix.lower() == ".mat"]
    pictures = [path for path in everything if PICTURES.search(path.name) and _may_be_image(folder, path)]
    labels, images = (
        keyed([(key_of(folder, path, path.stem), path) for path in paths], what)
        for paths, what in ((found, ".mat file"), (pictures, "image"))
    )
    kind = _kind_of_all(list(labels.values()))
    types = _types(kind, list(labels.values()), settings.types)
    source = Source({}, types.classes)

    def read(path: Path, image: Path) -> Imported:
        nuclei, numbers = _read(path, kind)
        pixels = read_matching(image, path, nuclei.pixels.shape, source, settings)
        return Imported(pixels, _with_classes(nuclei, numbers, types, path, source.dropped))

    image_of = pair(labels, images)
    for key, path in labels.items():
        if key not in image_of:
            raise InputError(f"{path}: has no image of its name, or several, below {folder}")
    drop(source, "image without a .mat file", sorted(set(images.values()) - set(image_of.values())))
    say_unread(source, everything, [*found, *pictures])
    return with_readers(
        source, [(PurePath(*key), path, partial(read, path, image_of[key])) for key, path in labels.items()]
    )


def _may_be_image(folder: Path, path: Path) -> bool:
    return not is_label(folder, path) and not OVERLAYS & set(map(plain, path.relative_to(folder).parts[:-1]))


def _kind_of_all(paths: list[Path]) -> str:
    """Where the types of all files stand, which must be one place for all: a key of ``TYPED``, or ``UNTYPED``."""
    kinds: dict[str, Path] = {}
    for path in paths:
        kinds.setdefault(_kind_of(path), path)
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise InputError(
            f"{second}: holds {other}, but {first} holds {one}; import such files from folders of their own"
        )
    return next(iter(kinds), UNTYPED)


def _kind_of(path: Path) -> str:
    names = variables_in(path)
    if "inst_map" not in names:
        raise InputError(f"{path}: holds no inst_map but {some(names) or 'nothing'}")
    return next((kind for kind in TYPED if kind in names), UNTYPED)


def _types(kind: str, paths: list[Path], file: Path | None) -> Types:
    """The classes by ``--types``, or else those of the format, or else one for each number that occurs."""
    if kind == UNTYPED:
        if file and paths:
            raise InputError(f"--types: has no effect, because {paths[0]} holds no types of nuclei")
        return Types(name_classes(["nucleus"]), {ONLY_TYPE: 1}, "")
    if file:
        return read_types(file)
    if kind == "class":
        return Types(LIZARD_CLASSES, {one.id: one.id for one in LIZARD_CLASSES}, "Lizard")
    numbers = sorted({number for path in ProgressBar(paths, "read types") for number in _read(path, kind)[1].tolist()})
    return Types(name_classes([str(number) for number in numbers]), {n: i for i, n in enumerate(numbers, 1)}, "")


def read_types(file: Path) -> Types:
    """Read a JSON object of number → class name, or null for nuclei to drop; the classes are in the file's order.

    Raises:
        InputError: another form, a number that is none or that occurs twice, or no class at all.
    """
    named = read_json(file)
    if not isinstance(named, dict) or not any(named.values()):
        raise InputError(f'{file}: expected a JSON object of number → class name, such as {{"1": "tumour", "2": null}}')
    classes: dict[str, int] = {}
    class_ids: dict[int, int | None] = {}
    for key, name in named.items():
        number = integer(key)
        if type(number) is not int or number in class_ids:
            raise InputError(f"{file}: {key!r:.80} must be a whole number that occurs once")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise InputError(f"{file}: the name of {key} must be text, or null to drop it; got {name!r:.80}")
        class_ids[number] = None if name is None else classes.setdefault(name.strip(), len(classes) + 1)
    return Types(parse_classes(to_json(name_classes(list(classes))), str(file)), class_ids, str(file))


def _with_classes(
    nuclei: Nuclei, numbers: np.ndarray, types: Types, path: Path, dropped: Counter[str]
) -> list[Instance]:
    """The nuclei with the class of each type; those that are to be dropped are counted."""
    if unknown := sorted(set(numbers.tolist()) - types.class_ids.keys()):
        raise InputError(f"{path}: holds nuclei of type {unknown[0]}, which {types.source} does not name (see --types)")
    class_ids = [types.class_ids[number] for number in numbers.tolist()]
    for number, class_id in zip(numbers.tolist(), class_ids, strict=True):
        dropped[f"nucleus of type {number}, as {types.source} says"] += class_id is None
    both = zip(nuclei.instances, class_ids, strict=True)
    return [replace(nucleus, class_id=class_id) for nucleus, class_id in both if class_id is not None]


def _read(path: Path, kind: str) -> tuple[Nuclei, np.ndarray]:
    """The nuclei of a file, and the number of the type of each (N,) int64."""
    found = load_variables(path, ("inst_map", *TYPED.get(kind, ())))
    nuclei = nuclei_of(found["inst_map"], path)
    if kind == UNTYPED:
        return nuclei, np.full(len(nuclei.ids), ONLY_TYPE)
    numbers = _whole(found[kind], kind, path)
    if kind == "type_map":
        if numbers.shape != nuclei.pixels.shape:
            raise InputError(f"{path}: its type_map is of shape {numbers.shape}, its inst_map {nuclei.pixels.shape}")
        return nuclei, most_frequent(nuclei.pixels, numbers)
    if kind == "class":
        return nuclei, _by_id(nuclei, _whole(found["id"], "id", path).ravel(), numbers.ravel(), path)
    if numbers.size != len(nuclei.ids):
        raise InputError(f"{path}: holds {len(nuclei.ids)} nuclei, but {numbers.size} types in inst_type")
    return nuclei, numbers.ravel()


def _by_id(nuclei: Nuclei, ids: np.ndarray, numbers: np.ndarray, path: Path) -> np.ndarray:
    """The numbers of the nuclei, given for ``ids`` in any order, among which may be ids without a pixel."""
    if len(ids) != len(numbers) or len(np.unique(ids)) != len(ids):
        raise InputError(f"{path}: holds {len(np.unique(ids))} different ids for {len(numbers)} values of class")
    number_of = dict(zip(ids.tolist(), numbers.tolist(), strict=True))
    if missing := [label for label in nuclei.ids.tolist() if label not in number_of]:
        raise InputError(f"{path}: has no class for {len(missing)} ids of its inst_map, such as {missing[0]:g}")
    return np.array([number_of[label] for label in nuclei.ids.tolist()], np.int64)


def most_frequent(pixels: CellPixels, numbers: np.ndarray) -> np.ndarray:
    """The number that most pixels of each of N cells have, ``(N,)``; 0 only where no pixel has another.

    Of equally frequent numbers the lowest is taken. ``numbers`` is an ``(H, W)`` map.
    """
    pairs = np.stack([pixels.ids.astype(np.int64), numbers.ravel()[pixels.places]])
    (cells, values), counts = np.unique(pairs, axis=1, return_counts=True)
    order = np.lexsort((values, -counts, values == 0, cells))
    _, first = np.unique(cells[order], return_index=True)
    return values[order][first]


def _whole(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Values as int64, which must be whole numbers."""
    with np.errstate(invalid="ignore"):  # of NaN, which is refused below
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise InputError(f"{path}: its {name} holds values that are no whole numbers")
    return whole
