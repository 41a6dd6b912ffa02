"""Where a run errs: missed cells and false positives with their causes, and pictures of the worst of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.data.classes import CellClass
from src.evaluation.errors_by_cause import Outcomes, cause_of_false_positive, cause_of_miss
from src.evaluation.ground_truth import ImageTruth
from src.geometry.instances import Instance, clip
from src.reporting.draw import draw_outlines
from src.reporting.html import picture

SIDE, ZOOM = 72, 3  # px of the image that a picture shows, and how much they are enlarged
SHOWN = 12  # pictures of each kind
Reader = Callable[[ImageTruth], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Error:
    """A missed cell or a false positive; the larger its ``weight``, the worse; ``measure`` is the weight in words."""

    truth: ImageTruth
    image: Outcomes
    cell: Instance
    cause: str
    weight: float
    measure: str


def missed_cells(truths: Sequence[ImageTruth], images: Sequence[Outcomes]) -> list[Error]:
    """All missed cells, the largest first."""
    errors = []
    for truth, image in zip(truths, images, strict=True):
        for index in image.false_negatives():
            cell, cause = image.truths[index], cause_of_miss(image, int(index), truth.height, truth.width)
            errors.append(Error(truth, image, cell, cause, cell.area, f"{cell.area} px"))
    return sorted(errors, key=lambda error: -error.weight)


def false_positives(truths: Sequence[ImageTruth], images: Sequence[Outcomes]) -> list[Error]:
    """All false positives, the highest score first."""
    errors = []
    for truth, image in zip(truths, images, strict=True):
        for index in image.false_positives():
            cell, cause = image.detections[index], cause_of_false_positive(image, int(index), truth.height, truth.width)
            errors.append(Error(truth, image, cell, cause, cell.score, f"score {cell.score:.2f}"))
    return sorted(errors, key=lambda error: -error.weight)


def count_causes(errors: Sequence[Error]) -> list[tuple[str, int]]:
    """How many errors have which cause, the most frequent first."""
    return Counter(error.cause for error in errors).most_common()


def draw_worst(errors: Sequence[Error], classes: Sequence[CellClass], read: Reader) -> list[tuple[str, str]]:
    """A caption and a picture (data URI) of each of the first errors whose image ``read`` finds, by cause."""
    drawn = []
    images: dict[int, np.ndarray | None] = {}
    for error in sorted(errors[:SHOWN], key=lambda error: (error.cause, -error.weight)):
        if error.truth.id not in images:
            images[error.truth.id] = read(error.truth)
        pixels = images[error.truth.id]
        if pixels is not None:
            drawn.append((f"{error.cause}, {error.measure}, {error.truth.name}", _draw(error, pixels, classes)))
    return drawn


def _draw(error: Error, pixels: np.ndarray, classes: Sequence[CellClass]) -> str:
    """The surroundings of an error twice: with the true cells on the left, with the detections on the right."""
    height, width = pixels.shape[:2]
    top = int(np.clip((error.cell.top + error.cell.bottom - SIDE) // 2, 0, max(height - SIDE, 0)))
    left = int(np.clip((error.cell.left + error.cell.right - SIDE) // 2, 0, max(width - SIDE, 0)))
    window = pixels[top : top + SIDE, left : left + SIDE]
    image = error.image
    halves = []
    for cells in (image.truths, image.confident):
        seen = [part for cell in cells if (part := clip(cell, top, left, top + SIDE, left + SIDE))]
        moved = [replace(part, top=part.top - top, left=part.left - left) for part in seen]
        halves.append(draw_outlines(window, moved, classes, ZOOM))
    gap = np.full((halves[0].shape[0], ZOOM, 3), 255, np.uint8)
    return picture(np.hstack([halves[0], gap, halves[1]]))
