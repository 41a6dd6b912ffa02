"""Import of COCO JSON files, as annotation tools export them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.data.classes import ANY_CLASS, name_classes, parse_classes, to_json
from src.data.pictures import QUARTER_TURNS, exif_orientation, read_size
from src.evaluation.categories import read_categories, renumbered
from src.evaluation.coco_truth import has_size, read_coco
from src.evaluation.image_truth import ImageTruth
from src.formats.imported import NOTE_TURNED, Imported, ImportSettings, Source, drop, read_matching, with_readers
from src.formats.places import PICTURES, Places, is_there, parts_of


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

    files = _find_images(data.get("images"), path, settings.images)
    if isinstance(items := data.get("images"), list):
        data = {**data, "images": [_with_size(item, files, source, settings.orientation) for item in items]}
    if isinstance(annotations := data.get("annotations"), list):
        data = {**data, "annotations": _cells(annotations, numbers, path, source.dropped)}
    found = read_coco(data, path, len(classes), settings.crowds, is_strict=False)
    source.dropped.update(found.dropped)
    source.lines.extend([found.note] if found.note else [])
    drop(source, "image beside these that the file does not name", _others_beside(set(files.values())))

    def read(file: Path, truth: ImageTruth) -> Imported:
        pixels = read_matching(file, path, (truth.height, truth.width), source, settings)
        regions = [replace(region, class_id=ANY_CLASS) for region in truth.ignored]
        return Imported(pixels, [*truth.instances, *regions])

    images = [(PurePath(*parts_of(truth.file_name, path)), files[truth.file_name], truth) for truth in found.images]
    return with_readers(source, [(place, file, partial(read, file, truth)) for place, file, truth in images])


def _cells(
    annotations: Sequence[Any], numbers: Mapping[int, int], path: Path, dropped: Counter[str]
) -> list[dict[str, Any]]:
    """The annotations that have a segmentation, their categories as 1..K; the others are counted in ``dropped``."""
    kept = []
    for index, item in enumerate(annotations):
        if isinstance(item, dict) and item.get("segmentation") in (None, []):
            dropped["annotation without a segmentation"] += 1
        else:
            kept.append(renumbered(item, numbers, f"{path}: annotation {index}"))
    return kept


def _find_images(items: Any, path: Path, images: Path | None) -> dict[str, Path]:
    """The file of each image by its ``file_name``; what is malformed is left to be refused by its reader."""
    folder = path.absolute().parent
    roots = [images.absolute()] if images else [folder, folder / "images", folder.parent]
    found: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    places = Places()
    for item in items if isinstance(items, list) else []:
        name = item.get("file_name") if isinstance(item, dict) else None
        if isinstance(name, str):
            parts = parts_of(name, path)
            file = _by_way_up(name, folder, roots, places) or _by_folders(parts, roots, places)
            file = file or _somewhere_below(
                parts[-1], [root for root in roots if root != folder / "images"], places, path
            )
            if file is None:
                raise InputError(f"{path}: names {name}, which is not in {roots[0]} (see --images)")
            owner = owners.setdefault(file, name)
            if owner != name:
                raise InputError(f"{path}: names {owner} and {name}, but there is only {file} for both (see --images)")
            found[name] = file
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
    """The only file of a name anywhere below a place."""
    for root in roots:
        found = places.below(root, name)
        if len(found) > 1:
            raise InputError(f"{path}: names {name}, of which {found[0]} and {found[1]} may be meant (see --images)")
        if found:
            return found[0]
    return None


def _others_beside(files: set[Path]) -> list[Path]:
    """Image files in the folders of these that are not among them."""
    folders = {file.parent for file in files}
    beside = [file for folder in folders for file in folder.iterdir() if PICTURES.search(file.name)]
    return [file for file in beside if file not in files and not is_system_file(file.name)]


def _with_size(item: Any, files: Mapping[str, Path], source: Source, orientation: str) -> Any:
    """An image's entry with the size of its file where it has none, turned by its EXIF tag unless that is ``raw``."""
    name = item.get("file_name") if isinstance(item, dict) else None
    if not isinstance(name, str) or name not in files:
        return item
    if has_size(item):
        return item
    height, width = read_size(files[name])
    if orientation != "raw" and exif_orientation(files[name]) in QUARTER_TURNS:
        height, width = width, height
        source.notes[NOTE_TURNED] += orientation == "auto" and height != width
    return {**item, "height": height, "width": width}
