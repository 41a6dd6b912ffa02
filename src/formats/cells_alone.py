"""Export the cells of GeoJSON files without their images: those of a slide, say."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from src.common.errors import InputError, counted
from src.common.files import companion, write_json
from src.common.limits import max_pixels
from src.common.progress import ProgressBar
from src.data.classes import to_json
from src.data.id_map import write_id_map
from src.evaluation.probabilities import write_probabilities
from src.evaluation.result_settings import write_settings
from src.evaluation.results import result_entries, write_results
from src.evaluation.rle import MAX_PIXELS
from src.formats.conversion import check_export, check_import, nothing_in, what_was_found
from src.formats.exported import ExportSettings
from src.formats.exporters import EXPORTERS, LABEL_IMAGES
from src.formats.imported import ImportSettings
from src.formats.readers.geojson_cells import CellsOfImage, CellSource, open_cells
from src.formats.writers.coco import export_coco
from src.geometry.instances import Instance

COCO, RESULTS = "coco", "results"
WITH_SIZE = (*LABEL_IMAGES, COCO, RESULTS)  # formats that say the size of the image


def export_cells(path: Path, out: Path, kind: str, settings: ImportSettings, export: ExportSettings) -> str:
    """Export the cells of a GeoJSON file or folder; lines that sum it up. All cells stay, also those that overlap.

    Where no flag says µm per px, they are those of the predicted slides, if these have the same.

    Raises:
        InputError: a file is damaged, the size of its image is needed and not known, or is too large for the format.
    """
    check_import("geojson", path, settings)
    check_export(kind, export)
    found = open_cells(path, settings, kind in WITH_SIZE)
    if not found.images:
        raise nothing_in(path, "geojson")
    for image in found.images:
        _check_size(image, kind)
    export = replace(export, mpp=export.mpp or found.mpp)
    counts: Counter[str] = Counter()
    if kind in (COCO, RESULTS):
        _write_one_file(out, kind, found, export, counts)
    else:
        _write_files(out, kind, found, export, counts)
    number = counts["covered"]
    covered = [f"{number:,} cells are covered by others with higher scores, in part or wholly"] if number else []
    score = f" (score >= {export.min_score:g})" if counts["below the score"] else ""
    last = f"wrote {out}: {counted(counts['cells'], 'cell')}{score} in {counted(len(found.images), 'image')}"
    return "\n".join([*what_was_found(found.source, Counter()), *covered, last])


def _check_size(image: CellsOfImage, kind: str) -> None:
    """Refuse an image that is larger than a format can say, or than is held in memory."""
    most = min(MAX_PIXELS, max_pixels()) if kind in LABEL_IMAGES else MAX_PIXELS
    height, width = image.image.height, image.image.width
    if kind in WITH_SIZE and height * width > most:
        limit = f"{most:,} px" + " (see --max-pixels)" * (most < MAX_PIXELS)
        raise InputError(
            f"{image.path}: its image is {height} x {width} px, and --to {kind} takes at most {limit};"
            " csv, parquet and geojson take any"
        )


def _confident(cells: Iterable[Instance], least: float, counts: Counter[str]) -> Iterator[Instance]:
    """The cells from a score up; both kinds are counted."""
    for cell in cells:
        is_kept = cell.score >= least
        counts["cells" if is_kept else "below the score"] += 1
        if is_kept:
            yield cell


def _write_files(out: Path, kind: str, found: CellSource, export: ExportSettings, counts: Counter[str]) -> None:
    """Write a format of which a file holds one image, or all as they come."""
    classes = {cell_class.id: cell_class for cell_class in found.source.classes}
    with EXPORTERS[kind](out, classes, export) as write:
        for one in ProgressBar(found.images, "convert"):
            counts["covered"] += write(one.image, _confident(one.cells(), export.min_score, counts))


def _write_one_file(out: Path, kind: str, found: CellSource, export: ExportSettings, counts: Counter[str]) -> None:
    """Write a COCO file, or results with what lies beside them."""
    images, classes = [one.image for one in found.images], found.source.classes
    cells = {one.image.id: list(_confident(one.cells(), export.min_score, counts)) for one in found.images}
    if kind == COCO:
        export_coco(out, images, cells, classes)
        return
    entries = [entry for one in images for entry in result_entries(one.id, cells[one.id], one.height, one.width)]
    write_results(out, entries)
    rows = [cell.probabilities for one in images for cell in cells[one.id]]
    if rows and all(rows):
        write_probabilities(out, rows)
    write_id_map(companion(out, "id-map"), images)
    write_json(companion(out, "classes"), to_json(classes))
    write_settings(out, export.min_score)
