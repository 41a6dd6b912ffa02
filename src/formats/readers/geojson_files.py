"""Which GeoJSON files there are, and the image of each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError
from src.common.files import is_system_file
from src.data.names import IMAGE_SUFFIX, OME_SUFFIX, stem
from src.formats.imported import files_in
from src.formats.places import Key, key_of, pair
from src.formats.slide_folder import CELLS, OTHERS, PredictedSlide, read_slide_of

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz", ".zip")  # of an image's files the first is taken
CLASSES = "classes.json"


@dataclass(frozen=True)
class GeoJsonFile:
    """A file of features, what its image is called, that image where it is there, and the slide of a prediction."""

    path: Path
    key: Key
    image: Path | None
    slide: PredictedSlide | None


@dataclass(frozen=True)
class Found:
    """The files of features, all images, and all files that were looked at."""

    files: Sequence[GeoJsonFile]
    images: Sequence[Path]
    everything: Sequence[Path]


def find_files(path: Path, images: Path | None) -> Found:
    """A file of features, or those of a folder: a ``.json`` or ``.zip`` there only where an image has its name.

    Args:
        path: the file or folder.
        images: the folder of the images, or, for one file of features, the image; ``None`` for images beside them.

    Raises:
        InputError: two images of one name, or a summary of a slide that is damaged.
    """
    folder = path if path.is_dir() else path.parent
    everything = _without_outputs(files_in(folder)) if path.is_dir() else [path]
    labels = _labels(folder, [file for file in everything if file != folder / CLASSES])
    root = images or folder
    beside = files_in(root) if images or path.is_dir() else _files_near(path)
    by_key = _images(root, _without_outputs(beside))
    if images and images.is_file():
        image_of = _one_image(labels, images)
    else:
        image_of = pair(labels, {key: files[0] for key, files in by_key.items()})
        _refuse_twice(by_key, image_of.values())
    files = [
        GeoJsonFile(file, key, image_of.get(key), read_slide_of(file))
        for key, file in labels.items()
        if key in image_of or file == path or ".geojson" in file.name.lower()
    ]
    return Found(files, [file for of_key in by_key.values() for file in of_key], everything)


def _without_outputs(files: Sequence[Path]) -> list[Path]:
    """Files without what lies beside the cells of a predicted slide."""
    folders = {file.parent for file in files if file.name == CELLS}
    return [file for file in files if file.parent not in folders or file.name not in OTHERS]


def _labels(folder: Path, files: Iterable[Path]) -> dict[Key, Path]:
    """The files of features by what they have in common with their images, of several the one of the first ending."""
    found: dict[Key, Path] = {}
    for suffix in SUFFIXES:
        for file in files:
            if file.name.lower().endswith(suffix):
                found.setdefault(_key(folder, file), file)
    return found


def _key(folder: Path, file: Path) -> Key:
    """What a file of features and its image have in common; the cells of a slide are called after their folder."""
    if read_slide_of(file):
        return key_of(folder, file.parent, OME_SUFFIX.sub("", file.parent.resolve().name))
    return key_of(folder, file, _stem(file.name))


def _images(root: Path, files: Iterable[Path]) -> dict[Key, list[Path]]:
    """The images by what they have in common with their labels."""
    found: dict[Key, list[Path]] = defaultdict(list)
    for file in files:
        if IMAGE_SUFFIX.search(file.name):
            found[key_of(root, file, _stem(file.name))].append(file)
    return found


def _one_image(labels: Mapping[Key, Path], image: Path) -> dict[Key, Path]:
    if len(labels) != 1:
        raise InputError(f"--images {image}: is one image, but there are {len(labels)} GeoJSON files; name its folder")
    return dict.fromkeys(labels, image)


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
