"""Check a data folder: read every file, list all that is wrong, say what the data are like and what they ask for."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from src.advice import Advice, ImageCells, advise
from src.cache import PreparedImage, prepare
from src.classes import HOMEWORK_CLASSES, CellClass, load_classes
from src.command import Parser
from src.draw import outline
from src.errors import InputError, run
from src.instances import from_label_map
from src.manifest import verify, write_manifest
from src.page import INK, picture, plot, write_page
from src.records import image_folders, read_record
from src.stain import decide_channel_order, red_contrast
from src.tiff import MAX_PIXELS

SAME_IMAGE = 0.99  # correlation of two thumbnails from which they show the same
SAMPLES, SAMPLE_SIDE = 12, 256  # of the contact sheet


@dataclass(frozen=True)
class CellFacts:
    """One image and its N cells.

    ``categories`` and ``areas`` (N,), in px; ``boxes`` (N, 4) xyxy in px, max exclusive; ``overlaps`` counts the pairs
    of cells that share pixels by their two classes; ``thumbnail`` (256,) has mean 0 and length 1, or is all 0.
    """

    name: str
    height: int
    width: int
    categories: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    overlaps: Counter[tuple[int, int]]
    thumbnail: np.ndarray
    contrast: float | None

    @property
    def at_border(self) -> np.ndarray:
        """``(N,)`` whether a cell touches the image's border."""
        return (self.boxes[:, :2] == 0).any(axis=1) | (self.boxes[:, 2:] == (self.width, self.height)).any(axis=1)


def facts_of(name: str, prepared: PreparedImage) -> CellFacts:
    """What is counted of an image."""
    height, width = prepared.image.shape[:2]
    seen = np.flatnonzero(prepared.areas > 0)
    return CellFacts(
        name,
        height,
        width,
        prepared.categories[seen],
        prepared.areas[seen],
        prepared.boxes[seen],
        count_overlaps(prepared),
        thumbnail(prepared.image),
        red_contrast(prepared.image),
    )


def count_overlaps(prepared: PreparedImage) -> Counter[tuple[int, int]]:
    """Pairs of cells that share pixels, by their classes, the lower first."""
    layers = prepared.label_map.reshape(-1, prepared.label_map.shape[-1])
    layers = layers[np.count_nonzero(layers, axis=1) > 1].astype(np.int64)
    pairs = [np.unique(layers[:, (i, j)], axis=0) for j in range(layers.shape[1]) for i in range(j)]
    met = np.concatenate([*pairs, np.zeros((0, 2), np.int64)])
    classes = np.sort(prepared.categories[met[(met > 0).all(axis=1)]], axis=1)
    return Counter((int(a), int(b)) for a, b in classes)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """An image as 16 x 16 grey values, centred and of length 1, so that a product of two is their correlation."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA).ravel()
    centred = small - small.mean(dtype=np.float32)
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


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


def twins(facts: Sequence[CellFacts]) -> list[tuple[str, str]]:
    """Pairs of images that show nearly the same."""
    thumbnails = np.stack([image.thumbnail for image in facts])
    first, second = np.nonzero(np.triu(thumbnails @ thumbnails.T > SAME_IMAGE, 1))
    return [(facts[a].name, facts[b].name) for a, b in zip(first.tolist(), second.tolist(), strict=True)]


def class_rows(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> list[tuple[str, ...]]:
    """A row a class, below a row of headings; sizes are diameters of circles of equal area."""
    rows: list[tuple[str, ...]] = [("class", "cells", "images", "per image", "median px", "10-90 % px", "at border")]
    for cell_class in classes:
        diameters = diameters_of(facts, cell_class.id)
        border = sum(int(image.at_border[image.categories == cell_class.id].sum()) for image in facts)
        counts = [int((image.categories == cell_class.id).sum()) for image in facts]
        sizes = [f"{np.quantile(diameters, q):.0f}" if len(diameters) else "-" for q in (0.5, 0.1, 0.9)]
        range_of = f"{sizes[1]}-{sizes[2]}"
        name, images = f"{cell_class.id} {cell_class.name}", sum(map(bool, counts))
        rows.append(
            (name, f"{sum(counts):,}", f"{images}", f"{np.mean(counts):.1f}", sizes[0], range_of, f"{border:,}")
        )
    return rows


def diameters_of(facts: Sequence[CellFacts], category: int) -> np.ndarray:
    """Diameters in px of circles as large as the cells of a class."""
    areas = np.concatenate([image.areas[image.categories == category] for image in facts])
    return 2 * np.sqrt(areas / np.pi)


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
        f"{count:,} cells of {names[a]} share pixels with cells of {names[b]}"
        for (a, b), count in sorted(overlaps.items())
    ]
    lines += [f"{a} and {b} show nearly the same; keep them in one part of a split" for a, b in twins(facts)]
    if advice:
        lines.append(f"a tile of {advice.tile_size} px at scale {advice.scale:g} holds up to {advice.most_cells} cells")
    return lines


def describe(rows: Sequence[tuple[str, ...]], notes: Sequence[str], advice: Advice | None) -> str:
    """The table, the notes and the flags as text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in range(1, len(row)))
        for row in rows
    ]
    return "\n".join([*lines, *notes, *([f"flags that suit: {advice.flags()}"] if advice else [])])


def write_html(
    path: Path, folder: Path, facts: Sequence[CellFacts], classes: Sequence[CellClass], content: dict[str, Any]
) -> None:
    """The same as a page, with plots and a contact sheet."""
    places = np.linspace(0, len(facts) - 1, min(SAMPLES, len(facts))).astype(int)
    chosen = [facts[place].name for place in places.tolist()]
    is_bgr = decide_channel_order(image.contrast for image in facts)[0] == "bgr"
    write_page(
        path,
        "check.html",
        title=f"{folder.resolve().name}: images and cells",
        summary=f"{folder}, checked by python -m src.check",
        colors={f"{cell_class.id} {cell_class.name}": cell_class.color for cell_class in classes},
        plots=plots_of(facts, classes),
        samples=[(name, picture(sample(folder / name, classes, is_bgr), 90)) for name in chosen],
        **content,
    )


def plots_of(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> list[tuple[str, Any]]:
    """Caption and SVG of each distribution."""
    diameters = {cell_class: diameters_of(facts, cell_class.id) for cell_class in classes}
    longest = max((float(np.quantile(values, 0.995)) for values in diameters.values() if len(values)), default=1)
    counts = {c: [int((image.categories == c.id).sum()) for image in facts] for c in classes}

    def sizes(axes: Any) -> None:
        for cell_class, values in diameters.items():
            if len(values):
                look = {"label": cell_class.name, "color": cell_class.color}
                axes.hist(values, np.linspace(0, longest, 50), density=True, histtype="step", lw=1.6, **look)
        axes.set(xlabel="diameter of equal area, px", ylabel="density")
        axes.legend()

    def areas(axes: Any) -> None:
        edges = np.geomspace(1, max(max(image.areas.max(initial=1) for image in facts), 2), 50)
        for cell_class in classes:
            values = np.concatenate([image.areas[image.categories == cell_class.id] for image in facts])
            axes.hist(values, edges, histtype="step", lw=1.6, label=cell_class.name, color=cell_class.color)
        axes.set(xscale="log", xlabel="area, px", ylabel="cells")
        axes.legend()

    def numbers(axes: Any) -> None:
        order = np.argsort([-len(image.categories) for image in facts])
        below = np.zeros(len(facts))
        for cell_class, values in counts.items():
            heights = np.array(values)[order]
            axes.bar(range(len(facts)), heights, 1.0, below, label=cell_class.name, color=cell_class.color)
            below += heights
        axes.set(xlabel="images, by their number of cells", ylabel="cells")
        axes.legend()

    def shapes(axes: Any) -> None:
        axes.scatter([image.width for image in facts], [image.height for image in facts], s=14, alpha=0.6, color=INK)
        axes.set(xlabel="width, px", ylabel="height, px", xlim=(0, None), ylim=(0, None))

    captions = ("Diameters of the cells", "Areas of the cells", "Cells an image", "Sizes of the images")
    return [(caption, plot(draw)) for caption, draw in zip(captions, (sizes, areas, numbers, shapes), strict=True)]


def sample(folder: Path, classes: Sequence[CellClass], is_bgr: bool) -> np.ndarray:
    """The middle of an image with its cells outlined."""
    prepared = prepare(read_record(folder, len(classes)), "full", 1.0)
    height, width = prepared.image.shape[:2]
    top, left = max(height - SAMPLE_SIDE, 0) // 2, max(width - SAMPLE_SIDE, 0) // 2
    window = np.s_[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
    labels = prepared.label_map[window].transpose(2, 0, 1).astype(np.int32)
    of_classes = [np.where((prepared.categories == c.id)[labels], labels, 0).max(axis=0) for c in classes]
    cells = from_label_map(np.stack(of_classes))
    image = prepared.image[window][..., ::-1] if is_bgr else prepared.image[window]
    return outline(image, cells, classes, zoom=2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it. Exit code 1 where something is wrong with the data."""
    flags = _parser().parse_args(arguments)
    folder = Path(flags.folder)
    classes = load_classes(flags.classes) if flags.classes else HOMEWORK_CLASSES
    bar = tqdm(image_folders(folder), "check", unit="image", leave=False, disable=None)
    facts, problems = check(bar, len(classes), flags.max_pixels)

    def progress(paths: list[Path]) -> Iterable[Path]:
        return tqdm(paths, "digest", unit="file", leave=False, disable=None)

    if flags.verify:
        problems += verify(folder, progress)
    if facts:
        say(folder, facts, classes, problems, flags.html)
    for problem in problems:
        print(f"problem: {problem}")
    if flags.write_manifest:
        print(f"wrote {folder / 'manifest.json'}: {write_manifest(folder, progress)} files")
    if problems:
        sys.exit(1)
    print(f"wrote {flags.html}" if flags.html else f"{folder}: nothing is wrong")


def say(
    folder: Path, facts: Sequence[CellFacts], classes: Sequence[CellClass], problems: Sequence[str], html: str | None
) -> None:
    """Print what the data are like, and write the page where one is asked for."""
    images = [ImageCells(image.height, image.width, image.boxes) for image in facts]
    advice = advise(images) if any(len(image.categories) for image in facts) else None
    rows, notes = class_rows(facts, classes), notes_on(facts, classes, advice)
    print(describe(rows, notes, advice))
    if html:
        flags = advice.flags() if advice else "no cells, no advice"
        content = {"rows": rows, "notes": notes, "flags": flags, "problems": problems}
        write_html(Path(html), folder, facts, classes, content)


def _parser() -> Parser:
    example = "python -m src.check data/train --html check.html\n  python -m src.check data/train --write-manifest"
    parser = Parser(__doc__, example, "python -m src.check")
    parser.add_argument("folder", metavar="DIR", help="training folder: <name>/image.tif with class1.tif … classK.tif")
    parser.add_classes()
    parser.add_argument("--html", metavar="FILE", help="write a page with plots and a contact sheet, too")
    parser.add_max_pixels()
    manifest = parser.add_mutually_exclusive_group()
    manifest.add_argument("--write-manifest", action="store_true", help="keep every file's digest in DIR/manifest.json")
    manifest.add_argument("--verify", action="store_true", help="compare every file with DIR/manifest.json")
    return parser


if __name__ == "__main__":
    run(main)
