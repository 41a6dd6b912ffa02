"""Check a data folder: read every file, list all that is wrong, and say what the data are like."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.cache import PreparedImage, prepare
from src.classes import HOMEWORK_CLASSES, CellClass, load_classes
from src.command import Parser
from src.errors import InputError, run
from src.manifest import verify, write_manifest
from src.records import image_folders, read_record
from src.stain import decide_channel_order, red_contrast
from src.tiff import MAX_PIXELS


@dataclass(frozen=True)
class CellFacts:
    """The cells of one image: ``categories`` (N,), ``areas`` (N,) in px, ``at_border`` (N,), and the image's size."""

    name: str
    height: int
    width: int
    categories: np.ndarray
    areas: np.ndarray
    at_border: np.ndarray
    layers: int
    contrast: float | None


def facts_of(name: str, prepared: PreparedImage) -> CellFacts:
    """What is counted of an image."""
    height, width = prepared.image.shape[:2]
    seen = np.flatnonzero(prepared.areas > 0)
    boxes = prepared.boxes[seen]
    at_border = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2] == width) | (boxes[:, 3] == height)
    return CellFacts(
        name,
        height,
        width,
        prepared.categories[seen],
        prepared.areas[seen],
        at_border,
        prepared.label_map.shape[-1],
        red_contrast(prepared.image),
    )


def check(folders: Iterable[Path], num_classes: int, max_pixels: int = MAX_PIXELS) -> tuple[list[CellFacts], list[str]]:
    """Decode every image with its masks; the facts of those that can be used, and a line for each that cannot."""
    facts, problems = [], []
    for folder in folders:
        try:
            prepared = prepare(read_record(folder, num_classes, max_pixels=max_pixels), "full", 1.0, max_pixels)
        except InputError as error:
            problems.append(str(error))
            continue
        facts.append(facts_of(folder.name, prepared))
        if not len(facts[-1].categories):
            problems.append(f"{folder}: has no cells")
    return facts, problems


def describe(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> str:
    """A table of the classes and what else is worth knowing, as text."""
    rows = [("class", "cells", "images", "median px", "10-90 % px", "at border")]
    for cell_class in classes:
        own = [(image.categories == cell_class.id, image) for image in facts]
        areas = np.concatenate([image.areas[mine] for mine, image in own]) if own else np.zeros(0)
        border = sum(int(image.at_border[mine].sum()) for mine, image in own)
        sizes = [f"{2 * np.sqrt(np.quantile(areas, q) / np.pi):.0f}" if len(areas) else "-" for q in (0.5, 0.1, 0.9)]
        images = sum(bool(mine.any()) for mine, _ in own)
        name = f"{cell_class.id} {cell_class.name}"
        rows.append((name, f"{len(areas):,}", f"{images}", sizes[0], f"{sizes[1]}-{sizes[2]}", f"{border:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in range(1, len(row)))
        for row in rows
    ]
    sides = [side for image in facts for side in (image.height, image.width)]
    counts = [len(image.categories) for image in facts]
    order, agreeing = decide_channel_order(image.contrast for image in facts)
    overlapping = sum(image.layers > 1 for image in facts)
    return "\n".join(
        [
            *lines,
            f"{len(facts)} images of {min(sides)} to {max(sides)} px a side, {min(counts)} to {max(counts)} cells each;"
            f" cells overlap in {overlapping}",
            f"channel order by the stain: {order} ({agreeing:.0%} of the images agree); px are diameters of equal area",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it. Exit code 1 where something is wrong with the data."""
    flags = _parser().parse_args(arguments)
    folder = Path(flags.folder)
    classes = load_classes(flags.classes) if flags.classes else HOMEWORK_CLASSES
    folders = image_folders(folder)
    facts, problems = check(
        tqdm(folders, "check", unit="image", leave=False, disable=None), len(classes), flags.max_pixels
    )
    if facts:
        print(describe(facts, classes))

    def progress(paths: list[Path]) -> Iterable[Path]:
        return tqdm(paths, "digest", unit="file", leave=False, disable=None)

    if flags.verify:
        problems += verify(folder, progress)
    for problem in problems:
        print(f"problem: {problem}")
    if flags.write_manifest:
        print(f"wrote {folder / 'manifest.json'}: {write_manifest(folder, progress)} files")
    if problems:
        sys.exit(1)
    print(f"{folder}: nothing is wrong")


def _parser() -> Parser:
    example = "python -m src.check data/train --write-manifest\n  python -m src.check data/train --verify"
    parser = Parser(__doc__, example, "python -m src.check")
    parser.add_argument("folder", metavar="DIR", help="training folder: <name>/image.tif with class1.tif … classK.tif")
    parser.add_classes()
    parser.add_max_pixels()
    manifest = parser.add_mutually_exclusive_group()
    manifest.add_argument("--write-manifest", action="store_true", help="keep every file's digest in DIR/manifest.json")
    manifest.add_argument("--verify", action="store_true", help="compare every file with DIR/manifest.json")
    return parser


if __name__ == "__main__":
    run(main)
