"""Average precision is that of pycocotools, to the last digits and for the same order of equal scores."""

import io
import tracemalloc
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.data.classes import HOMEWORK_CLASSES
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import result_entries
from src.evaluation.rle import encode
from src.evaluation.scores import precision, score
from src.geometry.instances import Instance, tight

SIDE = 240


def by_pycocotools(truths: Sequence[ImageTruth], entries: list[dict[str, Any]], cap: int = 10_000) -> np.ndarray:
    """Precision ``(T, R, 4, 2)`` at 100 detections and at ``cap``."""
    annotations = [
        {"image_id": truth.id, "category_id": cell.class_id, "segmentation": rle, "iscrowd": 0, "area": 1}
        for truth in truths
        for cell, rle in zip(truth.instances, encode(truth.instances, truth.height, truth.width), strict=True)
    ]
    with redirect_stdout(io.StringIO()):
        truth_coco, found_coco = COCO(), COCO()
        for coco, items in ((truth_coco, annotations), (found_coco, [{**entry, "area": 1} for entry in entries])):
            coco.dataset = {
                "images": [{"id": truth.id, "height": truth.height, "width": truth.width} for truth in truths],
                "categories": [{"id": number} for number in range(1, 5)],
                "annotations": [{**item, "id": number} for number, item in enumerate(items, start=1)],
            }
            coco.createIndex()
        evaluation = COCOeval(truth_coco, found_coco, "segm")
        evaluation.params.maxDets = [100, cap]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, :]


def cell(number: int, class_id: int = 1, score: float = 1.0, size: int = 6) -> Instance:
    """A square at its own place in a grid of 20 x 20 places of a 240 x 240 image."""
    return Instance(class_id, score, number // 20 * 12, number % 20 * 12, np.ones((size, size), bool))


def moved(rng: np.random.Generator, truth: Instance, scores: Sequence[float]) -> Instance:
    """A detection near a true cell; some cover a neighbour, too, and some are of another class."""
    height, width = rng.choice([9, 10, 11, 20], 2, p=[0.3, 0.35, 0.3, 0.05])
    mask = rng.random((height, width)) < rng.choice([0.8, 0.95, 1.0])
    mask[0, 0] = True
    top, left = (max(place + int(rng.integers(-1, 2)), 0) for place in (truth.top, truth.left))
    mask = mask[: SIDE - top, : SIDE - left]
    class_id = truth.class_id if rng.random() < 0.8 else int(rng.integers(1, 5))
    found = tight(class_id, float(rng.choice(scores)), top, left, mask)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_pycocotools_whatever_the_order_of_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [0.1, 0.5, 0.9] if seed % 2 else rng.random(50).tolist()  # many are equal
    truths, entries = [], []
    for image_id in (3, 1, 8, 5):
        cells = [cell(number, int(rng.integers(1, 4)), size=10) for number in rng.choice(400, 200, replace=False)]
        truths.append(ImageTruth(image_id, f"{image_id}.tif", SIDE, SIDE, cells))
        found = [moved(rng, one, scores) for one in cells + cells[::2]]
        entries += result_entries(image_id, found, SIDE, SIDE)
    wanted = by_pycocotools(truths, entries)
    assert 0.05 < wanted[wanted > -1].mean() < 0.95
    for order in (slice(None), slice(None, None, -1)):
        assert np.abs(precision(truths[order], entries, 4) - wanted).max() < 1e-9


def test_equal_scores_keep_their_order_in_the_file() -> None:
    truth = [ImageTruth(1, "1.tif", SIDE, SIDE, [cell(0)])]
    right, wrong = (result_entries(1, [cell(number, score=0.5)], SIDE, SIDE) for number in (0, 7))
    first, last = (
        score(truth, found, HOMEWORK_CLASSES)["uncapped"]["AP50"] for found in (right + wrong, wrong + right)
    )
    assert first == pytest.approx(1) and last == pytest.approx(0.5)


def test_more_than_10_000_cells_of_a_class_are_all_counted_in_little_memory() -> None:
    side, ones = 1300, np.ones((8, 8), bool)
    cells = [Instance(1, 1.0, top, left, ones) for top in range(0, side - 8, 10) for left in range(0, side - 8, 10)]
    assert len(cells) > 16_000
    truth = [ImageTruth(1, "1.tif", side, side, cells)]
    entries = result_entries(1, cells, side, side)
    tracemalloc.start()
    values = precision(truth, entries, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values[..., 0, 1].min() == pytest.approx(1) and 0.0 <= values[..., 0, 0].mean() < 0.01
    assert peak < 200e6  # the matrix of all pairs would take 2.3 GB


def test_results_without_boxes_and_without_pixels_are_scored() -> None:
    truth = [ImageTruth(1, "1.tif", SIDE, SIDE, [cell(0), cell(1)])]
    entries = result_entries(1, [cell(0), cell(1)], SIDE, SIDE)
    for entry in entries:
        del entry["bbox"]
    empty = {**entries[0], "segmentation": {"size": [SIDE, SIDE], "counts": encode_empty()}, "score": 1.0}
    assert score(truth, entries, HOMEWORK_CLASSES)["uncapped"]["AP"] == pytest.approx(1)
    assert score(truth, [empty, *entries], HOMEWORK_CLASSES)["uncapped"]["AP50"] == pytest.approx(2 / 3)


def encode_empty() -> str:
    from pycocotools import mask

    return mask.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))["counts"].decode()
