"""Measures are those of scikit-image."""

import numpy as np
import pytest
from skimage.measure import regionprops

from src.geometry.instances import Instance
from src.geometry.shapes import measure
from src.geometry.stacks import Stack
from tests.geometry.test_outlines import random_cells


def measured(*masks: np.ndarray) -> dict[str, np.ndarray]:
    return dict(measure(Stack.of([Instance(1, 1.0, 7, 9, mask.astype(bool)) for mask in masks])))


def test_a_rectangle_has_known_measures() -> None:
    found = {name: values.item() for name, values in measured(np.ones((3, 6))).items()}
    assert found == {
        "area": 18,
        "centroid_x": 11.5,
        "centroid_y": 8.0,
        "diameter": pytest.approx(np.sqrt(72 / np.pi)),
        "major_axis": pytest.approx(4 * np.sqrt(35 / 12)),  # the variance of 6 places is (6² - 1) / 12
        "minor_axis": pytest.approx(4 * np.sqrt(8 / 12)),
        "eccentricity": pytest.approx(np.sqrt(1 - 8 / 35)),
        "perimeter": 14.0,  # along the centres of the outer pixels
    }


def test_one_pixel_and_a_line_have_no_width() -> None:
    found = measured(np.ones((1, 1)), np.ones((1, 9)), np.eye(7))
    assert found["minor_axis"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert found["eccentricity"].tolist() == pytest.approx([0, 1, 1])
    assert found["area"].tolist() == [1, 9, 7] and found["major_axis"][0] == 0


def test_measures_equal_those_of_skimage() -> None:
    rng = np.random.default_rng(3)
    cells = [*random_cells(200), Instance(1, 1.0, 50_000, 90_000, rng.random((300, 400)) < 0.9)]
    found = measure(Stack.of(cells))
    for index, cell in enumerate(cells):
        (region,) = regionprops(cell.mask.astype(np.uint8))
        row, column = region.centroid
        wanted = [
            *(region.area, column + cell.left, row + cell.top, region.equivalent_diameter_area),
            *(region.axis_major_length, region.axis_minor_length, region.eccentricity, region.perimeter),
        ]
        assert [values[index] for values in found.values()] == pytest.approx(wanted, abs=1e-6)
