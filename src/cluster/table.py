"""``cohort.csv``: a row per slide, with what became of it."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.cluster.finished import read_summary
from src.cluster.tasks import SlideTask
from src.common.files import write_text

COLUMNS = ("slide", "output", "status", "seconds", "mm2", "cells", "reason")
DONE, FAILED, WAITING = "done", "failed", "waiting"


@dataclass(frozen=True)
class Row:
    """What became of a slide: ``done``, with the seconds of its process, ``failed`` with the reason, or ``waiting``."""

    status: str = WAITING
    seconds: float | None = None
    reason: str = ""


def write_table(path: Path, tasks: Sequence[SlideTask], rows: Mapping[str, Row]) -> None:
    """Write a row per slide, in the order of the tasks; one that ``rows`` lacks waits. Areas are of tissue, in mm²."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_cells_of(task, rows.get(task.slide, Row())) for task in tasks)
    write_text(path, os.fsencode(text.getvalue()).decode(errors="replace"))  # names of files may be no UTF-8


def _cells_of(task: SlideTask, row: Row) -> list[object]:
    summary = read_summary(task.folder) if row.status == DONE else {}
    seconds = "" if row.seconds is None else round(row.seconds, 1)
    area, cells = summary.get("tissue_mm2", ""), (summary.get("cells") or {}).get("all", "")
    return [task.slide, task.folder, row.status, seconds, "" if area is None else area, cells, row.reason]
