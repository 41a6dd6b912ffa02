"""Sums and means over images that count several times, or not at all, as in a resample of them.

``weights`` is ``(N, I)`` float64: how often each of I images counts in each of N rows. NaN stands for a figure that is
not defined.
"""

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis of the values that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def mean_over_images(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``(N,)`` means of a figure ``(I,)`` of single images; images in which it is NaN are left out."""
    known = ~np.isnan(values)
    return ratio(weights @ np.where(known, values, 0), weights @ known)
