"""Panoptic quality on cases computed by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from src.evaluation.image_truth import ImageTruth
from src.evaluation.label_overlaps import label_overlaps
from src.evaluation.panoptic import Matches, count_matches, mean_image_quality
from src.evaluation.panoptic import agnostic_quality as agnostic_rows
from src.evaluation.panoptic import class_quality as class_rows
from src.evaluation.panoptic import match as match_overlaps
from src.geometry.instances import Instance


def bar(left: int, right: int, class_id: int = 1, score: float = 1.0, top: int = 0) -> Instance:
    """A bar of one row over the columns ``left … right - 1``."""
    return Instance(class_id, score, top, left, np.ones((1, right - left), bool))


def truth(*instances: Instance) -> ImageTruth:
    return ImageTruth(1, "a.tif", 4, 20, list(instances))


def match(truth: ImageTruth, found: Sequence[Instance]) -> Matches:
    return match_overlaps(label_overlaps(truth, found))


def plain(figures: dict[str, np.ndarray]) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else float(value) for key, value in figures.items()}


def agnostic_quality(images: Sequence[Matches]) -> dict[str, float | None]:
    rows = agnostic_rows(count_matches(images, 3), np.ones((1, len(images))))
    return plain({key: row[0] for key, row in rows.items()})


def class_quality(images: Sequence[Matches], class_id: int) -> dict[str, float | None]:
    rows = class_rows(count_matches(images, 3), np.ones((1, len(images))))
    return plain({key: row[0, class_id - 1] for key, row in rows.items()})


def test_perfect_predictions() -> None:
    image = match(truth(bar(0, 5), bar(8, 12, 2)), [bar(8, 12, 2, 0.6), bar(0, 5, 1, 0.7)])
    assert agnostic_quality([image]) == {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0}
    assert class_quality([image], 2) == {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0}
    assert class_quality([image], 3) == {"PQ": None, "SQ": None, "RQ": None}


def test_overlapping_pixels_go_to_the_higher_score() -> None:
    # Predictions 0-10 (0.9) and 6-16 (0.8) leave the second 10-16: IoU 1 with the first cell, 6 / 10 with the second.
    image = match(truth(bar(0, 10), bar(10, 20)), [bar(6, 16, score=0.8), bar(0, 10, score=0.9)])
    assert sorted(image.iou.tolist()) == pytest.approx([0.6, 1.0])
    assert agnostic_quality([image]) == pytest.approx({"PQ": 0.8, "SQ": 0.8, "RQ": 1.0})
    # With the scores swapped the first keeps 0-6 (6 / 10); the second, 6-16, has 6 of 14 with the cell 10-20: no match.
    swapped = match(truth(bar(0, 10), bar(10, 20)), [bar(6, 16, score=0.9), bar(0, 10, score=0.8)])
    assert agnostic_quality([swapped]) == pytest.approx({"PQ": 0.3, "SQ": 0.6, "RQ": 0.5})


def test_an_iou_of_exactly_one_half_is_no_match() -> None:
    image = match(truth(bar(0, 10)), [bar(0, 5)])
    assert agnostic_quality([image]) == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}


def test_a_prediction_of_another_class_matches_only_where_the_class_is_ignored() -> None:
    image = match(truth(bar(0, 10, 1), bar(0, 10, 2, top=2)), [bar(0, 10, 2, 0.9)])
    assert agnostic_quality([image]) == pytest.approx({"PQ": 2 / 3, "SQ": 1.0, "RQ": 2 / 3})
    assert class_quality([image], 1) == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}
    assert class_quality([image], 2) == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}


def test_agnostic_is_the_mean_over_images_and_a_class_is_pooled() -> None:
    perfect = match(truth(bar(0, 10)), [bar(0, 10)])
    poor = match(truth(bar(0, 10), bar(12, 20), bar(0, 10, top=2)), [bar(0, 8)])
    empty = match(truth(), [])
    # poor: one pair of IoU 0.8 among 3 true and 1 found: RQ 2 / 4.
    assert agnostic_quality([perfect, poor, empty]) == pytest.approx({"PQ": 0.7, "SQ": 0.9, "RQ": 0.75})
    # pooled: two pairs, 4 true, 2 found: SQ 0.9, RQ 4 / 6.
    assert class_quality([perfect, poor, empty], 1) == pytest.approx({"PQ": 0.6, "SQ": 0.9, "RQ": 2 / 3})


def test_a_hidden_prediction_is_not_counted() -> None:
    image = match(truth(bar(0, 10)), [bar(2, 8, score=0.3), bar(0, 10, score=0.9)])
    assert len(image.found) == 1
    assert agnostic_quality([image])["PQ"] == 1.0


def test_images_without_predictions_or_without_anything() -> None:
    assert agnostic_quality([match(truth(bar(0, 3)), [])]) == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}
    assert agnostic_quality([match(truth(), [bar(0, 3)])]) == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}
    assert agnostic_quality([match(truth(), [])]) == {"PQ": None, "SQ": None, "RQ": None}


def test_mpq_is_the_mean_over_images_of_the_classes_that_they_hold() -> None:
    both = match(truth(bar(0, 10, 1), bar(0, 10, 2, top=2)), [bar(0, 10, 1), bar(0, 8, 2, top=2)])  # PQ 1 and 0.8
    first = match(
        truth(bar(0, 10, 1)), [bar(0, 10, 2), bar(0, 10, 3, top=2)]
    )  # PQ 0 of class 1, whatever else is found
    only_found, empty = match(truth(), [bar(0, 10, 1)]), match(truth(), [])
    counts = count_matches([both, first, only_found, empty], 3)
    assert mean_image_quality(counts, np.ones((1, 4))) == pytest.approx((0.9 + 0) / 2)
    assert mean_image_quality(counts, np.array([[3.0, 1, 5, 5]])) == pytest.approx((3 * 0.9 + 0) / 4)
    assert np.isnan(mean_image_quality(counts, np.array([[0.0, 0, 1, 1]]))).all()
