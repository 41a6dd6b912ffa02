"""Import of COCO JSON files, as annotation tools export them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.common.values import integer
from src.data.classes import ANY_CLASS, name_classes, parse_classes, to_json
from src.data.names import IMAGE_SUFFIX
from src.evaluation.categories import read_categories, renumbered
from src.evaluation.coco_polygons import ToldSize, told_sizes
from src.evaluation.coco_truth import has_size, read_coco
from src.evaluation.image_truth import ImageTruth
from src.formats.imported import Imported, ImportSettings, Source, drop, read_matching, shown_size, with_readers
from src.formats.named_images import find_images
from src.formats.places import checked_parts


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

    items = data.get("images")
    named = [item.get("file_name") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    files = find_images([name for name in named if isinstance(name, str)], path, settings.images, source)
    annotations = data.get("annotations")
    if isinstance(items, list):
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

    images = [
        (PurePath(*checked_parts(truth.file_name, path)), files[truth.file_name], truth) for truth in found.images
    ]
    return with_readers(source, [(place, file, partial(read, file, truth)) for place, file, truth in images])


def _others_beside(files: set[Path]) -> list[Path]:
    """Image files of any type in the folders of these, and below, that are not among them."""
    beside = {file for folder in {file.parent for file in files} for file in folder.rglob("*")}
    return sorted(file for file in beside - files if IMAGE_SUFFIX.search(file.name) and not is_system_file(file.name))


def _with_size(
    item: Any, files: Mapping[str, Path], told: Mapping[int, ToldSize], source: Source, orientation: str
) -> Any:
    """An image's entry with a size where it has none: the :func:`shown_size` of its file."""
    name = item.get("file_name") if isinstance(item, dict) else None
    if not isinstance(name, str) or name not in files or has_size(item):
        return item
    labels = told.get(integer(item.get("id")), ToldSize())
    height, width = shown_size(files[name], labels, source, orientation)
    return {**item, "height": height, "width": width}
