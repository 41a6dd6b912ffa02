"""Cells that are written together, with what is computed of many of them at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.geometry.instances import Instance
from src.geometry.outlines import Outlines, trace
from src.geometry.shapes import measure
from src.geometry.stacks import Stack, in_batches

# Measures in px that are in µm, too, where the resolution is known; places count from the centre of the first pixel.
LENGTHS = ("centroid_x", "centroid_y", "diameter", "major_axis", "minor_axis", "perimeter")


@dataclass(frozen=True)
class Batch:
    """Some cells of an image, one at least; all that is written of them is computed once."""

    cells: Sequence[Instance]

    @cached_property
    def _stack(self) -> Stack:
        return Stack.of(self.cells)

    @cached_property
    def outlines(self) -> Outlines:
        """Their outlines."""
        return trace(self._stack)

    @cached_property
    def class_ids(self) -> np.ndarray:
        """``(N,)`` int64."""
        return np.array([cell.class_id for cell in self.cells], np.int64)

    @cached_property
    def boxes(self) -> np.ndarray:
        """``(N, 4)`` int64 left, top, width and height in px."""
        sides = [one.mask.shape[::-1] for one in self.cells]
        return np.concatenate([self._stack.places, np.array(sides, np.int64).reshape(-1, 2)], axis=1)

    @cached_property
    def centers(self) -> np.ndarray:
        """``(N, 2)`` float64 x and y of their centroids, where the first pixel reaches from (0, 0) to (1, 1)."""
        return np.stack([self.measures["centroid_x"], self.measures["centroid_y"]], axis=1) + 0.5

    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each px of a cell's border ``(B,)`` the index of the cell, and ``(B, 2)`` x and y of the px's centre."""
        places, cell = self._stack.border_places
        rows, columns = np.divmod(places, self._stack.pixels.shape[1])
        local = np.stack([columns - 1, rows - self._stack.rows[cell]], axis=1)
        return cell, self._stack.places[cell] + local + 0.5

    @cached_property
    def measures(self) -> dict[str, np.ndarray]:
        """Their shapes in px, ``(N,)`` each: area, the lengths, eccentricity, rounded to 0.001, and their boxes."""
        shapes = {name: np.round(values, 3) for name, values in measure(self._stack).items()}
        return {**shapes, **dict(zip(("left", "top", "width", "height"), self.boxes.T, strict=True))}

    def in_microns(self, mpp: float) -> dict[str, np.ndarray]:
        """Their area in µm² and their lengths in µm, the names with the unit."""
        lengths = {f"{name}_um": np.round(self.measures[name] * mpp, 4) for name in LENGTHS}
        return {"area_um2": np.round(self.measures["area"] * mpp**2, 4), **lengths}


def batches(cells: Iterable[Instance]) -> Iterator[Batch]:
    """Cells in batches of bounded size, in their order."""
    yield from map(Batch, in_batches(cells))
