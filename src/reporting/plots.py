"""The plots of a report, each a function of axes and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.evaluation.errors_by_cause import NONE, Outcomes
from src.reporting.curves import LOSSES, smooth
from src.reporting.html import INK, legend_name

DASHES = ("-", "--")  # of the first run and the second
BINS = np.linspace(0, 1, 11)
Events = Sequence[Mapping[str, Any]]


def losses(axes: Any, runs: Mapping[str, Events]) -> None:
    """Every loss over the steps, smoothed."""
    for dash, (name, events) in zip(DASHES, runs.items(), strict=False):
        steps = [event for event in events if event["event"] == "step"]
        for number, loss in enumerate(LOSSES):
            text = f"{loss} ({legend_name(name)})" if len(runs) > 1 and number == 0 else loss if dash == "-" else None
            values = smooth([event[loss] for event in steps])
            axes.plot([e["step"] for e in steps], values, dash, color=f"C{number}", label=text, lw=2 - bool(number))
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend(ncols=3, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1))  # beside the curves, not on them


def rates(axes: Any, runs: Mapping[str, Events]) -> None:
    """The learning rate over the steps."""
    for dash, (name, events) in zip(DASHES, runs.items(), strict=False):
        steps = [event for event in events if event["event"] == "step"]
        axes.plot(
            [event["step"] for event in steps],
            [event["lr"] for event in steps],
            dash,
            color=INK,
            label=legend_name(name),
        )
    axes.set(xlabel="step", ylabel="learning rate")
    axes.legend()


def validations(axes: Any, runs: Mapping[str, Events]) -> None:
    """AP50 and AP over the steps."""
    for dash, (name, events) in zip(DASHES, runs.items(), strict=False):
        for number, key in enumerate(("AP50", "AP50_at_100", "AP")):
            points = [(e["step"], e[key]) for e in events if e["event"] == "val" and e.get(key) is not None]
            if points:
                text = f"{key.replace('_', ' ')}" + (f" ({legend_name(name)})" if len(runs) > 1 else "")
                axes.plot(*zip(*points, strict=True), dash, marker="o", ms=3, color=f"C{number}", label=text)
    axes.set(xlabel="step", ylabel="validation", ylim=(0, None))
    if axes.lines:
        axes.legend(fontsize=7)


def precision_recall(axes: Any, precision: np.ndarray, classes: Sequence[CellClass]) -> None:
    """Precision ``(101, K)`` over recall at IoU 0.5, one curve per class."""
    for cell_class, values in zip(classes, precision.T, strict=True):
        if (values > -1).any():
            axes.plot(np.linspace(0, 1, 101), values, color=cell_class.color, label=legend_name(cell_class.name))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def scores(axes: Any, images: Sequence[Outcomes], threshold: float) -> None:
    """How many detections of each score are right and wrong."""
    values, hits = _scores(images)
    edges = np.linspace(0, 1, 41)
    look = {"histtype": "step", "lw": 1.6, "color": ["#2ca02c", "#d62728"], "label": ["right", "wrong"]}
    axes.hist([values[hits], values[~hits]], edges, **look)
    axes.axvline(threshold, color=INK, ls=":", lw=1)
    axes.set(xlabel="score", ylabel="detections", yscale="symlog")
    axes.legend()


def calibration(axes: Any, images: Sequence[Outcomes]) -> None:
    """Share of correct detections against their score."""
    values, hits = _scores(images)
    bins = np.clip(np.digitize(values, BINS) - 1, 0, len(BINS) - 2)
    count = np.bincount(bins, minlength=len(BINS) - 1)
    filled = count > 0
    mean, right = (np.bincount(bins, v, minlength=len(BINS) - 1)[filled] / count[filled] for v in (values, hits))
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    axes.plot(mean, right, marker="o", color="C0")
    error = float(np.abs(mean - right) @ count[filled] / max(count.sum(), 1))
    axes.set(xlabel="mean score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.text(0.03, 0.93, f"expected calibration error {error:.3f}", transform=axes.transAxes)


def counts(axes: Any, images: Sequence[Outcomes], classes: Sequence[CellClass]) -> None:
    """Number of confident detections against the true number of cells, one point per image and class."""
    highest = 1
    for cell_class in classes:
        true = [sum(cell.class_id == cell_class.id for cell in image.truths) for image in images]
        found = [sum(cell.class_id == cell_class.id for cell in image.confident) for image in images]
        axes.scatter(true, found, s=14, alpha=0.8, color=cell_class.color, label=legend_name(cell_class.name))
        highest = max(highest, *true, *found)
    axes.plot([0, highest], [0, highest], color=INK, lw=0.8, ls=":")
    axes.set(xlabel="true cells of an image", ylabel="cells found", xscale="symlog", yscale="symlog")
    axes.legend()


def sizes(axes: Any, images: Sequence[Outcomes], classes: Sequence[CellClass]) -> None:
    """Recall of the confident detections over the size of the cells, for sizes with at least ten cells."""
    for cell_class in classes:
        diameters, hits = [], []
        for image in images:
            missed = set(image.false_negatives().tolist())
            for index, cell in enumerate(image.truths):
                if cell.class_id == cell_class.id:
                    diameters.append(2 * np.sqrt(cell.area / np.pi))
                    hits.append(index not in missed)
        edges = np.arange(0, max(diameters, default=0) + 4, 4)
        which = np.digitize(diameters, edges) - 1
        count = np.bincount(which, minlength=len(edges))
        found = np.bincount(which, np.array(hits, float), minlength=len(edges))
        enough = count >= 10
        look = {"ms": 3, "color": cell_class.color, "label": legend_name(cell_class.name)}
        axes.plot(edges[enough] + 2, found[enough] / count[enough], "o-", **look)
    axes.set(xlabel="diameter of equal area, px", ylabel="share found", ylim=(0, 1))
    axes.legend()


def _scores(images: Sequence[Outcomes]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([cell.score for image in images for cell in image.detections], float)
    hits = np.concatenate([image.truth_of != NONE for image in images]) if images else np.zeros(0, bool)
    return values, hits
