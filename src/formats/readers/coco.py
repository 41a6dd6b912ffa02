"""Import of COCO JSON files, as annotation tools export them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from src.common.errors import InputError, counted
from src.common.files import is_system_file, read_json
from src.common.values import integer
from src.data.classes import ANY_CLASS, name_classes, parse_classes, to_json
from src.data.names import IMAGE_SUFFIX
from src.data.pictures import QUARTER_TURNS, exif_orientation, read_size
from src.evaluation.categories import read_categories, renumbered
from src.evaluation.coco_polygons import ToldSize, told_sizes
from src.evaluation.coco_truth import has_size, read_coco
from src.evaluation.image_truth import ImageTruth
from src.formats.imported import NOTE_TURNED, Imported, ImportSettings, Source, drop, read_matching, with_readers
from src.formats.places import Places, is_there, parts_of


def import_coco(path: Path, settings: ImportSettings) -> Source:
    """A COCO JSON file and its images.

    An image is looked for by its ``file_name``, whose folders may be those of another machine: below
    ``settings.images``, or else below the file's own folder and the one above, never outside of these. Where two images
    of different folders have the same name, their folders become part of the names. Sizes that are missing are those of
    the image files. Annotations and polygons without an area are dropped and counted. Crowds are cells, or regions
    that are kept apart, as ``settings.crowds`` says.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("categories"), list) or not data["categories"]:
        raise InputError(f"{path}: expected a COCO JSON object with images, annotations and categories")
    categories, roots = read_categories(data, path)
    numbers = {category.id: number for number, category in enumerate(categories, start=1)}
    classes = parse_classes(to_json(name_classes([category.name for category in categories])), str(path))
    source = Source({}, classes, Counter(f"category {name!r}, which only stands above the others" for name in roots))

    files = _find_images(data.get("images"), path, settings.images, source)
    annotations = data.get("annotations")
    if isinstance(items := data.get("images"), list):
        told = told_sizes(annotations)
        data = {**data, "images": [_with_size(item, files, told, source, settings.orientation) for item in items]}
    if isinstance(annotations, list):
        numbered = (renumbered(item, numbers, f"{path}: annotation {index}") for index, item in enumerate(annotations))
        data = {**data, "annotations": list(numbered)}
    found = read_coco(data, path, len(classes), settings.crowds)
    source.dropped.update(found.dropped)
    source.lines.extend([found.note] if found.note else [])
    drop(source, "image beside these that the file does not name", _others_beside(set(files.values())))

    def read(file: Path, truth: ImageTruth) -> Imported:
        pixels = read_matching(file, path, (truth.height, truth.width), source, settings)
        regions = [replace(region, class_id=ANY_CLASS) for region in truth.ignored]
        return Imported(pixels, [*truth.instances, *regions])

    images = [(PurePath(*parts_of(truth.file_name, path)), files[truth.file_name], truth) for truth in found.images]
    return with_readers(source, [(place, file, partial(read, file, truth)) for place, file, truth in images])


def _find_images(items: Any, path: Path, images: Path | None, source: Source) -> dict[str, Path]:
    """The file of each image by its ``file_name``; what is malformed is left to be refused by its reader."""
    folder = path.absolute().parent
    roots = [images.absolute()] if images else [folder, folder / "images", folder.parent]
    found: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    places, elsewhere = Places(), list[Path]()
    for item in items if isinstance(items, list) else []:
        name = item.get("file_name") if isinstance(item, dict) else None
        if isinstance(name, str):
            parts = parts_of(name, path)
            file = _by_way_up(name, folder, roots, places) or _by_folders(parts, roots, places)
            if file is None:
                file = _somewhere_below(parts[-1], [root for root in roots if root != folder / "images"], places, path)
                elsewhere.extend([file] if file else [])
            if file is None:
                raise InputError(f"{path}: names {name}, which is not in {roots[0]} (see --images)")
            owner = owners.setdefault(file, name)
            if owner != name:
                raise InputError(f"{path}: names {owner} and {name}, but there is only {file} for both (see --images)")
            found[name] = file
    if elsewhere:
        source.lines.append(
            f"found in other folders than named: {counted(len(elsewhere), 'image')}, such as {elsewhere[0]}"
        )
    return found


def _by_way_up(name: str, folder: Path, roots: Sequence[Path], places: Places) -> Path | None:
    """The file of a name with ``..``, seen from ``--images`` or the JSON file, where it lies in what may be read."""
    name = name.replace("\\", "/")
    if ".." not in name.split("/"):
        return None
    allowed = [*roots, folder, folder.parent]
    for start in (roots[0], folder):
        place = Path(os.path.normpath(start / name))
        for root in allowed:
            if place != root and place.is_relative_to(root):
                file = places.find(root, place.relative_to(root).parts)
                if file:
                    return file
    return None


def _by_folders(parts: Sequence[str], roots: Sequence[Path], places: Places) -> Path | None:
    """The file of as many of a name's folders as there are, which may be those of another machine."""
    tries = [(root, parts[start:]) for start in range(len(parts)) for root in roots]
    exact = next((file for root, rest in tries if is_there(file := root.joinpath(*rest))), None)
    return exact or next(filter(None, (places.find(root, rest) for root, rest in tries)), None)


def _somewhere_below(name: str, roots: Sequence[Path], places: Places, path: Path) -> Path | None:
    """The only file of a name anywhere below a place, but not in a folder with a list of its own."""
    for root in roots:
        found = [file for file in places.below(root, name) if not _has_other_list(file.parent, path)]
        if len(found) > 1:
            raise InputError(f"{path}: names {name}, of which {found[0]} and {found[1]} may be meant (see --images)")
        if found:
            return found[0]
    return None


def _has_other_list(folder: Path, path: Path) -> bool:
    """Whether a folder holds another JSON file than ``path``, as those of other parts of a data set do."""
    return any(file.suffix.lower() == ".json" and file.absolute() != path.absolute() for file in folder.iterdir())


def _others_beside(files: set[Path]) -> list[Path]:
    """Image files of any type in the folders of these, and below, that are not among them."""
    beside = {file for folder in {file.parent for file in files} for file in folder.rglob("*")}
    return sorted(file for file in beside - files if IMAGE_SUFFIX.search(file.name) and not is_system_file(file.name))


def _with_size(
    item: Any, files: Mapping[str, Path], told: Mapping[int, ToldSize], source: Source, orientation: str
) -> Any:
    """An image's entry with a size where it has none: that of its file, turned by its EXIF tag unless that is ``raw``.

    What its annotations tell comes first: the size of an RLE, and points that lie in the picture only as it is stored.
    """
    name = item.get("file_name") if isinstance(item, dict) else None
    if not isinstance(name, str) or name not in files or has_size(item):
        return item
    height, width = read_size(files[name])
    if orientation != "raw" and height != width and exif_orientation(files[name]) in QUARTER_TURNS:
        labels = told.get(integer(item.get("id")), ToldSize())
        is_stored = labels.size == (height, width) or (
            labels.size is None and labels.fits(height, width) and not labels.fits(width, height)
        )
        if orientation == "turned" or not is_stored:
            height, width = width, height
            source.notes[NOTE_TURNED] += orientation == "auto" and labels.size is None
    return {**item, "height": height, "width": width}
