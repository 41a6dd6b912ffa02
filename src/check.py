"""Check a data folder: read every file, list all that is wrong, say what the data are like and what they ask for."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.advice import DEFAULT_ANCHORS, Advice, ImageCells, advise, best_anchor_ious
from src.cache import prepare
from src.check_page import write_html
from src.classes import CellClass, classes_of_data
from src.command import Parser
from src.errors import InputError, run
from src.facts import CellFacts, diameters_of, facts_of, twins
from src.manifest import NAME, verify, write_manifest
from src.records import AMBIGUOUS_NAME, IMAGE_NAME, MASK_NAME, find_masks, image_folders, read_record
from src.settings import parse_numbers
from src.stain import decide_channel_order
from src.tiff import MAX_PIXELS, read_image, read_mask


def check(folders: Iterable[Path], num_classes: int, max_pixels: int = MAX_PIXELS) -> tuple[list[CellFacts], list[str]]:
    """Decode every image with its masks; the facts of those that can be used, and a line for all that is wrong."""
    facts: list[CellFacts] = []
    problems: list[str] = []
    for folder in folders:
        try:
            prepared = prepare(read_record(folder, num_classes, max_pixels=max_pixels), "full", 1.0, max_pixels)
            facts.append(facts_of(folder.name, prepared))
        except InputError as error:
            faults = faults_of_files(folder, num_classes, max_pixels)
            problems += faults if str(error) in faults else [*faults, str(error)]
        problems += [f"{path}: is not read; expected image.tif, class1.tif, …" for path in strangers(folder)]
    return facts, problems


def faults_of_files(folder: Path, num_classes: int, max_pixels: int) -> list[str]:
    """What is wrong with each file of an image's folder, taken by itself; of masks also against a sound image."""
    faults, size = [], None
    for path in sorted(folder.iterdir(), key=lambda path: (not IMAGE_NAME.fullmatch(path.name), path.name)):
        try:
            if IMAGE_NAME.fullmatch(path.name):
                size = read_image(path, max_pixels=max_pixels).shape[:2]
            elif MASK_NAME.fullmatch(path.name):
                find_masks([path], num_classes)
                found = read_mask(path, max_pixels).shape
                if size and found != size:
                    faults.append(f"{path}: is {found[0]} x {found[1]} px, but its image is {size[0]} x {size[1]} px")
        except InputError as error:
            faults.append(str(error))
    return faults


def strangers(folder: Path) -> list[Path]:
    """Files of an image's folder that nothing reads, such as a mask of a mistyped name."""
    known = (IMAGE_NAME, MASK_NAME, AMBIGUOUS_NAME)
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and not any(pattern.fullmatch(path.name) for pattern in known)
    ]


def class_rows(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> list[tuple[str, ...]]:
    """A row a class, below a row of headings; sizes in px are diameters of circles of equal area."""
    rows: list[tuple[str, ...]] = [
        ("class", "cells", "images", "per image", "median px", "10-90 % px", "median px²", "10-90 % px²", "at border")
    ]
    for cell_class in classes:
        diameters = diameters_of(facts, cell_class.id)
        border = sum(int(image.at_border[image.categories == cell_class.id].sum()) for image in facts)
        counts = [int((image.categories == cell_class.id).sum()) for image in facts]
        spread = (*_median_and_range(diameters), *_median_and_range(np.pi * diameters**2 / 4))
        name, images = f"{cell_class.id} {cell_class.name}", sum(map(bool, counts))
        rows.append((name, f"{sum(counts):,}", f"{images}", f"{np.mean(counts):.1f}", *spread, f"{border:,}"))
    return rows


def _median_and_range(values: np.ndarray) -> tuple[str, str]:
    """The median, and the 10 % and 90 % quantiles; ``-`` without any."""
    if not len(values):
        return "-", "-"
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{middle:.0f}", f"{low:.0f}-{high:.0f}"


def notes_on(facts: Sequence[CellFacts], classes: Sequence[CellClass], advice: Advice | None) -> list[str]:
    """What else is worth knowing, a line each."""
    sides = [side for image in facts for side in (image.height, image.width)]
    counts = [len(image.categories) for image in facts]
    order, agreeing = decide_channel_order(image.contrast for image in facts)
    names = {cell_class.id: cell_class.name for cell_class in classes}
    lines = [
        f"{len(facts)} images of {min(sides)} to {max(sides)} px a side, {min(counts)} to {max(counts)} cells each",
        f"channel order by the stain: {order} ({agreeing:.0%} of the images agree)",
    ]
    overlaps = sum((image.overlaps for image in facts), Counter[tuple[int, int]]())
    lines += [
        f"pairs of cells that share pixels, {names[a]} with {names[b]}: {count:,}"
        for (a, b), count in sorted(overlaps.items())
    ] or ["no cells of different classes share pixels"]
    if empty := [image.name for image in facts if not len(image.categories)]:
        lines.append(f"{len(empty)} images have no cells: {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}")
    lines += [f"{a} and {b} show nearly the same; keep them in one part of a split" for a, b in twins(facts)]
    if advice:
        lines.append(f"a tile of {advice.tile_size} px at scale {advice.scale:g} holds up to {advice.most_cells} cells")
        lines += notes_on_anchors(np.concatenate([image.boxes for image in facts]) * advice.scale, advice.anchors)
    return lines


def notes_on_anchors(boxes: np.ndarray, advised: str) -> list[str]:
    """How well anchors fit the cells ``boxes`` (N, 4): those advised, twice as large ones, and torchvision's."""
    sides = parse_numbers(advised, "--anchors")
    lines = []
    for choice in (sides, tuple(2 * side for side in sides), DEFAULT_ANCHORS):
        ious = best_anchor_ious(boxes, choice)
        shares = ", ".join(f"{np.mean(ious >= iou):.0%} at {iou}" for iou in (0.5, 0.7))
        lines.append(f"cells that meet an anchor of {','.join(f'{side:g}' for side in choice)} by IoU: {shares}")
    return lines


def describe(rows: Sequence[tuple[str, ...]], notes: Sequence[str], advice: Advice | None) -> str:
    """The table, the notes and the flags as text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in range(1, len(row)))
        for row in rows
    ]
    return "\n".join([*lines, *notes, *([f"flags that suit: {advice.flags()}"] if advice else [])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it. Exit code 1 where something is wrong with the data."""
    flags = _parser().parse_args(arguments)
    folder = Path(flags.folder)
    classes = classes_of_data(flags.classes, folder)

    def progress(paths: list[Path]) -> Iterable[Path]:
        return tqdm(paths, "digest", unit="file", leave=False, disable=None)

    folders = image_folders(folder)
    changed = verify(folder, progress) if flags.verify else []
    bar = tqdm(folders, "check", unit="image", leave=False, disable=None)
    facts, problems = check(bar, len(classes), flags.max_pixels)
    problems += changed
    images = [ImageCells(image.height, image.width, image.boxes) for image in facts]
    advice = advise(images) if any(len(image.categories) for image in facts) else None
    if facts:
        rows, notes = class_rows(facts, classes), notes_on(facts, classes, advice)
        print(describe(rows, notes, advice))
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{folder}: {f'{len(problems)} problems' if problems else 'nothing is wrong'}")
    if flags.write_manifest:
        print(f"wrote {folder / NAME}: {write_manifest(folder, progress)} files")
    if flags.html and facts:
        advised = advice.flags() if advice else "no cells, no advice"
        content = {"rows": rows, "notes": notes, "flags": advised, "problems": problems}
        write_html(Path(flags.html), folder, facts, classes, flags.max_pixels, content)
    if flags.html:
        print(f"wrote {flags.html}" if facts else f"{flags.html}: not written, because no image could be read")
    if problems:
        sys.exit(1)


def _parser() -> Parser:
    example = "python -m src.check data/train --html check.html\n  python -m src.check data/train --write-manifest"
    parser = Parser(__doc__, example, "python -m src.check")
    parser.add_argument("folder", metavar="DIR", help="training folder: <name>/image.tif with class1.tif … classK.tif")
    parser.add_classes("in DIR")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots and a contact sheet, too")
    parser.add_max_pixels()
    manifest = parser.add_mutually_exclusive_group()
    manifest.add_argument("--write-manifest", action="store_true", help="keep every file's digest in DIR/manifest.json")
    manifest.add_argument("--verify", action="store_true", help="compare every file with DIR/manifest.json")
    return parser


if __name__ == "__main__":
    run(main)
