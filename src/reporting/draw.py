"""Pictures of cells: outlines in class colours on the image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from src.common.files import replacing
from src.data.classes import UNKNOWN, CellClass
from src.geometry.instances import Instance

FONT, TEXT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.42  # of a picture up to LEGEND_WIDTH, and in wider ones larger
LEGEND_WIDTH = 700  # px
RIM = (255, 255, 255)  # colours of classes are near those of stained tissue; on white they are not


def draw_outlines(
    image: np.ndarray, instances: Sequence[Instance], classes: Sequence[CellClass], zoom: int = 1
) -> np.ndarray:
    """Draw each cell's outline in its class's colour, on a white rim, onto a copy of an ``(H, W, 3)`` uint8 RGB image.

    ``zoom`` enlarges the picture first, so that outlines stay thin beside small cells.
    """
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    picture = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)
    colors = {cell_class.id: cell_class.rgb for cell_class in (*classes, UNKNOWN)}
    thickness = outline_thickness(*picture.shape[:2])
    for instance in sorted(instances, key=lambda instance: instance.score):
        mask = instance.mask.repeat(zoom, axis=0).repeat(zoom, axis=1).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        offset = (instance.left * zoom, instance.top * zoom)
        for color, width in ((RIM, thickness + 2), (colors[instance.class_id], thickness)):
            cv2.drawContours(picture, contours, -1, color, width, offset=offset)
    return picture


def outline_thickness(height: int, width: int) -> int:
    """The thickness in px of outlines in a picture: 2, and more where it is seen from further away."""
    return max(2, round(max(height, width) / 1000))


def legend(picture: np.ndarray, classes: Sequence[CellClass], counts: Mapping[int, int] | None = None) -> np.ndarray:
    """The picture with a white strip below that names the classes in their colours, and ``counts`` by class id."""
    grown = max(1, round(picture.shape[1] / LEGEND_WIDTH))
    text_size, box, line = TEXT_SIZE * grown, 10 * grown, 20 * grown
    width, places, x, y = picture.shape[1], [], 4, 16 * grown
    texts = [
        cell_class.name if counts is None else f"{cell_class.name} {counts[cell_class.id]}" for cell_class in classes
    ]
    for text in texts:
        needed = box + 4 + cv2.getTextSize(text, FONT, text_size, grown)[0][0]
        if x > 4 and x + needed > width:
            x, y = 4, y + line
        places.append((x, y))
        x += needed + 16 * grown
    strip = np.full((y + 8 * grown, width, 3), 255, np.uint8)
    for cell_class, text, (x, y) in zip(classes, texts, places, strict=True):
        cv2.rectangle(strip, (x, y - box + 1), (x + box - 1, y), cell_class.rgb, -1)
        cv2.rectangle(strip, (x, y - box + 1), (x + box - 1, y), (0, 0, 0), 1)  # or white would not show
        cv2.putText(strip, text, (x + box + 4, y), FONT, text_size, (0, 0, 0), grown, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def write_overlay(path: Path, image: np.ndarray, instances: Sequence[Instance], classes: Sequence[CellClass]) -> None:
    """Write an image with its cells outlined and their number by class as PNG; small images are enlarged."""
    zoom = 1 if max(image.shape[:2]) > 1200 else 2
    found = Counter(instance.class_id for instance in instances)
    write_png(path, legend(draw_outlines(image, instances, classes, zoom), classes, found))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an ``(H, W, 3)`` uint8 RGB picture atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
