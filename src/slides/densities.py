"""Numbers of cells, and cells per mm² of tissue, by class and by region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.data.classes import TOTAL, CellClass
from src.formats.writers.batches import Batch
from src.slides.tissue import Tissue

MOST_REGIONS = 50  # that are listed
LEAST_SHARE = 0.01  # of all tissue: smaller regions are listed only where they were drawn


def densities(numbers: Sequence[int], classes: Sequence[CellClass], mm2: float | None) -> dict[str, Any]:
    """Cells, and cells per mm² of an area, by class and in all; ``numbers`` are in the order of the classes."""
    cells = dict(zip((cell_class.name for cell_class in classes), map(int, numbers), strict=True))
    cells[TOTAL] = sum(cells.values())
    return {
        "area_mm2": None if mm2 is None else round(mm2, 6),
        "cells": cells,
        "cells_per_mm2": {name: round(number / mm2, 3) if mm2 else None for name, number in cells.items()},
    }


class RegionCounts:
    """Counts the cells of each class in each region of the tissue; a cell is in the region that holds its centre."""

    def __init__(self, tissue: Tissue, classes: Sequence[CellClass]) -> None:
        self._tissue, self._classes = tissue, classes
        self._counts = np.zeros((len(tissue.regions) + 1, len(classes) + 1), np.int64)

    def add(self, batch: Batch) -> None:
        """Count cells."""
        region = self._tissue.labels[self._tissue.pixels_at(batch.centers)]
        np.add.at(self._counts, (region, batch.class_ids), 1)

    def by_class(self) -> Mapping[int, int]:
        """The number of cells by class id."""
        totals = self._counts.sum(axis=0).tolist()
        return {cell_class.id: totals[cell_class.id] for cell_class in self._classes}

    def summary(self, mpp: float | None) -> dict[str, Any]:
        """Numbers of the whole slide, its largest regions, the others together, and the cells outside of all regions.

        Cells per mm² of tissue leave out those outside of it. Without ``mpp``, µm per px, there are no areas.
        """
        pixels = np.bincount(self._tissue.labels.ravel(), minlength=len(self._counts))
        px_mm2 = None if mpp is None else mpp**2 / 1e6 / self._tissue.scale.prod()

        def of(first: int, stop: int) -> dict[str, Any]:
            area = None if px_mm2 is None else float(pixels[first:stop].sum() * px_mm2)
            return densities(self._counts[first:stop, 1:].sum(axis=0).tolist(), self._classes, area)

        regions = self._tissue.regions
        is_large = pixels[1:] >= LEAST_SHARE * pixels[1:].sum()
        listed = min(
            MOST_REGIONS, sum(one.is_drawn or bool(large) for one, large in zip(regions, is_large, strict=True))
        )
        tissue = of(1, len(self._counts))
        return {
            "tissue_share": round(self._tissue.share, 6),
            "tissue_mm2": tissue["area_mm2"],
            "cells": of(0, len(self._counts))["cells"],
            "cells_per_mm2": tissue["cells_per_mm2"],
            "regions": [
                {"name": region.title, "box": dict(zip(("left", "top", "right", "bottom"), region.box, strict=True)),
                 **of(number, number + 1)} for number, region in enumerate(regions[:listed], start=1)
            ],
            "other_regions": {"regions": len(regions) - listed, **of(listed + 1, len(regions) + 1)},
            "outside_of_regions": {"cells": of(0, 1)["cells"]},
        }  # fmt: skip
