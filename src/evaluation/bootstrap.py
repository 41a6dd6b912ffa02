"""Bootstrap intervals of scores: images, or whole groups of them, are drawn again and again with replacement.

Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: the interval lies between percentiles of the
figure over the resamples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.data.names import ImageNames
from src.data.splits import read_groups
from src.evaluation.measured import Measured
from src.evaluation.scores import figures, map_figures

LEVEL = 0.95
SEED = 0
FEW = 5  # groups, below which intervals say little
RESAMPLES = 1000
BATCH = 100  # resamples at once


@dataclass(frozen=True, eq=False)
class Resamples:
    """Choices of images, ``weights`` (N, I) saying how often each counts; they lie in ``group_count`` groups."""

    weights: np.ndarray
    group_count: int


def resample(groups: Sequence[Hashable], count: int) -> Resamples:
    """Draw as many groups as there are, with replacement, ``count`` times; equal arguments give equal resamples.

    Args:
        groups: ``(I,)`` the group of each image.
        count: N.
    """
    _, member = np.unique([str(group) for group in groups], return_inverse=True)
    total = int(member.max()) + 1
    drawn = np.random.default_rng(SEED).multinomial(total, np.full(total, 1 / total), size=count)
    return Resamples(drawn[:, member].astype(np.float64), total)


def groups_of(names: Sequence[str], path: str | Path) -> list[str]:
    """The group that a file names for each image (see :func:`src.data.splits.read_groups`).

    Raises:
        InputError: an image has none.
    """
    groups = read_groups(path)
    known = ImageNames(groups)
    values = list(groups.values())
    places = [known.find(name, path) for name in names]
    for name, place in zip(names, places, strict=True):
        if place is None:
            raise InputError(f"{path}: {name} has no group")
    return [values[place] for place in places if place is not None]


def resampled(measured: Measured, resamples: Resamples) -> dict[str, Any]:
    """Every figure in every resample, as :func:`src.evaluation.scores.figures` gives them."""
    weights = resamples.weights
    parts = [figures(measured, weights[start : start + BATCH]) for start in range(0, len(weights), BATCH)]
    return map_figures(lambda *values: np.concatenate(values), *parts)


def intervals(values: Mapping[str, Any]) -> dict[str, Any]:
    """``[low, high]`` of each figure, from its values in all resamples in which it is defined; ``None`` without any."""
    return map_figures(_interval, values)


def differences(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Each figure minus the other's in the same resample: a paired bootstrap."""
    return map_figures(np.subtract, values, others)


def _interval(values: np.ndarray) -> list[float] | None:
    known = values[~np.isnan(values)]
    return np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist() if len(known) else None
