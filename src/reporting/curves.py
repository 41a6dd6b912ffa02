"""A picture of a run: losses, learning rate and validation scores over the steps, from its ``log.jsonl``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.common.files import read_lines, replacing

LOSSES = ("loss", "classifier", "box", "mask", "objectness", "rpn_box")
SCORES = {"AP50": "AP50 uncapped", "AP50_at_100": "AP50 at 100", "AP": "AP uncapped"}


def write_curves(folder: Path) -> None:
    """Draw ``curves.png`` of a run folder; without a step in the log there is nothing to draw."""
    events = [event for event in read_lines(folder / "log.jsonl") if "event" in event]
    steps, validations = ([event for event in events if event["event"] == kind] for kind in ("step", "val"))
    if not steps:
        return
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(9, 7), layout="constrained")
    loss_axes, score_axes, rate_axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    for name in LOSSES:
        values = smooth([event[name] for event in steps])
        loss_axes.plot([event["step"] for event in steps], values, label=name, linewidth=2 if name == "loss" else 1)
    for key, label in SCORES.items():
        points = [(event["step"], event[key]) for event in validations if event.get(key) is not None]
        score_axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label) if points else None
    rate_axes.plot([event["step"] for event in steps], [event["lr"] for event in steps])
    _style(loss_axes, "training loss (smoothed)")
    _style(score_axes, "validation", (0, 1))
    _style(rate_axes, "learning rate")
    rate_axes.set_xlabel("step")
    with replacing(folder / "curves.png") as temporary:
        figure.savefig(temporary, dpi=100)


def smooth(values: Sequence[float], window: int = 25) -> np.ndarray:
    """Mean over the last ``window`` values, fewer at the start; as many values as came in."""
    sums = np.cumsum(np.concatenate(([0.0], values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _style(axes: Any, title: str, limits: tuple[float, float] | None = None) -> None:
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, ncols=2)
    if limits and axes.lines:
        axes.set_ylim(limits[0], min(limits[1], max(0.1, 1.15 * max(max(line.get_ydata()) for line in axes.lines))))
