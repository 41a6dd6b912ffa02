"""Pictures of cells: outlines in class colours on the image."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from src.common.files import replacing
from src.data.classes import UNKNOWN, CellClass
from src.geometry.instances import Instance

FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.42)
CONFIDENT = 0.5  # the score from which a cell is drawn, and from which PQ counts it


def draw_outlines(
    image: np.ndarray, instances: Sequence[Instance], classes: Sequence[CellClass], zoom: int = 1
) -> np.ndarray:
    """Draw each cell's outline in its class's colour onto a copy of an ``(H, W, 3)`` uint8 RGB image.

    ``zoom`` enlarges the picture first, so that outlines stay thin beside small cells.
    """
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    picture = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)
    colors = {cell_class.id: cell_class.rgb for cell_class in (*classes, UNKNOWN)}
    for instance in sorted(instances, key=lambda instance: instance.score):
        mask = instance.mask.repeat(zoom, axis=0).repeat(zoom, axis=1).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        offset = (instance.left * zoom, instance.top * zoom)
        cv2.drawContours(picture, contours, -1, colors[instance.class_id], 1, offset=offset)
    return picture


def legend(picture: np.ndarray, classes: Sequence[CellClass]) -> np.ndarray:
    """The picture with a white strip below that names the classes in their colours."""
    width, places, x, y = picture.shape[1], [], 4, 16
    for cell_class in classes:
        needed = 14 + cv2.getTextSize(cell_class.name, *FONT, 1)[0][0]
        if x > 4 and x + needed > width:
            x, y = 4, y + 20
        places.append((x, y))
        x += needed + 16
    strip = np.full((y + 8, width, 3), 255, np.uint8)
    for cell_class, (x, y) in zip(classes, places, strict=True):
        cv2.rectangle(strip, (x, y - 9), (x + 9, y), cell_class.rgb, -1)
        cv2.rectangle(strip, (x, y - 9), (x + 9, y), (0, 0, 0), 1)  # or white would not show
        cv2.putText(strip, cell_class.name, (x + 14, y), *FONT, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def write_overlay(path: Path, image: np.ndarray, instances: Sequence[Instance], classes: Sequence[CellClass]) -> None:
    """Write an image with its cells outlined and a legend as PNG; small images are enlarged."""
    zoom = 1 if max(image.shape[:2]) > 1200 else 2
    write_png(path, legend(draw_outlines(image, instances, classes, zoom), classes))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an ``(H, W, 3)`` uint8 RGB picture atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
