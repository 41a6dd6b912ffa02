"""labelme's JSON files, one per image."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.data.pictures import PICTURE_SUFFIXES, TIFF_SUFFIXES, decode_picture, open_picture
from src.formats.drawn import Drawn, class_ids, draw, number_classes, to_numbers, to_rectangle, to_ring, to_size
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    check_size,
    files_in,
    read_matching,
    say_unread,
    with_readers,
)
from src.formats.named_images import find_named, roots_of
from src.formats.places import Places, key_of
from src.geometry.instances import Instance, tight, union
from src.geometry.polygons import Ring, ellipse

IGNORED = "__ignore__"  # labelme's own names for regions that are no objects
BACKGROUND = "_background_"
WITH_AREA = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")  # kinds of shapes that may be objects


def import_labelme(path: Path, settings: ImportSettings) -> Source:
    """labelme's ``x.json``, or a folder of them, with the images that they name or hold.

    An image is looked for by its ``imagePath`` and then by the file's own name, beside the file, in a folder
    ``images`` there, in the folder above, or below ``settings.images``; where there is none it is the one inside.
    Classes are the labels by name. Shapes of one label and ``group_id`` are one object.
    """
    folder = path if path.is_dir() else path.parent
    everything = files_in(folder) if path.is_dir() else [path]
    names: set[str | None] = set()
    images: dict[Path, Path | None] = {}
    places = Places()
    for file in everything:
        data = read_json(file) if file.suffix.lower() == ".json" else None
        if isinstance(data, dict) and isinstance(data.get("shapes"), list):
            names |= {_label(shape) for shape in data["shapes"] if _kind(shape) in WITH_AREA}
            images[file] = _find_image(data, file, settings.images, places)
    _refuse_shared(images)
    known = sorted(name for name in names if name not in (None, IGNORED, BACKGROUND))
    source = Source({}, number_classes(known, path))
    ids = class_ids(source.classes, bool(known), source) if images else {}

    def read(file: Path) -> Imported:
        data, image = read_json(file), images[file]
        size = to_size(data.get("imageHeight"), data.get("imageWidth"), file)
        if image:
            pixels = read_matching(image, file, size, source, settings)
        else:
            pixels = decode_picture(_decode(data.get("imageData"), file), f"{file}: its image", settings.intensity)
            check_size(file, size, pixels)
        cells = draw(_objects(data["shapes"], file, source.dropped), ids, size, file, source.dropped)
        return Imported(pixels, [cell for cell in cells if cell])

    read_files = [file.absolute() for file in (*images, *filter(None, images.values()))]
    say_unread(source, [file.absolute() for file in everything], read_files)
    return with_readers(
        source,
        [
            (PurePath(*key_of(folder, file, file.stem)), image or file, partial(read, file))
            for file, image in images.items()
        ],
    )


def _find_image(data: Mapping[str, Any], file: Path, images: Path | None, places: Places) -> Path | None:
    """The image file of a JSON file; ``None`` where the image is inside."""
    roots = roots_of(file, images)
    named = data.get("imagePath")
    if isinstance(named, str) and named and (found := find_named(named, file, roots, places)):
        return found
    like = (
        places.find(root, (file.stem + ending,)) for root in roots for ending in (*TIFF_SUFFIXES, *PICTURE_SUFFIXES)
    )
    found = next(filter(None, like), None)
    if found is None and not data.get("imageData"):
        raise InputError(f"{file}: names the image {named}, which is not in {roots[0]}, and holds none (see --images)")
    return found


def _refuse_shared(images: Mapping[Path, Path | None]) -> None:
    owners: dict[Path, Path] = {}
    for file, image in images.items():
        if image and owners.setdefault(image, file) != file:
            raise InputError(f"{file}: is of the image {image}, as {owners[image]} is")


def _decode(text: Any, file: Path) -> bytes:
    try:
        return base64.b64decode(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: holds data that are not base64 ({error})") from error


def _label(shape: Any) -> str | None:
    label = shape.get("label") if isinstance(shape, dict) else None
    return label.strip() or None if isinstance(label, str) else None


def _kind(shape: Any) -> Any:
    """What a shape is; files of early versions leave out that it is a polygon."""
    return shape.get("shape_type") or "polygon" if isinstance(shape, dict) else None


def _objects(shapes: Sequence[Any], file: Path, dropped: Counter[str]) -> Iterator[Drawn]:
    """The objects of a file: a shape each, or those of one label and group together."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for index, shape in enumerate(shapes):
        if not isinstance(shape, dict):
            raise InputError(f"{file}: shape {index} is not a JSON object")
        group = shape.get("group_id")
        groups[(_label(shape), str(group)) if group is not None else index].append(shape)
    for members in groups.values():
        name = _label(members[0])
        if name == BACKGROUND:
            dropped[f"shape labelled {BACKGROUND}"] += len(members)
            continue
        polygons: list[list[Ring]] = []
        masks: list[Instance] = []
        for shape in members:
            if _kind(shape) != "mask":
                polygons += _polygon(shape, dropped)
            elif mask := _mask(shape, file, dropped):
                masks = [union([*masks, mask])]
        if polygons or masks:
            yield Drawn(name, polygons, masks, is_ignored=name == IGNORED)


def _polygon(shape: Mapping[str, Any], dropped: Counter[str]) -> list[list[Ring]]:
    """The polygon of a shape, if it has an area; others are counted."""
    kind, points = _kind(shape), shape.get("points")
    flat = to_numbers(value for point in points or [] for value in point) if _is_points(points) else None
    ring = None
    if kind == "rectangle" and flat and len(flat) == 4:
        ring = to_rectangle(*flat)
    elif kind == "circle" and flat and len(flat) == 4:
        x, y, edge_x, edge_y = flat
        radius = float(np.hypot(edge_x - x, edge_y - y))
        ring = ellipse((x, y), (radius, radius))
    elif kind not in WITH_AREA:
        dropped[f"{kind}, which has no area"] += 1
        return []
    elif kind != "circle":
        ring = to_ring(points)
    dropped[f"{kind} that cannot be read"] += ring is None
    return [] if ring is None else [[ring]]


def _is_points(points: Any) -> bool:
    return isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)


def _mask(shape: Mapping[str, Any], file: Path, dropped: Counter[str]) -> Instance | None:
    """The mask of a shape: a PNG whose upper left pixel lies at the first point."""
    points = shape.get("points")
    corner = to_numbers(points[0]) if _is_points(points) and points else None
    if corner is None or not np.abs(corner).max() < 1e9:
        dropped["mask that cannot be read"] += 1
        return None
    content = _decode(shape.get("mask"), file)
    pixels = np.asarray(open_picture(f"{file}: a mask", content).convert("L")) > 0
    found = tight(1, 1.0, int(corner[1]), int(corner[0]), pixels)
    dropped["mask without a pixel"] += found is None
    return found
