"""Projects and exports of the VGG Image Annotator 2."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from src.common.errors import InputError, nearest
from src.common.files import read_json, read_text
from src.common.values import plain
from src.formats.drawn import Drawn, class_ids, draw, number_classes, to_numbers, to_rectangle, to_ring, told_size
from src.formats.imported import Imported, ImportSettings, Source, read_matching, shown_size, with_readers
from src.formats.named_images import find_images
from src.formats.places import checked_parts
from src.geometry.polygons import Ring, ellipse

CLASS_NAMES = ("class", "label", "type", "name")  # of attributes, of which one is taken where there are several
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")  # of a table, that are read
KEYS = {  # of the shapes, the numbers that make them up
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}
WITH_AREA = ("polygon", "polyline", *KEYS)  # kinds of shapes that may be objects


@dataclass(frozen=True)
class Region:
    """A region: its shape, and its attributes by name."""

    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @property
    def kind(self) -> Any:
        """What VIA calls the shape."""
        return self.shape.get("name")


Regions = dict[str, list[Region]]  # of each image, by its file name
ClassOf = Callable[[Region], str | None]  # the class of a region
Options = dict[str, Mapping[str, str]]  # of each attribute, what its values are called


def import_via(path: Path, settings: ImportSettings) -> Source:
    """A JSON or CSV file of the VGG Image Annotator 2, and the images that it names.

    Images are looked for as those of a COCO file. Classes are the values of one attribute, by name: of
    ``settings.attribute``, or the only one, or the one called class, label, type or name. Several boxes that are ticked
    make one class.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the JSON or CSV file of the project")
    regions, options = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
    attribute = _choose_attribute(regions, settings.attribute, path)
    class_of: ClassOf = partial(_class_name, attribute=attribute, options=options.get(attribute or "", {}))
    drawn = [region for of_image in regions.values() for region in of_image if region.kind in WITH_AREA]
    names = sorted({name for region in drawn if (name := class_of(region))})
    source = Source({}, number_classes(names, path))
    files = find_images(regions, path, settings.images, source)
    ids = class_ids(source.classes, bool(names), source) if regions else {}

    def read(name: str) -> Imported:
        objects = list(_objects(regions[name], class_of, source.dropped))
        size = shown_size(files[name], told_size(objects), source, settings.orientation)
        pixels = read_matching(files[name], path, size, source, settings)
        return Imported(pixels, [cell for cell in draw(objects, ids, size, path, source.dropped) if cell])

    return with_readers(
        source, [(PurePath(*checked_parts(name, path)), files[name], partial(read, name)) for name in regions]
    )


def _read_json(path: Path) -> tuple[Regions, Options]:
    data = read_json(path)
    is_project = isinstance(data, dict) and "_via_img_metadata" in data
    images = data["_via_img_metadata"] if is_project else data
    if not isinstance(images, dict) or not all(isinstance(e, dict) and "filename" in e for e in images.values()):
        raise InputError(f"{path}: expected a project or annotations of the VGG Image Annotator 2")
    regions: Regions = {}
    for entry in images.values():
        name, given = entry["filename"], entry.get("regions") or []
        given = list(given.values()) if isinstance(given, dict) else given
        if not isinstance(given, list):
            raise InputError(f"{path}: the regions of {name!r:.80} are neither a list nor an object")
        if not isinstance(name, str) or name in regions:
            raise InputError(f"{path}: the image {name!r:.80} occurs twice, or its name is no text")
        regions[name] = [_region(item, path) for item in given]
    return regions, _options(data) if is_project else {}


def _region(item: Any, path: Path) -> Region:
    known = item if isinstance(item, dict) else {}
    shape, attributes = known.get("shape_attributes"), known.get("region_attributes")
    if not isinstance(shape, dict) or not isinstance(attributes or {}, dict):
        raise InputError(f"{path}: a region needs shape_attributes and region_attributes, got {item!r:.80}")
    return Region(shape, attributes or {})


def _options(data: Mapping[str, Any]) -> Options:
    """What the project calls the values of its attributes; what is malformed is left out."""
    attributes = data.get("_via_attributes")
    of_regions = attributes.get("region") if isinstance(attributes, dict) else None
    found: Options = {}
    for name, attribute in of_regions.items() if isinstance(of_regions, dict) else []:
        options = attribute.get("options") if isinstance(attribute, dict) else None
        if isinstance(options, dict):
            found[name] = {key: text for key, text in options.items() if isinstance(text, str) and text.strip()}
    return found


def _read_csv(path: Path) -> tuple[Regions, Options]:
    regions: Regions = {}
    try:
        rows = csv.DictReader(io.StringIO(read_text(path)))
        if missing := [column for column in COLUMNS if column not in (rows.fieldnames or [])]:
            raise InputError(f"{path}: is no table of the VGG Image Annotator 2, for it has no column {missing[0]}")
        for row in rows:
            shape, attributes = (json.loads(row[f"region_{key}"]) for key in ("shape_attributes", "attributes"))
            of_image = regions.setdefault(row["filename"], [])
            if shape:
                of_image.append(_region({"shape_attributes": shape, "region_attributes": attributes}, path))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of the VGG Image Annotator 2 ({error})") from error
    return regions, {}


def _choose_attribute(regions: Regions, given: str | None, path: Path) -> str | None:
    """The attribute that holds the class; ``None`` where no region has any attribute.

    Raises:
        InputError: it is not clear which, or there is none of the ``given`` name.
    """
    names = sorted({name for of_image in regions.values() for region in of_image for name in region.attributes})
    if given is not None:
        if given not in names:
            raise InputError(f"--attribute {given}: {path} has {', '.join(names) or 'none'}{nearest(given, names)}")
        return given
    likely = [name for name in names if plain(name) in CLASS_NAMES]
    if len(names) > 1 and len(likely) != 1:
        raise InputError(f"{path}: has the attributes {', '.join(names)}; name that of the class with --attribute NAME")
    return next(iter(likely or names), None)


def _class_name(region: Region, attribute: str | None, options: Mapping[str, str]) -> str | None:
    """The class of a region, ``None`` without one; of ticked boxes all that are ticked."""
    value = region.attributes.get(attribute) if attribute else None
    if isinstance(value, dict):
        chosen = [key for key, is_ticked in value.items() if is_ticked in (True, "true")]
    else:
        chosen = [str(value).strip()] if isinstance(value, str | int | float) else []
    return ": ".join(options.get(name, name).strip() for name in chosen) or None


def _objects(regions: Sequence[Region], class_of: ClassOf, dropped: Counter[str]) -> Iterator[Drawn]:
    """The regions that have an area; others are counted."""
    for region in regions:
        kind = region.kind
        if kind not in WITH_AREA:
            dropped[f"{kind}, which has no area"] += 1
            continue
        ring = _ring(kind, region.shape)
        if ring is None:
            dropped[f"{kind} that cannot be read"] += 1
        elif kind == "polyline" and (ring[0] != ring[-1]).any():
            dropped["polyline that is not closed"] += 1
        else:
            yield Drawn(class_of(region), [[ring]])


def _ring(kind: str, shape: Mapping[str, Any]) -> Ring | None:
    if kind in ("polygon", "polyline"):
        x, y = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            return None
        return to_ring(list(zip(x, y, strict=True)))
    numbers = to_numbers(shape.get(key) for key in KEYS[kind])
    if numbers is None:
        return None
    if kind == "rect":
        left, top, width, height = numbers
        return to_rectangle(left, top, left + width, top + height)
    theta = to_numbers([shape.get("theta", 0)])
    return ellipse(numbers[:2], (numbers[2], numbers[-1]), theta[0] if theta else 0.0)
