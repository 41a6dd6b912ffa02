"""The folder of a finished slide: its cells for QuPath and for tables, an overview, and a summary."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.files import write_json, writing
from src.common.memory import give_back_memory
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.formats.slide_folder import CELLS, OVERVIEW, SUMMARY, TABLE
from src.formats.writers.batches import batches
from src.formats.writers.geojson import GeoJsonCells
from src.formats.writers.parquet import ParquetCells
from src.geometry.instances import Instance
from src.reporting.draw import write_png
from src.slides.densities import RegionCounts
from src.slides.overview import Overview
from src.slides.shards import Shards
from src.slides.tissue import Tissue


@dataclass(frozen=True)
class SlideInfo:
    """What the outputs say of a slide: its name and size in the px of its file, its resolution, classes and tissue."""

    image: ImageId
    mpp: float | None
    classes: Sequence[CellClass]
    tissue: Tissue


def write_outputs(
    folder: Path, info: SlideInfo, shards: Shards, min_score: float, about: Mapping[str, Any]
) -> Mapping[int, int]:
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
    staged, old = _beside(folder)
    remove_remains(folder)
    try:
        with writing(folder):
            staged.mkdir(parents=True)
            counts = _write_cells(staged, info, confident_cells(shards, min_score))
            image = {"slide": info.image.file_name, "height": info.image.height, "width": info.image.width}
            summary = {**image, "mpp": info.mpp, **counts.summary(info.mpp), "min_score": min_score, **about}
            write_json(staged / SUMMARY, summary, indent=1)
            _flush(staged)
            if folder.exists():
                folder.replace(old)
            staged.replace(folder)
    finally:
        remove_remains(folder)
    return counts.by_class()


def remove_remains(folder: Path) -> None:
    """Delete what an interrupted :func:`write_outputs` leaves beside the folder of a slide."""
    for path in _beside(folder):
        shutil.rmtree(path, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where the outputs of a slide are written, and where those before lie while they are replaced."""
    return folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")


def _flush(folder: Path) -> None:
    """Have the files of a folder written to the disk itself, because what they were made from is deleted next."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def confident_cells(shards: Shards, min_score: float) -> Iterator[Instance]:
    """The cells of all shards from a score up."""
    for cells in shards.cells():
        yield from (cell for cell in cells if cell.score >= min_score)
        give_back_memory()


def _write_cells(folder: Path, info: SlideInfo, cells: Iterable[Instance]) -> RegionCounts:
    """Write the cells and the overview in one pass, and count the cells."""
    by_id = {cell_class.id: cell_class for cell_class in info.classes}
    counts, picture, label = RegionCounts(info.tissue, info.classes), Overview(info.tissue, info.classes), 1
    with (
        GeoJsonCells(folder / CELLS, info.image, by_id, info.mpp) as outlines,
        ParquetCells(folder / TABLE, by_id, info.mpp) as table,
    ):
        for batch in batches(cells):
            outlines.add(batch)
            table.add(info.image, batch, label)
            picture.add(batch)
            counts.add(batch)
            label += len(batch.cells)
    write_png(folder / OVERVIEW, picture.finished(counts.by_class()))
    return counts
