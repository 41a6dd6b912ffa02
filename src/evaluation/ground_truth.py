"""Load ground truth for scoring from a folder of masks or from a COCO JSON file."""

import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from reprlib import repr
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.common.limits import max_pixels
from src.data.classes import ANY_CLASS, UNKNOWN_CLASS, CellClass
from src.data.id_map import TIFF_SUFFIX, ImageId, check_component, read_id_map, refuse_repeats
from src.data.masks import read_mask
from src.data.records import find_ambiguous, find_masks, read_record
from src.evaluation.categories import integer, match_classes, read_categories, renumbered, used_ids
from src.evaluation.crowds import crowd_note, crowds_are_cells
from src.evaluation.rle import MAX_PIXELS as MAX_RLE_PIXELS
from src.evaluation.rle import RleError, compress, decode_entries
from src.geometry.instances import Instance, from_label_map
from src.geometry.polygons import fill_as_coco

MAX_OUTLINE = 1e6  # px, of the polygons of one object


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """The true objects of one image, with the ``id`` that predictions carry and the size in px.

    In the regions ``ignored`` detections of their class, of any where it is :data:`ANY_CLASS`, are neither right nor
    wrong unless they find an object.
    """

    id: int
    file_name: str
    height: int
    width: int
    instances: list[Instance]
    ignored: list[Instance] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without folders and ``.tif``."""
        return TIFF_SUFFIX.sub("", PureWindowsPath(self.file_name).name)  # of which / and \\ are separators

    @property
    def entry(self) -> ImageId:
        """What an id map says of the image."""
        return ImageId(self.file_name, self.id, self.height, self.width)


@dataclass(frozen=True)
class TruthSettings:
    """How ground truth is read.

    ``classes`` are the classes 1..K, which a COCO file's categories are matched with by name; without them by id. With
    ``split_pieces`` each connected piece of a mask's id is a cell. ``crowds`` tells what COCO's crowd annotations are,
    one of :data:`src.evaluation.crowds.CROWDS`. A match that is not by name, and crowds, are said on stderr.
    """

    classes: Sequence[CellClass] | None = None
    split_pieces: bool = False
    crowds: str = "auto"


def load_ground_truth(
    path: str | Path,
    class_count: int,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
    settings: TruthSettings = TruthSettings(),
) -> list[ImageTruth]:
    """Load the true objects of every image that is to be scored.

    Args:
        path: a folder ``<name>/class1.tif … classK.tif``, with or without ``image.tif``, or a COCO JSON file whose
            segmentations are RLE (compressed or not) or polygons.
        class_count: K, without the background.
        id_map: path of the id map; it chooses the images and gives their ids. Without it a COCO file's own ids hold,
            and those of a folder are 1..N in the order of the names.
        names: only these images (file names without ``.tif``, or folder names).
        settings: how files are read.

    Raises:
        InputError: an image of the id map or of ``names`` that is not there, a size other than the id map's, or a
            file that is damaged or malformed.
    """
    path, entries = Path(path), None
    if id_map is not None:
        entries = [entry for entry in read_id_map(id_map) if names is None or entry.name in names]
        _require(names or (), {entry.name for entry in entries}, f"{id_map}: has no id for")
        names = [entry.name for entry in entries]
    if names is not None and not names:
        raise InputError(f"{path}: no image is left to score, because the split's part or the id map names none")
    if path.is_dir():
        sizes = {entry.name: (entry.height, entry.width) for entry in entries or ()}
        truths = _read_folder(path, class_count, names, sizes, settings.split_pieces)
    else:
        data = read_json(path)
        data = with_class_ids(data, settings.classes, path) if settings.classes else data
        truths, note = read_coco(data, path, class_count, settings.crowds)
        if note:
            print(f"{path}: {note}", file=sys.stderr)
        truths = _select(truths, names, path)
    return truths if entries is None else _renumber(truths, entries, id_map)


def _require(names: Collection[str], known: Collection[str], problem: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{problem} {name}")


def _renumber(truths: Sequence[ImageTruth], entries: Sequence[ImageId], id_map: str | Path | None) -> list[ImageTruth]:
    """The ground truth with the ids of the id map, in its order."""
    by_name = {truth.name: truth for truth in truths}
    for entry in entries:
        truth = by_name[entry.name]
        if (truth.height, truth.width) != (entry.height, entry.width):
            raise InputError(
                f"{id_map}: says that {entry.file_name} is {entry.height} x {entry.width} px, but its ground truth"
                f" is {truth.height} x {truth.width} px"
            )
    return [replace(by_name[entry.name], id=entry.id, file_name=entry.file_name) for entry in entries]


def _read_folder(
    path: Path,
    class_count: int,
    names: Collection[str] | None,
    sizes: Mapping[str, tuple[int, int]],
    split_pieces: bool,
) -> list[ImageTruth]:
    """Read masks; ``sizes`` serves the images that have neither a mask nor ``image.tif``."""
    folders = {folder.name: folder for folder in path.iterdir() if folder.is_dir() and not is_system_file(folder.name)}
    if not folders:
        raise InputError(f"{path}: holds no folders of masks (<name>/class1.tif …)")
    _require(names or (), folders, f"{path}: has no ground truth for")
    chosen = sorted(folders if names is None else names)
    has_images = any(path.glob("*/[iI]mage.tif*"))
    list_masks = _masks_and_size if has_images else _masks_alone
    return [
        _read_image(folders[name], *list_masks(folders[name], class_count), sizes, number, split_pieces)
        for number, name in enumerate(chosen, start=1)
    ]


def _masks_and_size(folder: Path, class_count: int) -> tuple[dict[int, Path], tuple[int, int] | None]:
    """The masks of an image by class id, and its size, which ``image.tif`` tells."""
    record = read_record(folder, class_count, check_masks=False)
    return record.masks, (record.height, record.width)


def _masks_alone(folder: Path, class_count: int) -> tuple[dict[int, Path], tuple[int, int] | None]:
    """The masks by class id in a folder without the image, whose size they tell."""
    names = sorted(path.name for path in folder.iterdir())
    return {class_id: folder / name for class_id, name in find_masks(folder, names, class_count).items()}, None


def _read_image(
    folder: Path,
    masks: Mapping[int, Path],
    size: tuple[int, int] | None,
    sizes: Mapping[str, tuple[int, int]],
    number: int,
    split_pieces: bool,
) -> ImageTruth:
    instances: list[Instance] = []
    ignored: list[Instance] = []
    for class_id, mask_path in masks.items():
        mask = read_mask(mask_path, split_pieces)
        size = size or mask.shape
        if mask.shape != size:
            height, width = mask.shape
            raise InputError(f"{mask_path}: is {height} x {width} px, but its image is {size[0]} x {size[1]} px")
        cells = from_label_map(mask[None])
        if class_id == UNKNOWN_CLASS:  # a detection of such a cell is neither right nor wrong, whatever its class
            ignored += [replace(cell, class_id=ANY_CLASS) for cell in cells]
        else:
            instances += [replace(cell, class_id=class_id) for cell in cells]
    size = size or sizes.get(folder.name)
    if size is None:
        raise InputError(f"{folder}: holds neither a mask nor image.tif, so its size is unknown; pass --id-map")
    ignored += _read_ambiguous(folder, size)
    return ImageTruth(number, f"{folder.name}.tif", *size, instances, ignored)


def _read_ambiguous(folder: Path, size: tuple[int, int]) -> list[Instance]:
    """The regions of ``ambiguous.tif``, which are of any class, where there is one."""
    name = find_ambiguous(folder, sorted(path.name for path in folder.iterdir()))
    if name is None:
        return []
    mask = read_mask(folder / name)
    if mask.shape != size:
        height, width = mask.shape
        raise InputError(f"{folder / name}: is {height} x {width} px, but its image is {size[0]} x {size[1]} px")
    return [replace(instance, class_id=ANY_CLASS) for instance in from_label_map(mask[None])]


def _select(truths: list[ImageTruth], names: Collection[str] | None, path: Path) -> list[ImageTruth]:
    """The images of these names, in their order; all without any."""
    by_name = {truth.name: truth for truth in truths}
    if names is not None:
        refuse_repeats((truth.name for truth in truths), f"{path}: image")
    _require(names or (), by_name, f"{path}: has no ground truth for")
    return truths if names is None else [by_name[name] for name in names]


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
    segmentation = _to_compressed(item.get("segmentation"), size, where)
    return {"image_id": image_id, "category_id": category_id, "score": 1.0, "segmentation": segmentation}


def _to_compressed(segmentation: Any, size: list[int], where: str) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return _rasterise(segmentation, size, where)
    if not isinstance(segmentation, dict) or segmentation.get("size") != size:
        raise InputError(f"{where}: its segmentation is neither polygons nor an RLE of the image's size {size}")
    counts = segmentation.get("counts")
    if not isinstance(counts, list):
        return segmentation
    if any(type(count) is not int or not 0 <= count <= MAX_RLE_PIXELS for count in counts):
        raise InputError(f"{where}: its counts must be whole numbers, at least 0")
    return {"size": size, "counts": compress(np.array(counts, np.int64), np.array([0, len(counts)]))[0]}


def _rasterise(polygons: list[Any], size: list[int], where: str) -> dict[str, Any]:
    """Draw polygons ``[x1, y1, x2, y2, …]`` in px, once they are known to be safe to draw."""
    reach, length = max(size), 0.0
    polygons = [polygon for polygon in polygons if not isinstance(polygon, list) or len(polygon) >= 6] or polygons
    for polygon in polygons or [None]:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(f"{where}: a polygon needs three points or more, as [x1, y1, x2, y2, …]")
        if not all(type(value) in (int, float) and -reach <= value <= 2 * reach for value in polygon):
            raise InputError(f"{where}: a polygon has a point that is not a number or far outside its image")
        corners = np.array(polygon).reshape(-1, 2)
        length += float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())
    if length > MAX_OUTLINE:  # pycocotools takes memory by it, and does not ask whether it got any
        raise InputError(f"{where}: its polygons are {length:.0f} px long, too long for a cell")
    return {"size": size, "counts": fill_as_coco(polygons, *size)}
