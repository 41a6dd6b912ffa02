"""Ground truth from a COCO JSON file."""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from reprlib import repr
from typing import Any

from src.common.errors import InputError
from src.common.limits import max_pixels
from src.data.classes import CellClass
from src.data.id_map import check_component
from src.evaluation.categories import integer, match_classes, read_categories, renumbered, used_ids
from src.evaluation.crowds import crowd_note, crowds_are_cells
from src.evaluation.image_truth import ImageTruth
from src.evaluation.rle import MAX_PIXELS as MAX_RLE_PIXELS
from src.evaluation.rle import RleError, decode_entries
from src.evaluation.segmentations import to_compressed
from src.geometry.instances import Instance


def with_class_ids(data: Any, classes: Sequence[CellClass], path: Path) -> Any:
    """A decoded COCO file whose annotations have class ids for category ids; one without categories stays as it is."""
    lists = [data.get(key) for key in ("annotations", "categories")] if isinstance(data, dict) else []
    if not lists or not all(isinstance(items, list) and items for items in lists):
        return data
    categories, _ = read_categories(data, path)
    numbers, note = match_classes(categories, used_ids(data), classes, path)
    if note:
        print(note, file=sys.stderr)
    annotations = [
        renumbered(item, numbers, f"{path}: annotation {index}") for index, item in enumerate(data["annotations"])
    ]
    return {**data, "annotations": annotations}


def read_coco(data: Any, path: Path, class_count: int, crowds: str = "auto") -> tuple[list[ImageTruth], str]:
    """The images of a decoded COCO JSON file with their objects, and a line about crowds (see :func:`crowd_note`).

    An annotation without a pixel is no object. ``path`` names the file in an error.
    """
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: expected a COCO JSON object with lists of images and annotations")
    images = {image.id: image for image in (_parse_image(item, path) for item in data["images"])}
    if not images or len({image.file_name for image in images.values()}) != len(data["images"]):
        raise InputError(f"{path}: needs images, each with an id and a file_name of its own")
    entries = [
        _parse_annotation(item, index, images, class_count, path) for index, item in enumerate(data["annotations"])
    ]
    try:
        instances = decode_entries(entries)
    except RleError as error:
        raise InputError(f"{path}: annotation {error.index}: {error}") from error
    items = [
        (bool(integer(item.get("iscrowd") or 0)), entry["image_id"], instance, isinstance(item["segmentation"], dict))
        for item, entry, instance in zip(data["annotations"], entries, instances, strict=True)
        if instance is not None
    ]
    crowd_areas, other_areas = (
        [one.area for is_crowd, _, one, _ in items if is_crowd == side] for side in (True, False)
    )
    other_is_rle = any(is_rle for is_crowd, _, _, is_rle in items if not is_crowd)
    as_cells = crowds_are_cells(crowds, crowd_areas, other_areas, other_is_rle)
    objects: dict[int, list[Instance]] = defaultdict(list)
    ignored: dict[int, list[Instance]] = defaultdict(list)
    for is_crowd, image_id, instance, _ in items:
        (ignored if is_crowd and not as_cells else objects)[image_id].append(instance)
    truths = [replace(image, instances=objects[image.id], ignored=ignored[image.id]) for image in images.values()]
    return truths, crowd_note(len(crowd_areas), len(other_areas), as_cells)


def _parse_image(item: Any, path: Path) -> ImageTruth:
    if not isinstance(item, dict) or not {"id", "file_name", "height", "width"} <= item.keys():
        raise InputError(f"{path}: an image needs id, file_name, height and width, got {repr(item)}")
    file_name = item["file_name"]
    image_id, height, width = (integer(item[key]) for key in ("id", "height", "width"))
    if not isinstance(file_name, str):
        raise InputError(f"{path}: the file_name of an image must be text, got {repr(file_name)}")
    check_component(PureWindowsPath(file_name).name, path)  # the folders before it are another machine's
    if any(type(number) is not int for number in (image_id, height, width)) or min(height, width) < 1:
        raise InputError(f"{path}: id, height and width of {file_name} must be integers and the size positive")
    if height * width > min(max_pixels(), MAX_RLE_PIXELS):
        raise InputError(f"{path}: {file_name} is too large ({height} x {width} px; see --max-pixels)")
    return ImageTruth(image_id, file_name, height, width, [])


def _parse_annotation(
    item: Any, index: int, images: Mapping[int, ImageTruth], class_count: int, path: Path
) -> dict[str, Any]:
    """An annotation as a result entry of score 1, its segmentation a compressed RLE that is yet to be checked."""
    where = f"{path}: annotation {index}"
    if not isinstance(item, dict):
        raise InputError(f"{where}: is not a JSON object")
    image_id, category_id = integer(item.get("image_id")), integer(item.get("category_id"))
    if type(image_id) is not int or image_id not in images:
        raise InputError(f"{where}: image_id {repr(image_id)} is not among the images")
    if type(category_id) is not int or not 1 <= category_id <= class_count:
        raise InputError(f"{where}: category_id {repr(category_id)} is not in 1..{class_count} (see --classes)")
    size = [images[image_id].height, images[image_id].width]
    segmentation = to_compressed(item.get("segmentation"), size, where)
    return {"image_id": image_id, "category_id": category_id, "score": 1.0, "segmentation": segmentation}
