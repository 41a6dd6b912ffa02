"""A picture of a slide at low magnification with its tissue and its cells."""

from collections import Counter
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from src.data.classes import CellClass
from src.formats.writers.batches import Batch
from src.reporting.draw import legend
from src.slides.densities import MOST_REGIONS
from src.slides.tissue import Tissue

TISSUE_COLOR = (0, 0, 0)
LEAST_OUTLINE = 4.0  # px across in the picture; smaller cells are dots
NEAR, CROWDED = 15, 0.1  # a dot is one px where more than this share of the px of a square around it show cells


class Overview:
    """A thumbnail of the slide with its cells in the colours of their classes.

    The tissue is outlined, and so are regions that were drawn. A cell is an outline, or a dot where it would be too
    small. In px that show several cells the class that has most of them wins, so that the picture does not depend on
    the order in which cells are added. Memory grows with the thumbnail and the number of classes alone.
    """

    def __init__(self, tissue: Tissue, classes: Sequence[CellClass]) -> None:
        self._tissue, self._classes = tissue, classes
        self._votes = np.zeros((len(classes) + 1, *tissue.labels.shape), np.uint16)
        self._is_dot = np.zeros(tissue.labels.shape, bool)

    def add(self, batch: Batch) -> None:
        """Draw cells."""
        sides = batch.boxes[:, 2:] * self._tissue.scale
        is_large = np.sqrt(sides.prod(axis=1)) >= LEAST_OUTLINE
        rows, columns = self._tissue.pixels_at(batch.centers[~is_large])
        np.add.at(self._votes, (batch.class_ids[~is_large], rows, columns), 1)
        self._is_dot[rows, columns] = True
        if is_large.any():
            cell, places = batch.borders()
            cell, places = cell[is_large[cell]], places[is_large[cell]]
            np.add.at(self._votes, (batch.class_ids[cell], *self._tissue.pixels_at(places)), 1)

    def finished(self, counts: Mapping[int, int]) -> np.ndarray:
        """The picture, ``(h, w, 3)`` uint8 RGB, with a legend that says the number of cells of each class."""
        picture = self._tissue.picture.copy()
        _outline(picture, self._tissue.mask)
        for number, region in enumerate(self._tissue.regions[:MOST_REGIONS], start=1):
            if region.is_drawn:
                _outline(picture, self._tissue.labels == number)
        shown = self._shown()
        colors = np.array([(0, 0, 0), *(cell_class.rgb for cell_class in self._classes)], np.uint8)
        picture[shown > 0] = colors[shown[shown > 0]]
        return legend(picture, self._classes, Counter(counts))

    def _shown(self) -> np.ndarray:
        """``(h, w)`` uint16: the class that each px shows, 0 for none; dots that stand alone are larger."""
        shown, most = np.zeros(self._is_dot.shape, np.uint16), np.zeros(self._is_dot.shape, np.uint16)
        for number, votes in enumerate(self._votes):  # far faster than argmax
            shown[votes > most] = number
            np.maximum(most, votes, out=most)
        crowd = cv2.blur((shown > 0).astype(np.float32), (NEAR, NEAR))
        alone = np.where(self._is_dot & (crowd < CROWDED), shown, 0).astype(np.uint16)
        grown = cv2.dilate(alone, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        return np.where(shown > 0, shown, grown)


def _outline(picture: np.ndarray, mask: np.ndarray) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, TISSUE_COLOR, 1)
