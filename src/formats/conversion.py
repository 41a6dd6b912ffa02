"""Import images with their cells from other formats, and export results to other formats."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError, counted, nearest_path
from src.common.files import write_json
from src.common.progress import ProgressBar
from src.data.classes import ANY_CLASS, UNKNOWN_CLASS, CellClass, to_json
from src.data.id_map import ImageId
from src.data.intensity import small_range_warnings
from src.data.orientation import turned_warning
from src.data.splits import make_split
from src.data.tiff import write_image, write_mask
from src.evaluation.probabilities import add_probabilities
from src.evaluation.results import cells_by_image, check_results, read_results
from src.formats.exported import ExportSettings
from src.formats.exporters import COMPRESSED, EXPORTERS, WITH_MEASUREMENTS
from src.formats.imported import Imported, ImportSettings, Source
from src.formats.importers import IMPORTERS
from src.formats.writers.coco import export_coco
from src.geometry.instances import clip, resolve_overlaps, to_label_map
from src.geometry.tiles import Tile

NAMES = {ANY_CLASS: "ambiguous.tif", UNKNOWN_CLASS: "unknown.tif"}  # of masks; others have their class's number
MIN_FRAGMENT = 12  # px; smaller pieces of cells that a rectangle's edge cuts are dropped
# Settings that act on some formats alone, and on which.
ONLY_WITH = {
    "intensity": IMPORTERS.keys() - {"pannuke"},
    "orientation": IMPORTERS.keys() - {"pannuke", "monusac", "monuseg"},
    "split_pieces": {"labels", "pairs", "dsb2018"},
    "crowds": {"coco"},
    "images": {"coco", "geojson", "labelme", "via"},
    "nuclei": {"geojson"},
    "attribute": {"via"},
    "image_pattern": {"pairs"},
    "mask_pattern": {"pairs"},
    "types": {"mat"},
    "image_size": {"geojson"},
}
FEW_FORMATS = 5  # up to which a message lists them
CUTS = (0.3, 0.7)  # share of a side at which rectangles are cut, at random between


def write_imported(folder: Path, imported: Imported, class_count: int) -> Counter[str]:
    """Write an image and its masks as ``image.tif`` and ``class1.tif …``; regions to ignore as
    ``ambiguous.tif``, cells whose class is not known as ``unknown.tif``.

    A mask holds one id per pixel: where cells of a class overlap, the later one wins. A class without cells has no
    file.

    Returns:
        Counts of what was kept, and of cells that others of their class cover, in part or whole.
    """
    counts: Counter[str] = Counter()
    height, width = imported.image.shape[:2]
    write_image(folder / "image.tif", imported.image)
    for class_id in (*range(class_count + 1), UNKNOWN_CLASS):
        cells = [replace(cell, score=1.0) for cell in imported.instances if cell.class_id == class_id]
        if not cells:
            continue
        label_map = to_label_map(cells, height, width)
        write_mask(folder / NAMES.get(class_id, f"class{class_id}.tif"), label_map)
        left = np.bincount(label_map.ravel(), minlength=len(cells) + 1)[1:]
        counts["ambiguous regions" if class_id == ANY_CLASS else "cells"] += int(np.count_nonzero(left))
        counts["of no class"] += int(np.count_nonzero(left)) * (class_id == UNKNOWN_CLASS)
        counts["hidden"] += int(np.count_nonzero(left == 0))
        counts["covered in part"] += int(np.count_nonzero((left > 0) & (left < [cell.area for cell in cells])))
    return counts


def rectangles(height: int, width: int, rng: np.random.Generator) -> list[Tile]:
    """Four rectangles that cover an image: a vertical cut and a horizontal cut of each half, all at random places."""
    column = round(width * rng.uniform(*CUTS))
    tiles = []
    for left, right in ((0, column), (column, width)):
        row = round(height * rng.uniform(*CUTS))
        tiles += [Tile(0, left, row, right - left), Tile(row, left, height - row, right - left)]
    return tiles


def cut(name: str, imported: Imported, seed: int) -> Iterator[tuple[str, Imported, int]]:
    """The rectangles of an image as ``<name>_q0 … _q3``, and how many fragments each leaves out."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))  # independent of the other images
    height, width = imported.image.shape[:2]
    for number, tile in enumerate(rectangles(height, width, rng)):
        window = (tile.top, tile.left, tile.bottom, tile.right)
        seen = [part for cell in imported.instances if (part := clip(cell, *window))]
        kept = [replace(p, top=p.top - tile.top, left=p.left - tile.left) for p in seen if p.area >= MIN_FRAGMENT]
        image = imported.image[tile.top : tile.bottom, tile.left : tile.right]
        yield f"{name}_q{number}", Imported(image, kept), len(seen) - len(kept)


def open_source(kind: str, path: Path, settings: ImportSettings) -> Source:
    """Find what is to be imported."""
    check_import(kind, path, settings)
    source = IMPORTERS[kind](path, settings)
    if not source.readers:
        raise nothing_in(path, kind)
    return source


def nothing_in(path: Path, kind: str) -> InputError:
    """The error of a place without files in a format."""
    return InputError(f"{path}: holds nothing in the format {kind} (see --help)")


def check_import(kind: str, path: Path, settings: ImportSettings) -> None:
    """Refuse flags that have no effect with a format, and places that are not there."""
    for name, kinds in ONLY_WITH.items():
        if kind not in kinds and getattr(settings, name) != getattr(ImportSettings(), name):
            raise InputError(f"--{name.replace('_', '-')}: has no effect with --from {kind}{_only_with(kinds)}")
    for place in filter(None, (path, settings.images, settings.types)):
        require_path(place)


def _only_with(kinds: Collection[str]) -> str:
    """The formats with which a flag has an effect, where they are few."""
    return f", only with {', '.join(sorted(kinds))}" if len(kinds) <= FEW_FORMATS else ""


def require_path(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder{nearest_path(path)}")


def convert_in(path: Path, source: Source, out: Path, seed: int | None) -> list[str]:
    """Import the data set of ``path``; with a ``seed`` cut into rectangles, with a split by source image.

    Returns:
        Lines that sum it up.

    Raises:
        InputError: no image holds a cell; it counts what was dropped and why.
    """
    counts: Counter[str] = Counter()
    groups, class_counts, lines = {}, {}, []
    for name in ProgressBar(source.readers, "convert"):
        imported = source.readers[name]()
        counts["without an object"] += not imported.instances
        parts = [(name, imported, 0)] if seed is None else cut(name, imported, seed)
        for part, piece, fragments in parts:
            counts += write_imported(out / part, piece, len(source.classes))
            counts["fragments"] += fragments
            groups[part] = name
            found = [cell.class_id for cell in piece.instances if cell.class_id != UNKNOWN_CLASS]
            class_counts[part] = np.bincount(found, minlength=len(source.classes) + 1)[1:]
    if not counts["cells"]:
        raise InputError(
            f"{path}: holds no cells in its {counted(len(groups), 'image')}{_what_instead(source, counts)}"
        )
    write_json(out / "classes.json", to_json(source.classes), indent=1)
    if seed is not None:
        write_json(out / "groups.json", groups, indent=1)
        split, note = make_split(list(groups), class_counts, groups, 0.2, seed)
        write_json(out / "split.json", split, indent=1)
        lines.append(note)
    names = ", ".join(f"{c.id} {c.name}" for c in source.classes)
    last = f"{counted(len(groups), 'image')}, {counted(counts['cells'], 'cell')}; classes {names}"
    return [*lines, *what_was_found(source, counts), last]


def what_was_found(source: Source, counts: Counter[str]) -> list[str]:
    """Lines about what was dropped, what the user should look at, and cells that are not as the others."""
    dropped = source.dropped + Counter({
        "hidden by another cell of the class": counts["hidden"],
        f"fragment under {MIN_FRAGMENT} px": counts["fragments"],
    })  # fmt: skip
    lines = [f"dropped: {count} x {reason}" for reason, count in sorted(dropped.items()) if count]
    lines += source.lines
    if source.turned:
        lines.append(turned_warning(source.turned[0], len(source.turned) - 1))
    lines += small_range_warnings(source.levels)
    lines += [f"look at: {count} x {what}" for what, count in sorted(source.notes.items()) if count]
    if counts["ambiguous regions"]:
        lines.append(f"kept apart: {counted(counts['ambiguous regions'], 'ambiguous region')}, in ambiguous.tif")
    if counts["of no class"]:
        lines.append(f"without a class: {counted(counts['of no class'], 'cell')}, in unknown.tif")
    if counts["covered in part"]:
        lines.append(f"cells covered in part by others of their class: {counts['covered in part']}")
    return lines


def _what_instead(source: Source, counts: Counter[str]) -> str:
    """What there was in a source without cells: what was dropped, regions to ignore, images without any object."""
    found = [f"{count} x {reason}" for reason, count in sorted(source.dropped.items()) if count]
    said = [f"; dropped: {', '.join(found)}"] if found else []
    if counts["ambiguous regions"]:
        said.append(f"; {counted(counts['ambiguous regions'], 'region')} to ignore")
    if counts["without an object"]:
        said.append(f"; {counted(counts['without an object'], 'image')} whose labels hold no object")
    return "".join([*said, *(f"; {line}" for line in source.lines)])


def check_export(kind: str, settings: ExportSettings) -> None:
    """Refuse flags that have no effect with a format."""
    for flag, given, kinds in (
        ("--mpp", settings.mpp is not None, WITH_MEASUREMENTS),
        ("--gzip", settings.gzip, COMPRESSED),
    ):
        if given and kind not in kinds:
            raise InputError(f"{flag}: has no effect with --to {kind}; it is for {', '.join(kinds)}")


def convert_out(
    path: Path, out: Path, kind: str, images: Sequence[ImageId], classes: Sequence[CellClass], settings: ExportSettings
) -> str:
    """Export the detections of a results file from a score up, without overlaps but for COCO; lines that sum it up."""
    check_export(kind, settings)
    entries = read_results(path)
    notes = add_probabilities(path, entries, len(classes))
    check_results(entries, images, len(classes), str(path))
    sure = [entry for entry in entries if entry["score"] >= settings.min_score]
    covered, number = 0, len(sure)
    if kind == "coco":
        cells = cells_by_image(sure)
        export_coco(out, images, cells, classes)
        number = sum(map(len, cells.values()))
    else:
        covered, number = _export(out, kind, images, sure, classes, settings)
    score = f"score >= {settings.min_score:g}{settings.score_source and f', {settings.score_source}'}"
    lines = [f"wrote {out}: {number} of {len(entries)} detections ({score}) in {counted(len(images), 'image')}"]
    if number < len(sure):
        lines.insert(0, f"left out: {len(sure) - number} of which others with higher scores cover more than half")
    if covered:
        lines.insert(0, f"{covered} cells are covered in part by others with higher scores")
    return "\n".join([*notes, *lines])


def _export(
    out: Path,
    kind: str,
    images: Sequence[ImageId],
    entries: Sequence[dict[str, Any]],
    classes: Sequence[CellClass],
    settings: ExportSettings,
) -> tuple[int, int]:
    """Write image by image; returns how many cells are covered in part, and how many were written."""
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        of_image[entry["image_id"]].append(entry)
    covered = number = 0
    with EXPORTERS[kind](out, {cell_class.id: cell_class for cell_class in classes}, settings) as write:
        for image in ProgressBar(images, "convert"):
            found = cells_by_image(of_image[image.id])[image.id]  # decoded for one image at a time
            cells = resolve_overlaps(found, image.height, image.width)
            covered += write(image, cells)
            number += len(cells)
    return covered, number
