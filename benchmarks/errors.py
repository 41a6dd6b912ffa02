"""Draw the worst misses and the worst false detections of a results file, with their causes, to be read by eye."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from src.common.errors import InputError, run
from src.common.files import companion, id_map_of
from src.config.command import Parser, score_of
from src.data.classes import CellClass, classes_of_results
from src.data.tiff import read_rgb
from src.evaluation.errors_by_cause import Outcomes, cause_of_false_positive, cause_of_miss
from src.evaluation.ground_truth import ImageTruth, load_ground_truth
from src.evaluation.results import check_results, read_results
from src.geometry.instances import Instance, clip
from src.reporting.draw import legend, outline, write_png
from src.reporting.run_report import match_all_images

SIDE, COLUMNS = 72, 6  # px of the image that a picture shows, and pictures a row
ZOOM = 3
Error = tuple[float, int, int, str]  # how bad, image, cell, cause


def misses(images: Sequence[Outcomes], truths: Sequence[ImageTruth]) -> list[Error]:
    """Missed cells, the largest first: those that a reader would never have missed."""
    return [
        (float(image.truths[cell].area), number, int(cell), cause_of_miss(image, int(cell), truth.height, truth.width))
        for number, (image, truth) in enumerate(zip(images, truths, strict=True))
        for cell in image.false_negatives()
    ]


def inventions(images: Sequence[Outcomes], truths: Sequence[ImageTruth]) -> list[Error]:
    """False detections, the surest first."""
    return [
        (
            image.found[cell].score,
            number,
            int(cell),
            cause_of_false_positive(image, int(cell), truth.height, truth.width),
        )
        for number, (image, truth) in enumerate(zip(images, truths, strict=True))
        for cell in image.false_positives()
    ]


def sheet(errors: Sequence[Error], draw: Callable[[Error], np.ndarray], classes: Sequence[CellClass]) -> np.ndarray:
    """Pictures in rows, sorted by cause, each with its number."""
    pictures = [draw(error) for error in sorted(errors, key=lambda error: (error[3], -error[0]))]
    blank = np.full_like(pictures[0], 255)
    pictures += [blank] * (-len(pictures) % COLUMNS)
    rows = [np.hstack(pictures[start : start + COLUMNS]) for start in range(0, len(pictures), COLUMNS)]
    return legend(np.vstack(rows), classes)


def portrait(
    pixels: np.ndarray, cell: Instance, image: Outcomes, classes: Sequence[CellClass], title: str
) -> np.ndarray:
    """Twice the same place: with the true cells, and with the sure detections; the cell in question in the middle."""
    height, width = pixels.shape[:2]
    top = int(np.clip((cell.top + cell.bottom - SIDE) // 2, 0, max(height - SIDE, 0)))
    left = int(np.clip((cell.left + cell.right - SIDE) // 2, 0, max(width - SIDE, 0)))
    window = pixels[top : top + SIDE, left : left + SIDE]
    sure = [found for found, is_sure in zip(image.found, image.is_sure, strict=True) if is_sure]
    halves = []
    for cells in (image.truths, sure):
        seen = [part for c in cells if (part := clip(c, top, left, top + SIDE, left + SIDE))]
        moved = [Instance(p.category_id, p.score, p.top - top, p.left - left, p.mask) for p in seen]
        drawn = outline(window, moved, classes, ZOOM)
        full = np.full((SIDE * ZOOM, SIDE * ZOOM, 3), 255, np.uint8)
        full[: drawn.shape[0], : drawn.shape[1]] = drawn
        halves.append(full)
    strip = np.full((22, 2 * SIDE * ZOOM, 3), 255, np.uint8)
    cv2.putText(strip, title, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    framed = np.vstack([strip, np.hstack(halves)])
    framed[-3:] = framed[:, -3:] = 255
    return framed


def main() -> None:
    """Write ``misses.png`` and ``inventions.png`` and print how often each cause occurs."""
    flags = _parser().parse_args()
    classes = classes_of_results(flags.classes, flags.pred)
    id_map = id_map_of(flags.pred, flags.id_map)
    if id_map is None:
        raise InputError(f"{companion(flags.pred, 'id-map')}: no such file; name an id map with --id-map")
    truths = load_ground_truth(flags.gt, len(classes), id_map)
    entries = read_results(flags.pred)
    check_results(entries, [truth.entry for truth in truths], len(classes), flags.pred)
    images = match_all_images(truths, entries, flags.score_thresh)
    for name, find in (("misses", misses), ("inventions", inventions)):
        errors = find(images, truths)
        print(f"{name}: {len(errors)} in all: {_counts(errors)}")
        worst = sorted(errors, reverse=True)[: flags.number]
        print(f"the worst {len(worst)}: {_counts(worst)}")

        def draw(error: Error, is_miss: bool = name == "misses") -> np.ndarray:
            badness, number, index, cause = error
            image, truth = images[number], truths[number]
            pixels = read_rgb(Path(flags.gt) / truth.name / "image.tif", "full", flags.bgr)
            cell = image.truths[index] if is_miss else image.found[index]
            value = f"{badness:.0f} px" if is_miss else f"{badness:.2f}"
            return portrait(pixels, cell, image, classes, f"{cause}: {value}, {truth.name[-24:]}")

        if worst:
            write_png(Path(flags.out) / f"{name}.png", sheet(worst, draw, classes))
    print(f"wrote {flags.out}: left halves show the true cells, right halves what was found")


def _counts(errors: Sequence[Error]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in Counter(error[3] for error in errors).most_common())


def _parser() -> Parser:
    example = "python -m benchmarks.errors --pred logs/val-results.json --gt data/train --out errors"
    parser = Parser(__doc__, example, "python -m benchmarks.errors")
    parser.add_argument("--pred", required=True, metavar="FILE", help="results JSON")
    parser.add_argument("--gt", required=True, metavar="DIR", help="folder of <name>/image.tif and masks")
    parser.add_argument("--id-map", metavar="FILE", help="id map of the results (default: the one beside them)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the two pictures")
    parser.add_classes()
    parser.add_argument("--score-thresh", type=score_of, default=0.5, metavar="S", help="lowest score (default: 0.5)")
    parser.add_argument("--number", type=int, default=30, metavar="N", help="pictures of each kind (default: 30)")
    parser.add_argument("--bgr", action="store_true", help="the images hold blue first")
    return parser


if __name__ == "__main__":
    run(main)
