"""GeoJSON as QuPath exports it, and as this program does."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.data.classes import CellClass, load_classes
from src.evaluation.coco_polygons import ToldSize
from src.formats.drawn import Drawn, class_ids, draw, number_classes, told_size
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    drop,
    read_matching,
    say_unread,
    shown_size,
    with_readers,
)
from src.formats.readers.geojson_files import CLASSES, Found, GeoJsonFile, find_files
from src.formats.readers.qupath import Feature, read_objects

NOTE_NUCLEI = "cell of QuPath that was taken whole; --nuclei takes its nucleus"
NOTE_ANNOTATIONS = "annotation that was taken as a cell, beside detections"


def import_geojson(path: Path, settings: ImportSettings) -> Source:
    """A file or a folder of ``x.geojson``, and the images ``x.tif``, ``x.svs``, ``x.png`` …

    Features may also be ``.json``, ``.gz`` or ``.zip``. Images lie beside them, in a folder ``images``, or below
    ``settings.images``. Classes are those of ``classes.json`` in the folder, where that is one of ours, then those of
    predicted slides in their order, and then the others by name.
    """
    found = find_files(path, settings.images)
    for file in found.files:
        if file.image is None:
            slide = f"; its slide is {file.slide.file_name}" if file.slide else ""
            without = "; with --to its cells are exported without it"
            raise InputError(f"{file.path}: has no image beside it (see --images){slide}{without}")
    survey = survey_files(found.files, settings.nuclei)
    source = Source({}, classes_in(path, found.files, survey))
    ids = class_ids(source.classes, bool(survey.colors), source) if found.files else {}

    def read(file: GeoJsonFile, image: Path) -> Imported:
        objects = list(noted(read_objects(file.path, settings.nuclei, source.dropped), source))
        told = survey.told[file.path]
        size = file.slide.size if file.slide else shown_size(image, told, source, settings.orientation)
        pixels = read_matching(image, file.path, size, source, settings)
        cells = draw((drawn for _, drawn in objects), ids, size, file.path, source.dropped)
        return Imported(pixels, [cell for cell in cells if cell])

    used = [file.image for file in found.files if file.image]
    if path.is_dir() and not settings.images:
        drop(source, "image without a GeoJSON file", sorted(set(found.images) - set(used)))
    say_others(path, found, source)
    readers = [(PurePath(*file.key), file.path, partial(read, file, file.image)) for file in found.files if file.image]
    return with_readers(source, readers)


@dataclass
class Survey:
    """What is known of all files before one is drawn: the names of the classes in the order of the files, each with the
    first colour that it has, if any; whether there are cells of no class; what each file tells of its image's size."""

    colors: dict[str, str | None] = field(default_factory=dict)
    has_unclassified: bool = False
    told: dict[Path, ToldSize] = field(default_factory=dict)


def survey_files(files: Iterable[GeoJsonFile], nuclei: bool) -> Survey:
    """Read all files once.

    Raises:
        InputError: a file is damaged, or holds no features.
    """
    survey = Survey()
    for file in files:
        furthest = np.zeros(2)
        for feature, drawn in read_objects(file.path, nuclei, Counter()):  # what is left out is counted later
            if feature.class_name and not feature.is_ignored:
                survey.colors[feature.class_name] = survey.colors.get(feature.class_name) or feature.color
            survey.has_unclassified |= feature.class_name is None
            furthest = np.maximum(furthest, told_size([drawn]).furthest)
        survey.told[file.path] = ToldSize(furthest=(float(furthest[0]), float(furthest[1])))
    return survey


def classes_in(path: Path, files: Sequence[GeoJsonFile], survey: Survey) -> tuple[CellClass, ...]:
    """The classes of a file or folder: of its ``classes.json``, if that is one of ours, of predicted slides, others."""
    of_slides = [name for file in files if file.slide for name in file.slide.class_names]
    known = {name: color for name, color in survey.colors.items() if color}
    return number_classes([*of_slides, *sorted(survey.colors)], path, known, _own_classes(path))


def _own_classes(path: Path) -> tuple[CellClass, ...]:
    """The classes of an export of ours; none where there is no such file, or one of another program."""
    file = (path if path.is_dir() else path.parent) / CLASSES
    return load_classes(file) if file.is_file() and isinstance(read_json(file), list) else ()


def say_others(path: Path, found: Found, source: Source) -> None:
    """Say which files below ``path`` are not read."""
    classes = path / CLASSES if _own_classes(path) else path
    say_unread(source, found.everything, [*(file.path for file in found.files), *found.images, classes])


def noted(objects: Iterable[tuple[Feature, Drawn]], source: Source) -> Iterator[tuple[Feature, Drawn]]:
    """The objects of a file; cells that have a nucleus, and annotations beside detections, may be meant otherwise."""
    annotations = others = whole = 0
    for feature, drawn in objects:
        is_annotation = feature.kind == "annotation"
        annotations += is_annotation and not feature.is_ignored
        others += not is_annotation
        whole += feature.is_whole
        yield feature, drawn
    source.notes[NOTE_ANNOTATIONS] += annotations if others else 0
    source.notes[NOTE_NUCLEI] += whole
