"""GeoJSON as QuPath exports it, and as this program does."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.data.classes import CellClass, load_classes
from src.data.names import IMAGE_SUFFIX, OME_SUFFIX, stem
from src.formats.drawn import Drawn, class_ids, draw, number_classes, told_size
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
from src.formats.readers.qupath import Feature, read_objects

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz", ".zip")  # of an image's files the first is taken
NOTE_NUCLEI = "cell of QuPath that was taken whole; --nuclei takes its nucleus"
NOTE_ANNOTATIONS = "annotation that was taken as a cell, beside detections"


def import_geojson(path: Path, settings: ImportSettings) -> Source:
    """A file or a folder of ``x.geojson``, and the images ``x.tif``, ``x.svs``, ``x.png`` …

    Features may also be ``.json``, ``.gz`` or ``.zip``. Images lie beside them, in a folder ``images``, or below
    ``settings.images``. Classes are those of ``classes.json`` in the folder, where that is one of ours, and then the
    others by name.
    """
    folder = path if path.is_dir() else path.parent
    everything = files_in(folder) if path.is_dir() else [path]
    first = _own_classes(folder / "classes.json")
    labels = _labels(folder, [file for file in everything if file != folder / "classes.json"])
    root = settings.images or folder
    images = _images(root, files_in(root) if settings.images or path.is_dir() else _files_near(path))
    image_of = pair(labels, {key: files[0] for key, files in images.items()})
    _refuse_twice(images, image_of.values())
    for key, file in labels.items():
        if key not in image_of and (file == path or ".geojson" in file.name.lower()):
            raise InputError(f"{file}: has no image beside it (see --images)")
    labels = {key: file for key, file in labels.items() if key in image_of}

    colors = _class_colors(labels.values(), settings.nuclei)
    known = {name: color for name, color in colors.items() if color}
    source = Source({}, number_classes(sorted(colors), path, known, first))
    ids = class_ids(source.classes, bool(colors), source) if labels else {}

    def read(file: Path, image: Path) -> Imported:
        found = read_objects(file, settings.nuclei, source.dropped)
        objects = [drawn for _, drawn in found]
        size = shown_size(image, told_size(objects), source, settings.orientation)
        pixels = read_matching(image, file, size, source, settings)
        _note(found, source)
        return Imported(pixels, [cell for cell in draw(objects, ids, size, file, source.dropped) if cell])

    all_images = [file for files in images.values() for file in files]
    if path.is_dir() and not settings.images:
        drop(source, "image without a GeoJSON file", sorted(set(all_images) - set(image_of.values())))
    say_unread(source, everything, [*labels.values(), *all_images, folder / "classes.json" if first else path])
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


def _images(root: Path, files: Iterable[Path]) -> dict[Key, list[Path]]:
    """The images by what they have in common with their labels."""
    found: dict[Key, list[Path]] = defaultdict(list)
    for file in files:
        if IMAGE_SUFFIX.search(file.name):
            found[key_of(root, file, _stem(file.name))].append(file)
    return found


def _refuse_twice(images: Mapping[Key, Sequence[Path]], used: Iterable[Path]) -> None:
    """Refuse two images of one name where one is used."""
    chosen = set(used)
    for files in images.values():
        if len(files) > 1 and files[0] in chosen:
            raise InputError(f"{files[1]}: is a second image beside {files[0]}")


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
        for feature, _ in read_objects(file, nuclei, Counter()):  # what is left out is counted when it is drawn
            if feature.class_name and not feature.is_ignored:
                found[feature.class_name] = found.get(feature.class_name) or feature.color
    return found


def _note(found: Sequence[tuple[Feature, Drawn]], source: Source) -> None:
    """Note cells that have a nucleus, and annotations beside detections, which may be meant otherwise."""
    annotations = sum(feature.kind == "annotation" and not feature.is_ignored for feature, _ in found)
    source.notes[NOTE_ANNOTATIONS] += annotations if any(f.kind != "annotation" for f, _ in found) else 0
    source.notes[NOTE_NUCLEI] += sum(feature.is_whole for feature, _ in found)
