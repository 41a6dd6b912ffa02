"""GeoJSON as QuPath exports it, and as this program does."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.data.classes import CellClass, load_classes
from src.data.names import IMAGE_SUFFIX, OME_SUFFIX, stem
from src.formats.drawn import class_ids, draw, number_classes, told_size
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    drop,
    files_in,
    read_matching,
    say_unread,
    shown_size,
    with_readers,
)
from src.formats.places import Key, key_of, pair
from src.formats.readers.qupath import Feature, read_features
from src.geometry.instances import Instance

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz")  # of an image's files the first is taken
NOTE_NUCLEI = "cells of QuPath that were taken whole; --nuclei takes their nuclei"
NOTE_ANNOTATIONS = "annotations that were taken as cells, beside detections"


def import_geojson(path: Path, settings: ImportSettings) -> Source:
    """A file or a folder of ``x.geojson``, also ``.json`` and ``.gz``, and the images ``x.tif``, ``x.svs``, ``x.png`` …

    Images lie beside them, in a folder ``images``, or below ``settings.images``. Classes are those of ``classes.json``
    in the folder, where that is one of ours, and then the others by name.
    """
    folder = path if path.is_dir() else path.parent
    everything = files_in(folder) if path.is_dir() else [path]
    first = _own_classes(folder / "classes.json")
    labels = _labels(folder, [file for file in everything if file != folder / "classes.json"])
    root = settings.images or folder
    images = _images(root, files_in(root) if settings.images or path.is_dir() else _files_near(path))
    image_of = pair(labels, images)
    for key, file in labels.items():
        if key not in image_of and (file == path or ".geojson" in file.name.lower()):
            raise InputError(f"{file}: has no image beside it (see --images)")
    labels = {key: file for key, file in labels.items() if key in image_of}

    colors = _class_colors(labels.values(), settings.nuclei)
    known = {name: color for name, color in colors.items() if color}
    source = Source({}, number_classes(sorted(colors), path, known, first))
    ids = class_ids(source.classes, bool(colors), source) if labels else {}

    def read(file: Path, image: Path) -> Imported:
        features = read_features(file, settings.nuclei, source.dropped)
        drawn = [(feature, area) for feature in features if (area := feature.drawn(source.dropped))]
        objects = [area for _, area in drawn]
        size = shown_size(image, told_size(objects), source, settings.orientation)
        pixels = read_matching(image, file, size, source, settings)
        cells = draw(objects, ids, size, file, source.dropped)
        return Imported(pixels, _without_regions([feature for feature, _ in drawn], cells, size, source))

    if path.is_dir() and not settings.images:
        drop(source, "image without a GeoJSON file", sorted(set(images.values()) - set(image_of.values())))
    say_unread(source, everything, [*labels.values(), *images.values(), folder / "classes.json" if first else path])
    return with_readers(
        source, [(PurePath(*key), file, partial(read, file, image_of[key])) for key, file in labels.items()]
    )


def _labels(folder: Path, files: Iterable[Path]) -> dict[Key, Path]:
    """The files of features by what they have in common with their images, of several the one of the first ending."""
    found: dict[Key, Path] = {}
    for suffix in SUFFIXES:
        for file in files:
            if file.name.lower().endswith(suffix):
                found.setdefault(key_of(folder, file, _stem(file.name)), file)
    return found


def _images(root: Path, files: Iterable[Path]) -> dict[Key, Path]:
    found: dict[Key, Path] = {}
    for file in files:
        if IMAGE_SUFFIX.search(file.name):
            other = found.setdefault(key_of(root, file, _stem(file.name)), file)
            if other != file:
                raise InputError(f"{file}: is a second image beside {other}")
    return found


def _files_near(path: Path) -> list[Path]:
    """The files beside one file and in a folder ``images`` there."""
    places = [place for place in (path.parent, path.parent / "images") if place.is_dir()]
    return [file for place in places for file in sorted(place.iterdir()) if not is_system_file(file.name)]


def _stem(name: str) -> str:
    """A file's name without the endings of features, of an image and of OME, which QuPath leaves out or does not."""
    for suffix in SUFFIXES[::-1]:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return OME_SUFFIX.sub("", stem(name))


def _own_classes(path: Path) -> tuple[CellClass, ...]:
    """The classes of an export of ours; none where there is no such file, or one of another program."""
    return load_classes(path) if path.is_file() and isinstance(read_json(path), list) else ()


def _class_colors(files: Iterable[Path], nuclei: bool) -> dict[str, str | None]:
    """The names of all classes in the order of the files, each with the first colour that it has, if any."""
    found: dict[str, str | None] = {}
    for file in files:
        for feature in read_features(file, nuclei, Counter()):  # what is left out is counted when it is drawn
            if feature.class_name and not feature.is_ignored:
                found[feature.class_name] = found.get(feature.class_name) or feature.color
    return found


def _without_regions(
    features: Sequence[Feature], drawn: Sequence[Instance | None], size: tuple[int, int], source: Source
) -> list[Instance]:
    """The cells and regions to ignore, without annotations around other objects, which are counted.

    People draw an annotation around the place in which QuPath detects cells. It holds several of these; one that is
    not classified may hold cells that were drawn as annotations, too.
    """
    found = [(feature, cell) for feature, cell in zip(features, drawn, strict=True) if cell]
    cells = [cell for _, cell in found]
    is_annotation = np.array([feature.kind == "annotation" for feature, _ in found], bool)
    if not is_annotation.any():
        detections = annotations = [0] * len(cells)
    else:
        detections, annotations = (_held(cells, chosen, size) for chosen in (~is_annotation, is_annotation))
    kept = []
    for (feature, cell), inner, others in zip(found, detections, annotations, strict=True):
        is_drawn = feature.kind == "annotation" and not feature.is_ignored
        if is_drawn and (inner > 1 or (feature.class_name is None and others > 2)):  # itself is one
            source.dropped["annotation around other objects"] += 1
            continue
        source.notes[NOTE_ANNOTATIONS] += is_drawn and not is_annotation.all()
        source.notes[NOTE_NUCLEI] += feature.is_whole
        kept.append(cell)
    return kept


def _held(cells: Sequence[Instance], is_chosen: np.ndarray, size: tuple[int, int]) -> list[int]:
    """How many of the chosen objects each object holds, by a pixel in the middle of these; it holds itself."""
    marks = np.zeros(size, np.int32)
    for cell in [cell for cell, chosen in zip(cells, is_chosen, strict=True) if chosen]:
        row = next(row for row in (cell.mask.shape[0] // 2, 0) if cell.mask[row].any())
        columns = np.flatnonzero(cell.mask[row])
        marks[cell.top + row, cell.left + columns[len(columns) // 2]] += 1
    return [int(marks[c.top : c.bottom, c.left : c.right][c.mask].sum()) for c in cells]
