"""Bootstrap intervals of scores: images, or whole groups of them, are drawn again and again with replacement.

Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: the interval lies between percentiles of the
figure over the resamples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.data.names import ImageNames
from src.data.splits import read_groups
from src.evaluation.measured import Measured
from src.evaluation.scores import figures, map_figures, plain_figures

LEVEL = 0.95
SEED = 0
FEW = 10  # groups, below which intervals mean little
RESAMPLES = 1000
MAX_RESAMPLES = 10_000
BATCH = 100  # resamples at once


@dataclass(frozen=True, eq=False)
class Resamples:
    """Choices of images, ``weights`` (N, I) saying how often each counts; they lie in ``group_count`` groups."""

    weights: np.ndarray
    group_count: int
    by_image: bool  # whether each image is a group by itself, because no file names groups

    def said(self) -> str:
        """A line for the user about what was drawn, with a warning where that is of few groups."""
        if self.group_count < 2:
            return "no intervals: they need at least two groups of images (see --groups)"
        kind = "images, each a group by itself (see --groups)" if self.by_image else "groups of images"
        few = f"; intervals from fewer than {FEW} groups mean little" if self.group_count < FEW else ""
        return f"{LEVEL:.0%} intervals from {len(self.weights)} bootstrap resamples of {self.group_count} {kind}{few}"


def draw(names: Sequence[str], groups_file: str | Path | None, count: int) -> Resamples:
    """Draw as many groups of images as there are, with replacement, ``count`` times.

    Equal arguments give equal resamples. Without a file of groups each image is a group by itself.

    Raises:
        InputError: the file is malformed, or has no group for an image.
    """
    groups = names if groups_file is None else groups_of(names, groups_file)
    return resample(groups, count, by_image=groups_file is None)


def resample(groups: Sequence[Hashable], count: int, by_image: bool = False) -> Resamples:
    """``count`` resamples of the groups of images, ``groups`` (I,) being the group of each."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    total = len(numbers)
    drawn = np.random.default_rng(SEED).multinomial(total, np.full(total, 1 / total), size=count)
    return Resamples(drawn[:, [numbers[group] for group in groups]].astype(np.float64), total, by_image)


def groups_of(names: Sequence[str], path: str | Path) -> list[str]:
    """The group that a file names for each image (see :func:`src.data.splits.read_groups`)."""
    groups = read_groups(path)
    known, values = ImageNames(groups), list(groups.values())
    found = []
    for name in names:
        place = known.find(name, path)
        if place is None:
            raise InputError(f"{path}: {name} has no group")
        found.append(values[place])
    return found


def order_in(measured: Measured, other: Measured) -> list[int] | None:
    """The place among the images of ``measured`` of each image of ``other``.

    ``None`` where the two are not of the same images with the same numbers of true cells of each class.
    """
    known = ImageNames(measured.names)
    places = [known.find(name, "--pred") for name in other.names]
    order = [place for place in places if place is not None]
    if sorted(order) != list(range(len(measured.names))) or len(order) != len(places):
        return None
    return order if np.array_equal(measured.panoptic.truths[order], other.panoptic.truths) else None


def bootstrap(measured: Measured, weights: np.ndarray) -> dict[str, Any]:
    """Every figure in every resample, as :func:`src.evaluation.scores.figures` gives them."""
    parts = [figures(measured, weights[start : start + BATCH]) for start in range(0, len(weights), BATCH)]
    return map_figures(lambda *values: np.concatenate(values), *parts)


@dataclass(frozen=True, eq=False)
class Spread:
    """Figures of all images and the interval ``[low, high]`` of each, both nested as the scores are.

    A figure is ``None`` where it is not defined, and an interval where the figure is defined in no resample, or where
    nothing was resampled.
    """

    figures: dict[str, Any]
    intervals: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Spreads:
    """The figures of one or two result files, and those of the first minus those of the second.

    ``resampled`` tells whether there are intervals.
    """

    resampled: bool
    each: list[Spread]
    difference: Spread | None


def spreads_of(measured: Sequence[Measured], resamples: Resamples | None) -> Spreads:
    """Figures and intervals of one or two result files of the same images; two are resampled alike.

    The resamples are of the images of the first, in its order; of a single group there are no intervals. Results of
    other images (see :func:`order_in`) raise ``ValueError``.
    """
    orders = [order_in(measured[0], one) for one in measured]
    if None in orders:
        raise ValueError("the results are of different images")
    weights = np.zeros((0, len(measured[0].names)))
    if resamples and resamples.group_count > 1:  # draws of one group are all alike
        weights = resamples.weights
    plain = [plain_figures(one) for one in measured]
    values = [
        bootstrap(one, weights[:, order]) if len(weights) else None for one, order in zip(measured, orders, strict=True)
    ]
    each = [Spread(figures, _intervals(drawn, figures)) for figures, drawn in zip(plain, values, strict=True)]
    if len(measured) < 2:
        return Spreads(len(weights) > 0, each, None)
    difference = map_figures(lambda a, b: None if a is None or b is None else a - b, *plain)
    drawn = map_figures(np.subtract, *values) if len(weights) else None
    return Spreads(len(weights) > 0, each, Spread(difference, _intervals(drawn, difference)))


def _intervals(values: dict[str, Any] | None, figures: dict[str, Any]) -> dict[str, Any]:
    return map_figures(_interval, values) if values else map_figures(lambda figure: None, figures)


def _interval(values: np.ndarray) -> list[float] | None:
    known = values[~np.isnan(values)]
    return np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist() if len(known) else None
