"""Facts about the images of a data folder and their cells."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from src.data.classes import UNKNOWN, CellClass
from src.data.prepared import PreparedImage, cells_in_pieces
from src.data.records import Record
from src.data.stain import red_contrast

SAME_IMAGE = 0.99  # correlation of two thumbnails from which their images count as near duplicates
ROWS = 256  # images that are compared with all others at once


@dataclass(frozen=True)
class CellFacts:
    """One image and its N cells.

    ``class_ids`` and ``areas`` (N,), in px; ``boxes`` (N, 4) xyxy in px, max exclusive; ``overlaps`` counts the pairs
    of cells that share pixels by their two classes; ``thumbnail`` (256,) has mean 0 and length 1, or is all 0.
    ``contrast`` is the :func:`red_contrast` of a TIFF with tissue, which tells the order of its channels.
    """

    record: Record
    height: int
    width: int
    class_ids: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    overlaps: Counter[tuple[int, int]]
    thumbnail: np.ndarray
    contrast: float | None
    levels: int
    in_pieces: int

    @property
    def name(self) -> str:
        """The name of the image."""
        return self.record.name

    @property
    def at_border(self) -> np.ndarray:
        """``(N,)`` whether a cell touches the image's border."""
        return (self.boxes[:, :2] == 0).any(axis=1) | (self.boxes[:, 2:] == (self.width, self.height)).any(axis=1)


def facts_of(record: Record, prepared: PreparedImage) -> CellFacts:
    """The facts about an image."""
    height, width = prepared.image.shape[:2]
    seen = np.flatnonzero(prepared.is_cell)
    return CellFacts(
        record,
        height,
        width,
        prepared.class_ids[seen],
        prepared.areas[seen],
        prepared.boxes[seen],
        count_overlaps(prepared),
        thumbnail(prepared.image),
        red_contrast(prepared.image) if record.is_tiff else None,
        record.levels_of(prepared.image),
        cells_in_pieces(prepared),
    )


def classes_in(facts: Sequence[CellFacts], classes: tuple[CellClass, ...]) -> tuple[CellClass, ...]:
    """The classes to list: all, and :data:`UNKNOWN` where there are cells of unknown class."""
    has_unknown = any((image.class_ids == UNKNOWN.id).any() for image in facts)
    return (*classes, UNKNOWN) if has_unknown else classes


def count_overlaps(prepared: PreparedImage) -> Counter[tuple[int, int]]:
    """Pairs of cells that share pixels, by their classes, the lower first."""
    layers = np.where(prepared.is_cell[prepared.label_map], prepared.label_map, 0)
    layers = layers.reshape(-1, layers.shape[-1])
    layers = layers[np.count_nonzero(layers, axis=1) > 1].astype(np.int64)
    pairs = [np.unique(layers[:, (i, j)], axis=0) for j in range(layers.shape[1]) for i in range(j)]
    met = np.concatenate([*pairs, np.zeros((0, 2), np.int64)])
    classes = np.sort(prepared.class_ids[met[(met > 0).all(axis=1)]], axis=1)
    return Counter((int(a), int(b)) for a, b in classes)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """An image as 16 x 16 grey values, centred and of length 1, so that a product of two is their correlation."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA).ravel()
    centred = small - small.mean(dtype=np.float32)
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


def near_duplicates(facts: Sequence[CellFacts]) -> list[tuple[str, str]]:
    """The name of each image that is a near duplicate of an earlier one, after the name of the first such one."""
    thumbnails = np.stack([image.thumbnail for image in facts])
    pairs = []
    for start in range(0, len(facts), ROWS):  # all pairs at once would take memory by the square of their number
        same = thumbnails[start : start + ROWS] @ thumbnails[: start + ROWS].T > SAME_IMAGE
        same &= np.arange(same.shape[1]) < start + np.arange(len(same))[:, None]
        for row in np.flatnonzero(same.any(axis=1)).tolist():
            pairs.append((facts[int(same[row].argmax())].name, facts[start + row].name))
    return pairs


def diameters_of(facts: Sequence[CellFacts], class_id: int) -> np.ndarray:
    """Diameters in px of circles as large as the cells of a class."""
    areas = np.concatenate([image.areas[image.class_ids == class_id] for image in facts])
    return 2 * np.sqrt(areas / np.pi)
