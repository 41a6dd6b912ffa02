"""Class probabilities of detections, in a file beside the results that belongs to that one file of results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.common.files import companion, file_digest, read_json, write_json

DIGITS = 4  # after the point


def write_probabilities(results: Path, rows: Sequence[Sequence[float]]) -> None:
    """Write ``rows``, the probabilities of the classes 1..K of each entry, beside the results file, which is there."""
    write_json(companion(results, "probabilities"), {"results": file_digest(results), "probabilities": list(rows)})


def add_probabilities(results: Path, entries: Sequence[dict[str, Any]], class_count: int) -> list[str]:
    """Give the entries of a results file the probabilities that lie beside it, unless they have their own.

    Returns:
        A warning where what lies there does not belong to these results.
    """
    beside = companion(results, "probabilities")
    if not beside.is_file() or any("probabilities" in entry for entry in entries):
        return []
    content = read_json(beside)
    belongs = isinstance(content, dict) and content.get("results") == file_digest(results)
    rows = content.get("probabilities") if belongs else None
    if (
        not isinstance(rows, list)
        or len(rows) != len(entries)
        or not all(is_distribution(row, class_count) for row in rows)
    ):
        return [f"warning: {beside} does not belong to {results.name} as it is now, and is not used"]
    for entry, row in zip(entries, rows, strict=True):
        entry["probabilities"] = row
    return []


def is_distribution(values: Any, class_count: int) -> bool:
    """Whether a value is a list of K numbers in [0, 1] that sum to 1, but for rounding."""
    if not isinstance(values, list) or len(values) != class_count:
        return False
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        return False
    return abs(sum(values) - 1) <= class_count * 10**-DIGITS
