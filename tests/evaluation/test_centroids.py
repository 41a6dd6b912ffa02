"""Centroid F1: answers known by hand, and pairings against the whole assignment problem."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from src.evaluation.centroids import RADIUS, centroid, class_f1, detection_f1, pair
from src.geometry.instances import Instance


def dot(row: int, column: int, class_id: int = 1) -> Instance:
    return Instance(class_id, 1.0, row, column, np.ones((1, 1), bool))


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


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_paired_as_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, found = ([dot(*rng.integers(0, 150, 2), 1) for _ in range(size)] for size in (60, 75))
    cost = np.array([[np.hypot(t.top - f.top, t.left - f.left) for f in found] for t in truths])
    rows, columns = linear_sum_assignment(np.where(cost <= RADIUS, cost, 1e4))
    assert len(pair(truths, found).true_class) == int((cost[rows, columns] <= RADIUS).sum())
