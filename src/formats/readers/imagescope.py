"""Regions of ImageScope's XML files, which MoNuSAC and MoNuSeg use."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError
from src.formats.imported import Imported, ImportSettings, Source, drop, files_in, read_stored, say_unread, with_readers
from src.formats.places import key_of, keyed, pair
from src.geometry.instances import Instance, intersection, tight, window
from src.geometry.polygons import ellipse, fill

POLYGON, RECTANGLE, ELLIPSE = "0", "1", "2"  # ImageScope's types of region
OTHER_TYPES = {"3": "arrow", "4": "ruler", "5": "pin"}


@dataclass(frozen=True, eq=False)
class Region:
    """A region that was drawn in a layer: the layer's number, its class (lower case), and corners (N, 2) of x and y."""

    layer: int
    class_name: str
    kind: str
    is_hole: bool
    corners: np.ndarray


def import_regions(
    folder: Path,
    suffixes: Sequence[str],
    numbers_of: Callable[[Sequence[Region]], Mapping[str, int]],
    source: Source,
    settings: ImportSettings,
) -> Source:
    """A source with the XML files below a folder and their images.

    Args:
        folder: where they lie.
        suffixes: the endings of images; the first of which there is a file is taken.
        numbers_of: the class ids of the regions of a file, by the names of their classes.
        source: where they are added to.
        settings: how images are read.
    """
    everything = files_in(folder)
    files = {
        suffix: keyed(
            [(key_of(folder, path, path.stem), path) for path in everything if path.suffix.lower() == suffix],
            f"{suffix} file",
        )
        for suffix in (".xml", *suffixes)
    }
    waiting, image_of = dict(files[".xml"]), {}
    for suffix in suffixes:
        found = pair(waiting, files[suffix])
        image_of.update(found)
        waiting = {key: xml for key, xml in waiting.items() if key not in found}
    for xml in waiting.values():
        raise InputError(f"{xml}: has no image of its name ({', '.join(suffixes)})")

    def read(xml: Path, image: Path) -> Imported:
        pixels, regions = read_stored(image, source, settings), read_regions(xml)
        height, width = pixels.shape[:2]
        return Imported(pixels, draw_regions(regions, numbers_of(regions), height, width, source.dropped))

    images = [path for suffix in suffixes for path in files[suffix].values()]
    drop(source, "image without an .xml file", sorted(set(images) - set(image_of.values())))
    say_unread(source, everything, [*files[".xml"].values(), *images])
    return with_readers(
        source, [(PurePath(*key), xml, partial(read, xml, image_of[key])) for key, xml in files[".xml"].items()]
    )


def read_regions(xml: Path) -> list[Region]:
    """All regions of a file."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, parse

    regions = []
    try:
        for layer, annotation in enumerate(parse(xml).getroot().iter("Annotation")):
            attribute = annotation.find("Attributes/Attribute")
            name = (attribute.get("Name", "") if attribute is not None else "").strip().lower()
            for region in annotation.iter("Region"):
                corners = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
                is_hole = region.get("NegativeROA", "0").strip().lower() in ("1", "true")
                kind = region.get("Type", POLYGON).strip()
                regions.append(Region(layer, name, kind, is_hole, np.array(corners).reshape(-1, 2)))
    except (OSError, ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise InputError(
            f"{xml}: cannot be read as ImageScope's annotations ({error or type(error).__name__})"
        ) from error
    if any(not np.isfinite(region.corners).all() for region in regions):
        raise InputError(f"{xml}: holds a vertex that is not a number")
    return regions


def draw_regions(
    regions: Sequence[Region], class_ids: Mapping[str, int], height: int, width: int, dropped: Counter[str]
) -> list[Instance]:
    """The objects of an image; holes are cut out of the regions of their layer. What is left out is counted."""
    drawn: list[tuple[int, Instance]] = []
    holes: list[tuple[int, Instance]] = []
    for region in regions:
        if region.class_name not in class_ids:
            dropped[f"region of unknown class {region.class_name!r}"] += 1
            continue
        if region.kind in OTHER_TYPES:
            dropped[f"{OTHER_TYPES[region.kind]}, which is no region"] += 1
            continue
        outline = _outline(region)
        found = fill(outline, class_ids[region.class_name], height, width) if len(outline) > 2 else None
        if found is None:
            dropped["region without a pixel"] += 1
        else:
            (holes if region.is_hole else drawn).append((region.layer, found))
    cells = [cell for _, cell in drawn]
    for place, inside in _holes_by_region(drawn, holes, dropped).items():
        cells[place] = _without(cells[place], inside)
    left = [cell for cell in cells if cell.mask.any()]
    dropped["region that is nothing but a hole"] += len(cells) - len(left)
    return left


def _holes_by_region(
    drawn: Sequence[tuple[int, Instance]], holes: Sequence[tuple[int, Instance]], dropped: Counter[str]
) -> dict[int, list[Instance]]:
    """Index in ``drawn`` → the holes of that region; both are given with their layers.

    A hole is of the smallest region of its layer that holds all of it: what lies in a hole, or overlaps it, is no part
    of the region around it. A hole that was drawn across an edge is of the region that holds most of it, where that is
    more than half.
    """
    layers = np.array([layer for layer, _ in drawn], int)
    boxes = np.array([(c.top, c.left, c.bottom, c.right) for _, c in drawn], int).reshape(-1, 4)
    areas = np.array([cell.area for _, cell in drawn], int)
    found: dict[int, list[Instance]] = defaultdict(list)
    for layer, hole in holes:
        meets = (boxes[:, 0] < hole.bottom) & (boxes[:, 1] < hole.right)
        meets &= (boxes[:, 2] > hole.top) & (boxes[:, 3] > hole.left) & (layers == layer)
        near = np.flatnonzero(meets)
        shared = np.array([intersection(drawn[place][1], hole) for place in near.tolist()], int)
        if 2 * shared.max(initial=0) <= hole.area:
            dropped["hole outside of every region"] += 1
            continue
        most = near[shared == shared.max()]
        found[int(most[areas[most].argmin()])].append(hole)
    return found


def _outline(region: Region) -> np.ndarray:
    """The corners of a region as a polygon; a rectangle or ellipse may be given by its box."""
    corners = region.corners
    if region.kind == RECTANGLE and len(corners) == 2:
        (left, top), (right, bottom) = corners
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if region.kind == ELLIPSE and 2 <= len(corners) <= 4:
        low, high = corners.min(axis=0), corners.max(axis=0)
        return ellipse((low + high) / 2, (high - low) / 2)
    return corners


def _without(cell: Instance, holes: Sequence[Instance]) -> Instance:
    """A cell less the pixels of its holes, which may leave none."""
    mask = cell.mask.copy()
    rest = replace(cell, mask=mask)
    for hole in holes:
        box = (
            max(cell.top, hole.top),
            max(cell.left, hole.left),
            min(cell.bottom, hole.bottom),
            min(cell.right, hole.right),
        )
        window(rest, *box)[window(hole, *box)] = False
    return tight(cell.class_id, cell.score, cell.top, cell.left, mask) or rest
