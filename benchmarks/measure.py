"""Interleaved timing, peak memory, and the rows of the table."""

import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

Call = Callable[[], object]
WAITING = ("aten::nonzero", "aten::_local_scalar_dense", "aten::_unique2")


@dataclass(frozen=True)
class Row:
    """One promise and what was measured: samples of ours and, where there is one, of the plain way."""

    what: str
    unit: str
    ours: Sequence[float]
    plain: Sequence[float] = ()
    least_ratio: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median of the plain way over median of ours."""
        return median(self.plain) / median(self.ours) if self.plain else None

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        fast = self.ratio is None or self.least_ratio is None or self.ratio >= self.least_ratio
        return fast and (self.at_most is None or median(self.ours) <= self.at_most)

    def to_json(self) -> dict[str, Any]:
        """Everything, for the JSON file."""
        return {
            **vars(self),
            "ours": list(self.ours),
            "plain": list(self.plain),
            "ratio": self.ratio,
            "kept": self.kept,
        }


def interleaved(repeats: int, *calls: Call) -> list[list[float]]:
    """Seconds of each call, in turn ``repeats`` times after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for samples, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            call()
            if repeat:
                samples.append(time.perf_counter() - start)
    return seconds


def milliseconds(seconds: Sequence[float], per: int = 1) -> list[float]:
    """Seconds as milliseconds for each of ``per`` items."""
    return [1000 * value / per for value in seconds]


def peak_megabytes(call: Call) -> float:
    """The most memory that Python, NumPy and OpenCV hold at once during a call, on top of what they held before."""
    call()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def waits(call: Call) -> int:
    """How often a call asks for a value or a shape that only the data decide: there a GPU's work must be waited for.

    Counted by the profiler, on a CPU too; copies to the host are not among them.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    return sum(event.count for event in profiler.key_averages() if event.key in WAITING)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, medians with their spread."""
    lines = [
        "| what | plain | ours | ratio | wanted | kept |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        wanted = [f"≥ {row.least_ratio:g} x"] if row.least_ratio is not None else []
        wanted += [f"≤ {row.at_most:g} {row.unit}"] if row.at_most is not None else []
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        cells = (row.what, _spread(row.plain, row.unit), _spread(row.ours, row.unit), ratio, ", ".join(wanted))
        lines.append(f"| {' | '.join(cells)} | {'yes' if row.kept else 'NO'} |")
    return "\n".join(lines)


def _spread(samples: Sequence[float], unit: str) -> str:
    if not samples:
        return ""
    middle = f"{_figure(median(samples))} {unit}"
    return middle if len(samples) == 1 else f"{middle} ({_figure(min(samples))}-{_figure(max(samples))})"


def _figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
