"""Ground truth from a COCO JSON file."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from reprlib import repr
from typing import Any

from src.common.errors import InputError
from src.common.limits import max_pixels
from src.common.values import integer
from src.data.classes import CellClass
from src.data.id_map import ImageId, check_component
from src.data.names import ImageNames, plain_names
from src.evaluation.categories import FileIds, match_classes, read_categories, renumbered, used_ids
from src.evaluation.coco_polygons import with_usable_polygons
from src.evaluation.crowds import crowd_note, crowds_are_cells
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import sizes_of
from src.evaluation.rle import MAX_PIXELS as MAX_RLE_PIXELS
from src.evaluation.rle import RleError, decode_entries
from src.evaluation.segmentations import to_compressed
from src.geometry.instances import Instance

NO_PIXEL = "annotation without a pixel in its image"


@dataclass(frozen=True)
class CocoTruth:
    """The images of a file with their objects, how many annotations are none, by reason, and a line about crowds."""

    images: list[ImageTruth]
    dropped: Counter[str] = field(default_factory=Counter)
    note: str = ""

    def lines(self) -> list[str]:
        """What is to be said about the file."""
        dropped = [f"{count} x {reason}" for reason, count in sorted(self.dropped.items()) if count]
        return [*filter(None, [self.note]), *([f"dropped: {', '.join(dropped)}"] if dropped else [])]


def with_class_ids(data: Any, classes: Sequence[CellClass], path: Path) -> tuple[Any, FileIds, str]:
    """A decoded COCO file whose annotations have class ids for category ids, which these were, and how they matched.

    A file without annotations or categories stays as it is.
    """
    lists = [data.get(key) for key in ("annotations", "categories")] if isinstance(data, dict) else []
    if not lists or not all(isinstance(items, list) and items for items in lists):
        return data, FileIds(), ""
    categories, _ = read_categories(data, path)
    numbers, note = match_classes(categories, used_ids(data), classes, path)
    annotations = [
        renumbered(item, numbers, f"{path}: annotation {index}") for index, item in enumerate(data["annotations"])
    ]
    names = {category.id: category.name for category in categories}
    return {**data, "annotations": annotations}, FileIds(names, numbers), note


def has_size(image: Mapping[str, Any]) -> bool:
    """Whether an image's entry tells its height and width; some tools write 0 where they do not know them."""
    return all(image.get(key) is not None and integer(image[key]) != 0 for key in ("height", "width"))


def with_sizes(
    data: Any, entries: Sequence[ImageId] | None, of_results: Mapping[int, tuple[int, int]], path: Path
) -> Any:
    """A decoded COCO file whose images have sizes, where they lack them those of RLE, the id map or the results.

    An image that the id map does not name is left out where nothing tells its size.
    """
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or not all(
        isinstance(item, dict) and isinstance(item.get("file_name"), str) for item in images
    ):
        return data
    lacking = [place for place, item in enumerate(images) if not has_size(item)]
    if not lacking:
        return data
    annotations = data.get("annotations") if isinstance(data.get("annotations"), list) else []
    sizes = {place: (entry.height, entry.width) for place, entry in _places(images, entries or (), path).items()}
    of_ids = {
        **(of_results if entries is None else {}),
        **sizes_of([item for item in annotations if isinstance(item, dict)]),
    }
    images, left_out = list(images), set()
    for place in lacking:
        image_id = integer(images[place].get("id"))
        known = type(image_id) is int
        size = (of_ids.get(image_id) if known else None) or sizes.get(place)
        if size:
            images[place] = {**images[place], "height": size[0], "width": size[1]}
        elif entries is not None and known and place not in sizes:
            left_out.add(image_id)
        else:
            raise InputError(
                f"{path}: does not tell height and width of {images[place]['file_name']}, and neither do RLE of it;"
                " name an id map, which does, with --id-map"
            )
    if not left_out:
        return {**data, "images": images}
    images, annotations = (
        [item for item in items if not isinstance(item, dict) or integer(item.get(key)) not in left_out]
        for items, key in ((images, "id"), (annotations, "image_id"))
    )
    return {**data, "images": images, "annotations": annotations}


def names_in(file_names: Sequence[str]) -> ImageNames:
    """The names of a COCO file's images, among which one is looked for."""
    return ImageNames(plain_names(file_names), file_names)


def _places(images: Sequence[Mapping[str, Any]], entries: Sequence[ImageId], path: Path) -> dict[int, ImageId]:
    """Place of an image → its entry in the id map."""
    known = names_in([item["file_name"] for item in images])
    found = {known.find(entry.file_name, path): entry for entry in entries}
    return {place: entry for place, entry in found.items() if place is not None}


def read_coco(data: Any, path: Path, class_count: int, crowds: str = "auto") -> CocoTruth:
    """The images of a decoded COCO JSON file with their objects.

    Polygons that cannot be drawn are left out, and so is an annotation without another, without a segmentation or
    without a pixel. ``path`` names the file in an error.
    """
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise InputError(f"{path}: expected a COCO JSON object with lists of images and annotations")
    images = {image.id: image for image in (_parse_image(item, path) for item in data["images"])}
    if not images or len({image.file_name for image in images.values()}) != len(data["images"]):
        raise InputError(f"{path}: needs images, each with an id and a file_name of its own")
    dropped: Counter[str] = Counter()
    sides = {image.id: max(image.height, image.width) for image in images.values()}
    sound = (
        (index, with_usable_polygons(item, _side_of(item, sides), dropped))
        for index, item in enumerate(data["annotations"])
    )
    kept = [(index, item) for index, item in sound if item is not None]
    entries = [_parse_annotation(item, index, images, class_count, path) for index, item in kept]
    try:
        instances = decode_entries(entries)
    except RleError as error:
        raise InputError(f"{path}: annotation {kept[error.index][0]}: {error}") from error
    items = [
        (bool(integer(item.get("iscrowd") or 0)), entry["image_id"], instance, isinstance(item["segmentation"], dict))
        for (_, item), entry, instance in zip(kept, entries, instances, strict=True)
        if instance is not None
    ]
    dropped[NO_PIXEL] += len(kept) - len(items)
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
    return CocoTruth(truths, dropped, crowd_note(len(crowd_areas), len(other_areas), as_cells))


def _side_of(annotation: Any, sides: Mapping[int, int]) -> int | None:
    """The longer side of the image that an annotation names; ``None`` where there is none."""
    image_id = integer(annotation.get("image_id")) if isinstance(annotation, dict) else None
    return sides.get(image_id) if type(image_id) is int else None


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
