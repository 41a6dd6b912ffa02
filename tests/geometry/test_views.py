from dataclasses import replace

import numpy as np
import pytest

from src.geometry.detections import Detections
from src.geometry.views import VIEWS, View, box_iou, merge, undo


def look(image: np.ndarray, view: View) -> np.ndarray:
    image = image.T if view.transpose else image
    image = image[::-1] if view.flip_rows else image
    return image[:, ::-1] if view.flip_columns else image


def detection(boxes: list[list[float]], scores: list[float], labels: list[int], mask: float = 1.0) -> Detections:
    places = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.full((len(boxes), 2, 2), mask, np.float32)
    return Detections(
        places,
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        masks,
        places,
        places,
        np.zeros((len(places), 0)),
    )


@pytest.mark.parametrize("view", VIEWS["full"])
def test_undo_brings_boxes_and_masks_back(view: View) -> None:
    image = np.zeros((6, 9), int)
    image[1:3, 4:8] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    seen = look(image, view)
    rows, columns = np.nonzero(seen)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    mask = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    place = np.array([box], np.float32)
    found = Detections(
        place, np.ones(1), np.ones(1, int), mask[None].astype(np.float32), place, place, np.zeros((1, 0))
    )
    back = undo(found, view, 6, 9)
    assert back.boxes.tolist() == back.mask_boxes.tolist() == [[4, 1, 8, 3]]
    assert (back.masks[0] == image[1:3, 4:8]).all()


def test_there_are_four_and_eight_different_views() -> None:
    square = np.arange(9).reshape(3, 3)
    assert [len({look(square, view).tobytes() for view in VIEWS[name]}) for name in ("none", "flips", "full")] == [
        1,
        4,
        8,
    ]


def test_one_view_stays_as_it_is() -> None:
    only = detection([[0, 0, 4, 4]], [0.7], [1])
    assert merge([only]) is only


def test_agreement_ranks_first_and_boxes_are_averaged_by_score() -> None:
    one = detection([[0, 0, 10, 10], [50, 50, 60, 60]], [0.6, 0.9], [1, 1], mask=1.0)
    two = detection([[0, 0, 10, 12]], [0.2], [1], mask=0.0)
    merged = merge([one, two])
    assert merged.scores == pytest.approx([0.45, 0.4])
    assert merged.boxes.tolist() == [[50, 50, 60, 60], [0, 0, 10, 10.5]]
    assert merged.masks[:, 0, 0] == pytest.approx([1.0, 0.75])


def test_probabilities_are_averaged_by_score() -> None:
    one = replace(detection([[0, 0, 10, 10]], [0.6], [1]), probabilities=np.array([[0.9, 0.1]]))
    two = replace(detection([[0, 0, 10, 10]], [0.2], [1]), probabilities=np.array([[0.5, 0.5]]))
    assert merge([one, two]).probabilities[0].tolist() == pytest.approx([0.8, 0.2])


def test_classes_and_distant_boxes_stay_apart() -> None:
    merged = merge([detection([[0, 0, 10, 10]], [0.5], [1]), detection([[0, 0, 10, 10]], [0.5], [2])])
    assert sorted(merged.labels.tolist()) == [1, 2] and merged.scores == pytest.approx([0.25, 0.25])


def test_empty_views() -> None:
    empty = detection([], [], [])
    assert len(merge([empty, empty]).scores) == 0
    assert merge([empty, detection([[0, 0, 2, 2]], [0.8], [3])]).scores == pytest.approx([0.4])


def test_box_iou_by_hand() -> None:
    assert box_iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).tolist() == [[2 / 6, 0]]
