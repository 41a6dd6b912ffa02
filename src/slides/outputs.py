"""The folder of a finished slide: its cells for QuPath and for tables, an overview, and a summary."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.common.files import write_json, writing
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.formats.writers.batches import batches
from src.formats.writers.geojson import GeoJsonCells
from src.formats.writers.parquet import FILE_NAME, ParquetCells
from src.geometry.instances import Instance
from src.reporting.draw import legend, write_png
from src.slides.shards import Shards
from src.slides.tissue import Tissue

CELLS, OVERVIEW, SUMMARY = "cells.geojson.gz", "overview.png", "summary.json"
TISSUE_COLOR = (0, 0, 0)


@dataclass(frozen=True)
class SlideInfo:
    """What the outputs say of a slide: its name and size in the px of its file, its resolution, classes and tissue."""

    image: ImageId
    mpp: float | None
    classes: Sequence[CellClass]
    tissue: Tissue

    @property
    def tissue_mm2(self) -> float | None:
        """The area of tissue in mm²; ``None`` where the resolution is not known."""
        if self.mpp is None:
            return None
        return self.tissue.share * self.image.height * self.image.width * self.mpp**2 / 1e6


def write_outputs(
    folder: Path, info: SlideInfo, shards: Shards, min_score: float, about: Mapping[str, Any]
) -> Counter[int]:
    """Write the folder of a slide, which appears whole or not at all.

    Args:
        folder: what is there before is replaced.
        info: the slide.
        shards: its cells.
        min_score: cells below it are left out.
        about: what else the summary says: settings and times.

    Returns:
        The number of cells by class id.
    """
    staged = folder.with_name(f".{folder.name}.tmp")
    with writing(folder):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        counts = _write_cells(staged, info, confident_cells(shards, min_score))
        summary = {"slide": info.image.file_name, **summarize(info, counts), "min_score": min_score, **about}
        write_json(staged / SUMMARY, summary, indent=1)
        shutil.rmtree(folder, ignore_errors=True)
        staged.replace(folder)
    return counts


def confident_cells(shards: Shards, min_score: float) -> Iterator[list[Instance]]:
    """The cells of each shard from a score up."""
    for cells in shards.cells():
        yield [cell for cell in cells if cell.score >= min_score]


def _write_cells(folder: Path, info: SlideInfo, parts: Iterator[list[Instance]]) -> Counter[int]:
    """Write the cells and the overview in one pass."""
    by_id = {cell_class.id: cell_class for cell_class in info.classes}
    counts: Counter[int] = Counter()
    picture = Overview(info)
    with (
        GeoJsonCells(folder / CELLS, info.image, by_id, info.mpp) as outlines,
        ParquetCells(folder / FILE_NAME, by_id, info.mpp) as table,
    ):
        for batch in batches(chain.from_iterable(parts)):
            outlines.add(batch)
            table.add(info.image, batch, counts.total() + 1)
            picture.add(batch.cells)
            counts.update(cell.class_id for cell in batch.cells)
    write_png(folder / OVERVIEW, picture.finished(counts))
    return counts


def summarize(info: SlideInfo, counts: Mapping[int, int]) -> dict[str, Any]:
    """Counts, and cells per mm² of tissue, by class and in all."""
    area = info.tissue_mm2
    numbers = {cell_class.name: counts.get(cell_class.id, 0) for cell_class in info.classes}
    numbers["all"] = sum(numbers.values())
    return {
        "height": info.image.height,
        "width": info.image.width,
        "mpp": info.mpp,
        "tissue_share": round(info.tissue.share, 6),
        "tissue_mm2": None if area is None else round(area, 6),
        "cells": numbers,
        "cells_per_mm2": {name: round(number / area, 3) if area else None for name, number in numbers.items()},
    }


class Overview:
    """A thumbnail of the slide with the outline of its tissue, and a dot per cell in the colour of its class."""

    def __init__(self, info: SlideInfo) -> None:
        self._info = info
        self._picture = np.ascontiguousarray(info.tissue.picture)
        contours, _ = cv2.findContours(info.tissue.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self._picture, contours, -1, TISSUE_COLOR, 1)
        self._colors = {cell_class.id: cell_class.rgb for cell_class in info.classes}

    def add(self, cells: Sequence[Instance]) -> None:
        """Draw cells."""
        height, width = self._picture.shape[:2]
        down, across = height / self._info.image.height, width / self._info.image.width
        for cell in cells:
            row, column = (cell.top + cell.bottom) / 2 * down, (cell.left + cell.right) / 2 * across
            cv2.circle(self._picture, (int(column), int(row)), 1, self._colors[cell.class_id], -1)

    def finished(self, counts: Mapping[int, int]) -> np.ndarray:
        """The picture with a legend."""
        return legend(self._picture, self._info.classes, Counter(counts))
