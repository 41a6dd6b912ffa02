"""Tables of scores on the page of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.data.classes import TOTAL, CellClass
from src.evaluation.bootstrap import draw, order_in, spreads_of
from src.evaluation.measured import Measured
from src.evaluation.score_tables import spread_rows
from src.evaluation.scores import format_score

TABLE = (("AP50", "uncapped"), ("AP50", "at_100"), ("AP", "uncapped"), ("AP75", "uncapped"))


@dataclass(frozen=True)
class Resampling:
    """How often the images are resampled for intervals, 0 for never, and the file of their groups."""

    count: int
    groups: str | None = None


def score_rows(scores: dict[str, Any] | None, classes: Sequence[CellClass]) -> list[tuple[str, ...]]:
    """The table of scores: headings, all classes, each class."""
    scores = scores or {}
    rows: list[tuple[str, ...]] = [("class", *(f"{key} {cap.replace('_', ' ')}" for key, cap in TABLE), "PQ", "F1")]
    for cell_class in (None, *classes):
        key = str(cell_class.id) if cell_class else ""
        families = [scores[cap]["per_class"][key] if cell_class else scores[cap] for _, cap in TABLE]
        quality = scores["pq"]["per_class"][key] if cell_class else scores["pq"]["agnostic"]
        f1 = scores["f1"]["per_class"][key] if cell_class else scores["f1"]["detection"]
        values = [family[name] for family, (name, _) in zip(families, TABLE, strict=True)]
        rows.append((cell_class.name if cell_class else TOTAL, *map(format_score, (*values, quality["PQ"], f1))))
    return rows


@dataclass(frozen=True)
class FigureTable:
    """Rows of figures with their intervals, the headings first, and a line about these; ``name`` where it is of one."""

    name: str
    rows: list[tuple[str, ...]]
    note: str


def figure_tables(
    runs: Sequence[tuple[str, Measured, Sequence[CellClass]]], resampling: Resampling
) -> list[FigureTable]:
    """One table of all figures: of a run, or of two that were scored on the same images, with their differences.

    Two that were scored on different images have a table each.
    """
    if len(runs) > 1 and not _are_comparable(runs):
        note = "The runs were scored on different images, cells or classes, so their difference is not resampled."
        return [FigureTable(run[0], *_table([run], resampling, note)) for run in runs]
    return [FigureTable("", *_table(runs, resampling))] if runs else []


def _are_comparable(runs: Sequence[tuple[str, Measured, Sequence[CellClass]]]) -> bool:
    names = [[cell_class.name for cell_class in classes] for _, _, classes in runs]
    return names[0] == names[1] and order_in(runs[0][1], runs[1][1]) is not None


def _table(
    runs: Sequence[tuple[str, Measured, Sequence[CellClass]]], resampling: Resampling, note: str = ""
) -> tuple[list[tuple[str, ...]], str]:
    names, measured, classes = zip(*runs, strict=True)
    resamples = draw(measured[0].names, resampling.groups, resampling.count) if resampling.count else None
    said = f"{resamples.said()}." if resamples else ""
    return spread_rows(spreads_of(measured, resamples), names, classes[0]), f"{said} {note}".strip()
