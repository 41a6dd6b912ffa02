"""Objects that were drawn with an annotation tool: polygons and masks, with the names of their classes."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels, max_pixels
from src.common.values import integer
from src.data.classes import ANY_CLASS, UNKNOWN_CLASS, CellClass, name_classes, parse_classes, to_json
from src.evaluation.coco_polygons import ToldSize
from src.formats.imported import Source
from src.geometry.instances import Instance, clip, union
from src.geometry.polygons import Ring, fill_even_odd

MOST_CLASSES = 1000  # more are no classes, but names of single cells
MOST_COVER = 10  # of an image's pixels, in the boxes around its objects, beside the limit of pixels


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object: what its ``polygons`` and its ``masks`` cover together.

    Of a polygon there is the outer ring, then its holes, in px where the first pixel reaches from (0, 0) to (1, 1). An
    object whose ``class_name`` is ``None`` is not classified; one that ``is_ignored`` is a region of no class.
    """

    class_name: str | None
    polygons: Sequence[Sequence[Ring]] = ()
    masks: Sequence[Instance] = ()
    is_ignored: bool = False


def to_ring(points: Any) -> Ring | None:
    """Corners (N, 2) of points as JSON holds them, of which further coordinates are left out; ``None`` if malformed."""
    try:
        ring = np.array(points, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if ring.ndim != 2 or len(ring) < 3 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        return None
    return ring[:, :2]


def to_numbers(values: Iterable[Any]) -> list[float] | None:
    """Finite numbers of JSON; ``None`` where one is missing or is no number."""
    try:
        found = [float(value) for value in values]
    except (ValueError, TypeError, OverflowError):
        return None
    return found if np.isfinite(found).all() else None


def to_size(height: Any, width: Any, path: Path) -> tuple[int, int]:
    """The (H, W) of an image as JSON holds them.

    Raises:
        InputError: they are no positive integers, or more pixels than are read.
    """
    sides = (integer(height), integer(width))
    if any(type(side) is not int or side < 1 for side in sides):
        raise InputError(f"{path}: the height and the width of its image must be positive integers")
    check_pixels(path, *sides)
    return sides


def to_rectangle(left: float, top: float, right: float, bottom: float) -> Ring:
    """The corners of a rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def number_classes(
    names: Iterable[str], where: Path, colors: Mapping[str, str] | None = None, first: Sequence[CellClass] = ()
) -> tuple[CellClass, ...]:
    """The classes 1..K: those that come ``first``, then the others of these names in their order.

    Classes without one of the ``colors``, ``#rrggbb`` by name, have one of ours. Without any name there is one class,
    ``cell``.

    Raises:
        InputError: there are more than ``MOST_CLASSES``.
    """
    known = [cell_class.name for cell_class in first]
    others = [name for name in dict.fromkeys(names) if name not in known]
    if len(known) + len(others) > MOST_CLASSES:
        raise InputError(
            f"{where}: has {len(known) + len(others)} classes, such as {[*known, *others][0]!r}; are they single cells?"
        )
    given = {**(colors or {}), **{cell_class.name: cell_class.color for cell_class in first}}
    entries = to_json(name_classes([*known, *others] or ["cell"]))
    return parse_classes(
        [{**entry, "color": given.get(entry["name"], entry["color"])} for entry in entries], str(where)
    )


def class_ids(classes: Sequence[CellClass], is_classified: bool, source: Source) -> dict[str | None, int]:
    """The class id of each name, and of ``None``; where nothing at all is classified, all are of the one class."""
    if not is_classified:
        source.lines.append(f"nothing is classified: all cells are of class {classes[0].name}")
    return {None: UNKNOWN_CLASS if is_classified else 1, **{known.name: known.id for known in classes}}


def hex_color(rgb: Any) -> str | None:
    """``#rrggbb`` of three values in 0..255, or of such a text; ``None`` of anything else."""
    if isinstance(rgb, str) and re.fullmatch("#[0-9a-fA-F]{6}", rgb):
        return rgb.lower()
    if not isinstance(rgb, list) or len(rgb) != 3 or any(type(v) is not int or not 0 <= v <= 255 for v in rgb):
        return None
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def told_size(objects: Sequence[Drawn]) -> ToldSize:
    """What the polygons tell of the size of their image."""
    rings = [ring for drawn in objects for rings in drawn.polygons for ring in rings]
    x, y = np.concatenate(rings).max(axis=0) if rings else (0.0, 0.0)
    return ToldSize(furthest=(float(y), float(x)))


def draw(
    objects: Iterable[Drawn],
    ids: Mapping[str | None, int],
    size: tuple[int, int],
    where: Path,
    dropped: Counter[str],
) -> Iterator[Instance | None]:
    """Each object in an image of ``size``, cut off at its border; ``None`` for one without a pixel, which is counted.

    Pixels belong to a polygon by the even-odd rule. Objects whose box holds more pixels than an image that is read are
    counted, too: these are no cells, but regions of a slide.

    Raises:
        InputError: the objects cover the image many times, which would take the memory of many images.
    """
    room = MOST_COVER * size[0] * size[1] + max_pixels()
    for drawn in objects:
        class_id = ANY_CLASS if drawn.is_ignored else ids[drawn.class_name]
        if _pixels_around(drawn, size) > max_pixels():
            dropped["object too large for a cell (see --max-pixels)"] += 1
            yield None
            continue
        parts: list[Instance] = []
        reason = "object without a pixel in its image"
        try:
            for part in _parts(drawn, class_id, size):
                room -= part.mask.size
                if room < 0:
                    raise InputError(f"{where}: its objects cover the image of {size[0]} x {size[1]} px many times")
                parts.append(part)
        except ValueError:
            parts, reason = [], "object whose outline is too long for a cell"
        dropped[reason] += not parts
        yield replace(union(parts), class_id=class_id) if parts else None


def _pixels_around(drawn: Drawn, size: tuple[int, int]) -> float:
    """The pixels of an image in the box around an object's polygons."""
    rings = [ring for rings in drawn.polygons for ring in rings]
    corners = np.concatenate(rings).clip(0, size[::-1]) if rings else np.zeros((1, 2))
    return float(np.prod(corners.max(axis=0) - corners.min(axis=0)))


def _parts(drawn: Drawn, class_id: int, size: tuple[int, int]) -> Iterator[Instance]:
    """What the polygons and the masks of an object cover inside the image."""
    height, width = size
    for rings in drawn.polygons:
        if filled := fill_even_odd(rings, class_id, height, width):
            yield filled
    for mask in drawn.masks:
        if clipped := clip(mask, 0, 0, height, width):
            yield clipped
