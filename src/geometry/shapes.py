"""Measures of the shapes of many objects at once, as scikit-image defines them."""

from collections.abc import Mapping

import numpy as np

from src.geometry.stacks import Stack

# What a pixel of the border adds to the perimeter, by 1, and 2 for each neighbour along a row or a column, and 10 for
# each along a diagonal, that is of the border too: Benkrid and Crookes, "Design and FPGA Implementation of a Perimeter
# Estimator", as in skimage.measure.perimeter with a neighbourhood of 4.
PERIMETER = np.zeros(50)
PERIMETER[[5, 7, 15, 17, 25, 27]] = 1
PERIMETER[[21, 33]] = np.sqrt(2)
PERIMETER[[13, 23]] = (1 + np.sqrt(2)) / 2

Measures = Mapping[str, np.ndarray]


def measure(stack: Stack) -> Measures:
    """The shapes of the objects of a stack, in px of their image.

    Returns:
        ``(N,)`` values by name: ``area`` int64; ``centroid_x`` and ``centroid_y``, where the centre of the first pixel
        is at (0, 0); ``diameter``, that of the circle with the same area; ``major_axis`` and ``minor_axis``, those of
        the ellipse with the same second moments, and its ``eccentricity`` in [0, 1]; ``perimeter``; all float64.
    """
    area, x, y, xx, yy, xy = _moments(stack)
    x, y = x / area, y / area
    xx, yy, xy = xx / area - x * x, yy / area - y * y, xy / area - x * y
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    large, small = middle + spread, np.maximum(middle - spread, 0)
    return {
        "area": area.astype(np.int64),
        "centroid_x": x + stack.places[:, 0],
        "centroid_y": y + stack.places[:, 1],
        "diameter": np.sqrt(4 * area / np.pi),
        "major_axis": 4 * np.sqrt(large),
        "minor_axis": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(1 - small / np.where(large > 0, large, 1)) * (large > 0),
        "perimeter": _perimeters(stack),
    }


def _moments(stack: Stack) -> list[np.ndarray]:
    """``(N,)`` float64 sums over the pixels of 1, x, y, x², y² and x y, where an object's own first px is at (0, 0).

    They are summed over runs of pixels along rows.
    """
    pixels, width = stack.pixels.ravel(), stack.pixels.shape[1]
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    row, start = np.divmod(changes[::2], width)
    stop = start + changes[1::2] - changes[::2]
    owner = stack.objects_at(row)
    y, start, stop = row - stack.rows[owner], start - 1, stop - 1
    count = stop - start
    x = count * (start + stop - 1) // 2
    xx = _squares_below(stop) - _squares_below(start)
    sums = (count, x, count * y, xx, count * y * y, x * y)
    return [np.bincount(owner, values, minlength=len(stack)) for values in sums]


def _squares_below(stop: np.ndarray) -> np.ndarray:
    """0² + 1² + … + (stop - 1)²."""
    return (stop - 1) * stop * (2 * stop - 1) // 6


def _perimeters(stack: Stack) -> np.ndarray:
    border, (places, owner) = stack.border.ravel(), stack.border_places
    width = stack.border.shape[1]
    rows = border[places - 1] + border[places + 1] + border[places - width] + border[places + width]
    diagonals = sum(border[places + step] for step in (-width - 1, -width + 1, width - 1, width + 1))
    return np.bincount(owner, PERIMETER[1 + 2 * rows + 10 * diagonals], minlength=len(stack))
