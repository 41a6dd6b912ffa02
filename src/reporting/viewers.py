"""Images with outlines of their cells in layers that a report's page can show, hide and enlarge."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.evaluation.errors_by_cause import Outcomes
from src.evaluation.ground_truth import ImageTruth
from src.geometry.instances import Instance
from src.geometry.outlines import trace
from src.geometry.stacks import Stack, in_batches
from src.reporting.html import picture

SHOWN = 3  # of the worst images, and of the best
LAYERS = {
    "truth": "true cells",
    "found": "found",
    "false_positives": "false positives",
    "false_negatives": "false negatives",
}


def viewers_of(
    truths: Sequence[ImageTruth],
    images: Sequence[Outcomes],
    classes: Sequence[CellClass],
    read: Callable[[ImageTruth], np.ndarray | None],
) -> list[dict[str, Any]]:
    """The worst and the best images, by F1, as the template takes them; those that ``read`` finds."""
    telling = (i for i, image in enumerate(images) if image.truths or image.is_confident.any())
    order = sorted(telling, key=lambda i: images[i].f1())
    viewers = []
    for index in dict.fromkeys([*order[:SHOWN], *order[-SHOWN:]]):
        truth, image, pixels = truths[index], images[index], read(truths[index])
        if pixels is None:
            continue
        caption = f"F1 {image.f1():.2f}, {len(truth.instances)} cells, {len(image.false_negatives())} missed"
        viewers.append({
            "name": truth.name,
            "caption": f"{caption}, {len(image.false_positives())} false",
            "data": picture(pixels),
            "width": truth.width,
            "height": truth.height,
            "layers": layers_of(image, classes),
        })  # fmt: skip
    return viewers


def layers_of(image: Outcomes, classes: Sequence[CellClass]) -> dict[str, list[tuple[str, str]]]:
    """Layer → colour and path of each class."""
    cells: Mapping[str, list[Instance]] = {
        "truth": image.truths,
        "found": image.confident,
        "false_positives": [image.detections[index] for index in image.false_positives()],
        "false_negatives": [image.truths[index] for index in image.false_negatives()],
    }
    return {
        layer: [(c.color, svg_path([cell for cell in of_layer if cell.class_id == c.id])) for c in classes]
        for layer, of_layer in cells.items()
    }


def svg_path(cells: Sequence[Instance]) -> str:
    """The outlines of cells as one SVG path, along the edges of their pixels."""
    rings = (ring for batch in in_batches(cells) for ring in trace(Stack.of(batch)).rings())
    parts = []
    for ring in rings:
        steps = np.diff(ring, axis=0).tolist()
        moves = "".join(f"h{dx}" if dx else f"v{dy}" for dx, dy in steps)
        parts.append(f"M{ring[0][0]} {ring[0][1]}{moves}z")
    return "".join(parts)
