"""The score from which a prediction counted and drew cells, in a file beside its results."""

from pathlib import Path

from src.common.errors import InputError
from src.common.files import companion, read_json, write_json
from src.common.values import number

CONFIDENT = 0.5  # the score from which PQ counts a cell, and every export where nothing else is known


def write_settings(results: str | Path, min_score: float) -> None:
    """Write ``results.settings.json``: ``min_score``, in [0, 1], as ``--min-score`` gave it."""
    write_json(companion(results, "settings"), {"min_score": min_score})


def read_min_score(results: str | Path) -> tuple[float, str]:
    """The score from which cells of a results file count, and in words where it comes from.

    Raises:
        InputError: the file beside the results is damaged, or its score is not in [0, 1].
    """
    beside = companion(results, "settings")
    if not beside.is_file():
        return CONFIDENT, "the default"
    content = read_json(beside)
    found = number(content.get("min_score")) if isinstance(content, dict) else None
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= 1:
        raise InputError(f"{beside}: its min_score is not a number in [0, 1]")
    return float(found), f"of {beside.name}"
