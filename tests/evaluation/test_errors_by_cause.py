import numpy as np
import pytest

from src.evaluation.errors_by_cause import (
    NONE,
    Outcomes,
    cause_of_false_positive,
    cause_of_miss,
    confusion,
    match_detections,
)
from src.geometry.instances import Instance


def box(top: int, left: int, height: int = 10, width: int = 10, class_id: int = 1, score: float = 1.0) -> Instance:
    return Instance(class_id, score, top, left, np.ones((height, width), bool))


def test_the_higher_score_finds_a_cell_and_once() -> None:
    truths = [box(0, 0), box(0, 50)]
    found = [box(0, 1, score=0.6), box(0, 0, score=0.9), box(0, 50, class_id=2, score=0.8), box(30, 30, score=0.2)]
    image = match_detections(truths, found, 0.5)
    assert image.truth_of.tolist() == [NONE, 0, NONE, NONE] and image.detection_of.tolist() == [1, NONE]
    assert image.any_truth.tolist() == [NONE, 0, 1, NONE] and image.any_detection.tolist() == [1, 2]
    assert image.false_negatives().tolist() == [1] and image.false_positives().tolist() == [0, 2]
    assert image.f1() == pytest.approx(2 * 1 / (2 + 3))
    assert confusion([image], 2).tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_a_cell_below_the_threshold_is_missed() -> None:
    image = match_detections([box(0, 0)], [box(0, 0, score=0.3)], 0.5)
    assert image.detection_of.tolist() == [0] and image.false_negatives().tolist() == [0] and image.f1() == 0
    assert match_detections([], [], 0.5).f1() == 1 and match_detections(
        [box(0, 0)], [], 0.5
    ).false_negatives().tolist() == [0]


def miss(truths: list[Instance], found: list[Instance]) -> str:
    return cause_of_miss(match_detections(truths, found, 0.5), 0, 100, 100)


def invention(truths: list[Instance], found: list[Instance]) -> str:
    return cause_of_false_positive(match_detections(truths, found, 0.5), 0, 100, 100)


def test_causes_of_misses() -> None:
    cell = box(20, 20)
    assert miss([cell], [box(20, 20, class_id=2)]) == "wrong class"
    assert miss([cell], [box(20, 20, 4, 10), box(26, 20, 4, 10)]) == "split"
    assert miss([cell, box(20, 31)], [box(20, 20, 10, 21)]) == "merged"
    assert miss([box(0, 20)], []) == "edge"
    assert miss([cell], [box(26, 20)]) == "outline too far off"
    assert miss([cell], [box(60, 60)]) == miss([cell], [box(20, 20, score=0.1)]) == "not seen"


def test_causes_of_inventions() -> None:
    cell = box(20, 20)
    assert invention([box(20, 20, class_id=2)], [cell]) == "wrong class"
    assert invention([cell], [box(20, 21, score=0.6), box(20, 20, score=0.9)]) == "found twice"
    assert invention([cell, box(20, 31)], [box(20, 20, 10, 21)]) == "merged"
    assert invention([box(20, 20, 20, 20)], [cell]) == "part of a cell"
    assert invention([], [box(90, 50)]) == "edge"
    assert invention([], [cell]).startswith("no cell there")


def test_ap50_of_the_outcomes_is_cocos() -> None:
    """Precision over all detections in score order, as the evaluator has it."""
    from src.data.classes import name_classes
    from src.evaluation.image_truth import ImageTruth
    from src.evaluation.results import result_entries
    from src.evaluation.scores import precision

    rng = np.random.default_rng(0)
    truths = [box(*rng.integers(0, 80, 2).tolist(), class_id=1) for _ in range(30)]
    found = [box(*rng.integers(0, 80, 2).tolist(), class_id=1, score=float(s)) for s in rng.random(20)]
    found += [box(t.top, t.left + 1, class_id=1, score=float(rng.random())) for t in truths[:20]]
    image = match_detections(truths, found, 0.0)
    order = np.argsort([-cell.score for cell in found], kind="stable")
    hits = np.cumsum((image.truth_of != NONE)[order])
    precisions, recalls = hits / np.arange(1, len(order) + 1), hits / len(truths)
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    at = np.searchsorted(recalls, np.linspace(0, 1, 101), side="left")
    mine = np.where(at < len(recalls), envelope[np.minimum(at, len(recalls) - 1)], 0).mean()
    truth = ImageTruth(1, "a.tif", 100, 100, truths)
    theirs = precision([truth], result_entries(1, found, 100, 100), len(name_classes(["a"])))
    assert mine == pytest.approx(theirs[0, :, 0, -1].mean(), abs=1e-9)
    assert isinstance(image, Outcomes)
