"""Pictures of training tiles with their targets, as the network is given them."""

from collections.abc import Sequence

import numpy as np

from src.data.classes import CellClass
from src.engine.loading import OBJECT_KEYS, Item
from src.geometry.instances import Instance, tight
from src.reporting.draw import draw_outlines, legend

GAP = 8  # px between two tiles of a picture


def draw_tiles(items: Sequence[Item], classes: Sequence[CellClass]) -> np.ndarray:
    """Tiles of one size side by side, the cells of their targets outlined, with a legend; small tiles are enlarged."""
    zoom = 2 if len(items[0][0]) <= 256 else 1
    panels = [draw_outlines(item[0], targets_of(item), classes, zoom) for item in items]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.hstack([part for panel in panels for part in (panel, gap)][:-1])
    return legend(row, classes)


def targets_of(item: Item) -> list[Instance]:
    """The cells of a tile's training target, as objects to draw."""
    target = item[1]
    cells = []
    for box, label, layer, number in zip(*(target[key] for key in OBJECT_KEYS), strict=True):
        left, top, right, bottom = box.astype(int)
        mask = target["label_map"][layer, top:bottom, left:right] == number
        cells.append(tight(int(label), 1.0, int(top), int(left), mask))
    return [cell for cell in cells if cell is not None]
