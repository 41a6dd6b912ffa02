"""Supervisely's projects."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from src.common.errors import InputError
from src.common.files import read_json, unpack
from src.common.values import plain
from src.data.classes import CellClass
from src.data.names import IMAGE_SUFFIX
from src.data.pictures import open_picture
from src.formats.drawn import Drawn, draw, hex_color, number_classes, to_numbers, to_size
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    drop,
    files_in,
    read_matching,
    say_unread,
    with_readers,
)
from src.formats.places import Places
from src.geometry.instances import Instance, tight
from src.geometry.polygons import FAR

META = "meta.json"
PNG_OVERHEAD = 1 << 16  # bytes of a picture beside its pixels


def import_supervisely(path: Path, settings: ImportSettings) -> Source:
    """A project: ``meta.json`` and, in each data set, ``ann/x.png.json`` for ``img/x.png``.

    Classes are those of ``meta.json`` in its order. Points of polygons and rectangles are pixels, which belong to the
    object; those of holes belong to the hole.
    """
    everything = files_in(path) if path.is_dir() else []
    files = [file for file in everything if plain(file.parent.name) == "ann" and file.suffix.lower() == ".json"]
    meta = next((place for place in (path / META, path.parent / META) if path.is_dir() and place.is_file()), None)
    if meta is None:
        raise InputError(f"{path / META}: no such file; IN is the folder of a project")
    classes = _read_classes(meta)
    ids: Mapping[str | None, int] = {known.name: known.id for known in classes}
    source = Source({}, classes)
    places = Places()
    images = {file: _find_image(file, places) for file in files}

    def read(file: Path, image: Path) -> Imported:
        data = read_json(file)
        size = _size(data, file)
        pixels = read_matching(image, file, size, source, settings)
        objects = _objects(data.get("objects"), ids, size, file, source.dropped)
        return Imported(pixels, [cell for cell in draw(objects, ids, size, file, source.dropped) if cell])

    others = {file for file in everything if plain(file.parent.name) == "img" and IMAGE_SUFFIX.search(file.name)}
    drop(source, "image without annotations", sorted(others - set(images.values())))
    say_unread(source, everything, [meta, *files, *others])
    found = []
    for file, image in images.items():
        place = image.relative_to(path)
        found.append((PurePath(*place.parts[:-2], place.name), file, partial(read, file, image)))
    return with_readers(source, found)


def _read_classes(meta: Path) -> tuple[CellClass, ...]:
    data = read_json(meta)
    entries = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("title"), str) for e in entries
    ):
        raise InputError(f"{meta}: expected a JSON object with classes, each with a title")
    if not entries:
        raise InputError(f"{meta}: has no classes")
    names = list(dict.fromkeys(entry["title"].strip() for entry in entries))
    colors = {entry["title"].strip(): color for entry in entries if (color := hex_color(entry.get("color")))}
    return number_classes(names, meta, colors)


def _find_image(file: Path, places: Places) -> Path:
    """``img/x.png`` of ``ann/x.png.json``."""
    name = file.name[: -len(".json")]
    found = places.find(file.parent.parent, ("img", name))
    if found is None:
        raise InputError(f"{file}: has no image ({file.parent.parent / 'img' / name})")
    return found


def _size(data: Any, file: Path) -> tuple[int, int]:
    size = data.get("size") if isinstance(data, dict) else None
    known = size if isinstance(size, dict) else {}
    return to_size(known.get("height"), known.get("width"), file)


def _objects(
    entries: Any, ids: Mapping[str | None, int], size: tuple[int, int], file: Path, dropped: Counter[str]
) -> Iterator[Drawn]:
    """The objects that have an area; others, and those of classes that ``meta.json`` does not name, are counted."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{file}: expected a list of objects")
    for entry in entries:
        name = entry.get("classTitle")
        name = name.strip() if isinstance(name, str) else name
        kind = entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon")
        if not isinstance(name, str) or name not in ids:
            dropped[f"object of class {name!r}, which meta.json does not name"] += 1
        elif kind not in ("polygon", "rectangle", "bitmap"):
            dropped[f"{kind}, which is not read"] += 1
        elif mask := _bitmap(entry, size, file) if kind == "bitmap" else _points(entry, kind, size):
            yield Drawn(name, masks=[mask])
        else:
            dropped[f"{kind} without a pixel in its image"] += 1


def _points(entry: Mapping[str, Any], kind: str, size: tuple[int, int]) -> Instance | None:
    """The pixels of a polygon with its holes, or of a rectangle, inside the image; ``None`` without any."""
    points = entry.get("points")
    exterior = _pixels(points.get("exterior")) if isinstance(points, dict) else None
    if exterior is None or len(exterior) < (2 if kind == "rectangle" else 3):
        return None
    if kind == "rectangle":
        (left, top), (right, bottom) = exterior.min(axis=0), exterior.max(axis=0)
        exterior = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    low = exterior.min(axis=0).clip(0, None)
    high = np.minimum(exterior.max(axis=0) + 1, size[::-1])
    if (low >= high).any():
        return None
    mask = np.zeros((high - low)[::-1], np.uint8)
    cv2.fillPoly(mask, [exterior - low], 1)
    holes = points.get("interior") if kind == "polygon" and isinstance(points, dict) else None
    for hole in map(_pixels, holes if isinstance(holes, list) else []):
        if hole is not None:
            cv2.fillPoly(mask, [hole - low], 0)
    return tight(1, 1.0, int(low[1]), int(low[0]), mask > 0)


def _pixels(points: Any) -> np.ndarray | None:
    """Points (N, 2) as whole pixels, as int32; ``None`` where they are malformed."""
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    flat = to_numbers(value for point in points for value in point)
    if not flat:
        return None
    return np.floor(np.array(flat).clip(-FAR, FAR)).astype(np.int32).reshape(-1, 2)


def _bitmap(entry: Mapping[str, Any], size: tuple[int, int], file: Path) -> Instance | None:
    """A mask that is a PNG, compressed by zlib, in base64; its upper left pixel lies at ``origin``."""
    bitmap = entry.get("bitmap")
    origin = (
        to_numbers(bitmap["origin"]) if isinstance(bitmap, dict) and isinstance(bitmap.get("origin"), list) else None
    )
    if not isinstance(bitmap, dict) or origin is None or len(origin) != 2:
        return None
    try:
        png = unpack(base64.b64decode(bitmap["data"]), 4 * size[0] * size[1] + PNG_OVERHEAD)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{file}: holds a bitmap that cannot be unpacked ({error})") from error
    picture = open_picture(f"{file}: a bitmap", png)
    has_alpha = "A" in picture.getbands() or "transparency" in picture.info
    pixels = np.asarray(picture.convert("RGBA"))[..., 3] if has_alpha else np.asarray(picture.convert("L"))
    left, top = (int(np.clip(value, -FAR, FAR)) for value in origin)
    return tight(1, 1.0, top, left, pixels > 0)
