"""Scores as rows of text."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from src.data.classes import TOTAL, CellClass
from src.evaluation.bootstrap import LEVEL, Spread, Spreads
from src.evaluation.measured import CAPS
from src.evaluation.scores import AP_KEYS, MAIN_FIGURES, PQ_KEYS, figure_at, format_score

OVERALL = (("AJI", "AJI+", "Dice"), ("mPQ", "mPQ+"))  # of scores["overlap"] and of scores["pq"]
SHOWN_IOU = {"0.50": "IoU >= 0.50", "0.75": "IoU >= 0.75", "mean": "mean 0.50:0.95"}


def format_table(result: dict[str, Any], classes: Sequence[CellClass]) -> str:
    """The result of :func:`src.evaluation.scores.score` as two tables for people; ``-`` stands for no ground truth."""
    threshold = f"score >= {result['pq']['threshold']:g}"
    groups = ("at 100 detections", "uncapped", f"PQ ({threshold})")
    rows = [(TOTAL, *_row(result, None))]
    rows += [(f"{cell_class.id} {cell_class.name}", *_row(result, str(cell_class.id))) for cell_class in classes]
    first = max(len("class"), *(len(row[0]) for row in rows))
    lines = [" " * first + "".join(f"  {group:^22}" for group in groups) + "  centroids"]
    lines += [f"{'class':{first}}" + "".join(f"  {key:>6}" for key in (*AP_KEYS, *AP_KEYS, *PQ_KEYS, "F1"))]
    lines += [f"{row[0]:{first}}" + "".join(f"  {cell:>6}" for cell in row[1:]) for row in rows]
    lines += ["", *_overall_lines(result, first, threshold)]
    images = f"{result['images']} image{'s' if result['images'] != 1 else ''}"
    note = (
        f'{images}. In row "all" AP is the mean over classes with ground truth, PQ the mean over images and F1 that of'
        f" all cells, both with classes ignored. Centroids are paired within {result['f1']['radius']:g} px. AJI, AJI+"
        " and Dice are means over images. docs/scores.md defines every figure."
    )
    return "\n".join([*lines, note])


def _row(result: dict[str, Any], class_id: str | None) -> list[str]:
    """The ten figures of one class, or of all (``None``), as text."""
    families = [result[name] if class_id is None else result[name]["per_class"][class_id] for name, _ in CAPS]
    quality = result["pq"]["agnostic"] if class_id is None else result["pq"]["per_class"][class_id]
    f1 = result["f1"]["detection"] if class_id is None else result["f1"]["per_class"][class_id]
    values = [family[key] for family in families for key in AP_KEYS] + [quality[key] for key in PQ_KEYS] + [f1]
    return [_text(value) for value in values]


def _overall_lines(result: dict[str, Any], first: int, threshold: str) -> list[str]:
    """The figures that are not of single classes: two lines of headings and one of figures."""
    overall = {key: result[part][key] for part, keys in zip(("overlap", "pq"), OVERALL, strict=True) for key in keys}
    pairs = [_text(result["by_iou"][name][key]) for key in SHOWN_IOU for name in ("F1", "accuracy")]
    width = 8 * len(overall)
    return [
        (f"{'':{first}}{threshold:^{width}}" + "".join(f"  {title:^16}" for title in SHOWN_IOU.values())).rstrip(),
        f"{'':{first}}" + "".join(f"  {key:>6}" for key in overall) + "  {:>6}  {:>8}".format("F1", "accuracy") * 3,
        f"{'all':{first}}"
        + "".join(f"  {_text(value):>6}" for value in overall.values())
        + "".join(f"  {one:>6}  {other:>8}" for one, other in zip(pairs[::2], pairs[1::2], strict=True)),
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def spread_rows(spreads: Spreads, names: Sequence[str], classes: Sequence[CellClass]) -> list[tuple[str, ...]]:
    """Headings, and a row for each main figure and class: each result's figure and interval, then their difference.

    There are no intervals where nothing was resampled. ``names`` are those of two results; one alone needs none.
    """
    titles = list(names) if spreads.difference else ["value"]
    shown = [(title, one, format_score) for title, one in zip(titles, spreads.each, strict=True)]
    if spreads.difference:
        shown.append((f"{names[0]} - {names[1]}", spreads.difference, _signed))
    columns = 2 if spreads.resampled else 1
    headings = ((title, f"{LEVEL:.0%} interval")[:columns] for title, _, _ in shown)
    rows = [("figure", *chain.from_iterable(headings))]
    for label, place in _places(classes).items():
        cells = (_cells(one, place, text)[:columns] for _, one, text in shown)
        rows.append((label, *chain.from_iterable(cells)))
    return rows


def _places(classes: Sequence[CellClass]) -> dict[str, tuple[str, ...]]:
    """Where the figures that are compared stand, those of single classes last."""
    of_classes = {
        f"{title}, {cell_class.name}": (*place, str(cell_class.id), *key)
        for title, place, key in (
            ("AP50", ("uncapped", "per_class"), ("AP50",)),
            ("PQ", ("pq", "per_class"), ("PQ",)),
            ("F1 by centroids", ("f1", "per_class"), ()),
        )
        for cell_class in classes
    }
    return {**MAIN_FIGURES, **of_classes}


def _cells(spread: Spread, place: Sequence[str], text: Any) -> tuple[str, str]:
    limits = figure_at(spread.intervals, place)
    return text(figure_at(spread.figures, place)), " to ".join(map(text, limits)) if limits else "-"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of text, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [f"{row[0]:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
