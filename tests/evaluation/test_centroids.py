"""Centroid F1: answers known by hand, and pairings against the whole assignment problem."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from src.evaluation import assignment
from src.evaluation.centroids import RADIUS, Pairing, _pair_places, centroid, count_pairs, pair
from src.evaluation.centroids import class_f1 as class_rows
from src.evaluation.centroids import detection_f1 as detection_rows
from src.geometry.instances import Instance


def dot(row: int, column: int, class_id: int = 1) -> Instance:
    return Instance(class_id, 1.0, row, column, np.ones((1, 1), bool))


def detection_f1(images: Sequence[Pairing]) -> float | None:
    (value,) = detection_rows(count_pairs(images, 4), np.ones((1, len(images))))
    return None if np.isnan(value) else float(value)


def class_f1(images: Sequence[Pairing], class_id: int) -> float | None:
    value = class_rows(count_pairs(images, 4), np.ones((1, len(images))))[0, class_id - 1]
    return None if np.isnan(value) else float(value)


def test_centroid_by_hand() -> None:
    mask = np.array([[True, True, True], [True, False, False]])
    assert centroid(Instance(1, 1.0, 10, 20, mask)) == (10.25, 20.75)


def test_pairs_by_hand() -> None:
    truths = [dot(0, 0), dot(0, 100, 2), dot(50, 50, 3)]
    found = [dot(0, 12), dot(8, 100, 1), dot(50, 63, 3)]  # at the radius; of another class; beyond it
    pairing = pair(truths, found)
    assert pairing.true_class.tolist() == [1, 2] and pairing.found_class.tolist() == [1, 1]
    assert pairing.false_negatives.tolist() == [3] and pairing.false_positives.tolist() == [3]
    assert detection_f1([pairing]) == 2 * 2 / (2 * 2 + 2)
    assert class_f1([pairing], 1) == 2 / (2 + 2)  # one right, one of class 2 called 1
    assert class_f1([pairing], 2) == 0 and class_f1([pairing], 3) == 0
    assert class_f1([pairing], 4) is None


def test_the_nearest_does_not_take_anothers_only_partner() -> None:
    pairing = pair([dot(0, 0), dot(0, 10)], [dot(0, 9), dot(0, 21)])
    assert len(pairing.true_class) == 2 and not len(pairing.false_negatives)


def test_centroids_at_the_same_place_are_paired() -> None:
    assert len(pair([dot(3, 3), dot(90, 90)], [dot(90, 90), dot(3, 3)]).true_class) == 2


def test_nothing_on_a_side() -> None:
    assert detection_f1([pair([], [])]) is None and class_f1([pair([], [])], 1) is None
    assert detection_f1([pair([dot(0, 0)], [])]) == 0 and detection_f1([pair([], [dot(0, 0)])]) == 0
    assert class_f1([pair([dot(0, 0)], [])], 1) == 0 and class_f1([pair([], [dot(0, 0)])], 1) is None


@pytest.mark.parametrize("batch", [1, 20, 5000])
@pytest.mark.parametrize("seed", range(8))
def test_places_are_paired_as_the_whole_problem_has_it(seed: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "BATCH", batch)
    rng = np.random.default_rng(seed)
    side = (40.0, 150.0, 400.0)[seed % 3]  # one group, several, and many
    a, b = (np.round(rng.uniform(0, side, (size, 2)), seed % 4) for size in rng.integers(1, 70, 2))
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    wanted = linear_sum_assignment(np.where(distance <= RADIUS, distance, 1e4))
    is_near = distance[wanted] <= RADIUS
    found = _pair_places(a, b, RADIUS)
    assert all(len(set(side.tolist())) == len(side) == is_near.sum() for side in found)
    assert (distance[found] <= RADIUS).all()
    assert distance[found].sum() == pytest.approx(distance[wanted][is_near].sum())


def test_memory_grows_with_the_pairs_within_the_radius() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0, 500, 10)] * 2), axis=-1).reshape(-1, 2)  # 2,500 places, all connected
    _pair_places(grid[:1], grid[:1], RADIUS)  # imports
    tracemalloc.start()
    found = _pair_places(grid, grid + np.array([3, 2]), RADIUS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found[0]) == len(grid) and (found[0] == found[1]).all()
    assert peak < 5e6  # of which all pairs would take ten times as much


def test_a_centroid_in_a_region_of_its_class_is_left_out() -> None:
    regions = [Instance(0, 1.0, 0, 0, np.ones((5, 5), bool)), Instance(2, 1.0, 10, 0, np.ones((5, 5), bool))]
    found = [dot(4, 4, 3), dot(5, 5, 4), dot(10, 0, 1), dot(14, 4, 2)]
    assert pair([], found, regions).false_positives.tolist() == [4, 1]
