"""In regions to ignore a detection that finds no cell is neither right nor wrong."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.data.classes import HOMEWORK_CLASSES
from src.data.tiff import write_image, write_mask
from src.evaluation.average_precision import covered_shares
from src.evaluation.ground_truth import TruthSettings, load_ground_truth
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import result_entries
from src.evaluation.rle import encode
from src.evaluation.scores import precision, score
from src.geometry.instances import Instance

SIDE = 120


def square(top: int, left: int, side: int = 10, class_id: int = 1, score: float = 1.0) -> Instance:
    return Instance(class_id, score, top, left, np.ones((side, side), bool))


def scores(truth: ImageTruth, *found: Instance) -> dict[str, float]:
    result = score([truth], result_entries(1, found, SIDE, SIDE), HOMEWORK_CLASSES)
    return {
        "AP50": result["uncapped"]["AP50"],
        "PQ": result["pq"]["agnostic"]["PQ"],
        "F1": result["f1"]["detection"],
    }


@pytest.mark.parametrize("class_id", [0, 1])
def test_false_detections_inside_count_nothing_and_real_matches_come_first(class_id: int) -> None:
    region = square(50, 50, 60, class_id)
    truth = ImageTruth(1, "1.tif", SIDE, SIDE, [square(5, 5), square(60, 60)], [region])
    right = [square(5, 5, score=0.9), square(60, 60, score=0.9)]
    inside, outside = square(90, 90, score=0.99), square(5, 90, score=0.99)
    assert scores(truth, *right, inside) == pytest.approx({"AP50": 1, "PQ": 1, "F1": 1})
    wrong = scores(truth, *right, outside)
    assert wrong["AP50"] < 1 and wrong["PQ"] < 1 and wrong["F1"] < 1
    without = scores(truth, right[0], inside)  # the cell inside is missed all the same
    assert without == pytest.approx({"AP50": 51 / 101, "PQ": 2 / 3, "F1": 2 / 3})


def test_a_region_of_another_class_ignores_nothing() -> None:
    truth = ImageTruth(1, "1.tif", SIDE, SIDE, [square(5, 5)], [square(50, 50, 60, class_id=2)])
    inside = square(90, 90, score=0.99)
    assert all(value < 1 for value in scores(truth, square(5, 5, score=0.9), inside).values())


@pytest.mark.parametrize("seed", range(5))
def test_ap_is_that_of_pycocotools_with_crowds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [square(*rng.integers(0, 110, 2).tolist(), class_id=int(rng.integers(1, 3))) for _ in range(25)]
    regions = [square(*rng.integers(0, 80, 2).tolist(), 30, class_id=int(rng.integers(1, 3))) for _ in range(3)]
    found = [
        square(*np.clip(rng.integers(-2, 3, 2) + place, 0, 110).tolist(), 10, one.class_id, rng.random())
        for one in cells
        for place in [np.array([one.top, one.left])]
    ]
    found += [square(*rng.integers(0, 110, 2).tolist(), 10, int(rng.integers(1, 3)), rng.random()) for _ in range(40)]
    entries = result_entries(1, found, SIDE, SIDE)
    annotations = [
        {
            "image_id": 1,
            "category_id": one.class_id,
            "segmentation": rle,
            "iscrowd": int(number >= len(cells)),
            "area": 1,
        }
        for number, (one, rle) in enumerate(
            zip([*cells, *regions], encode([*cells, *regions], SIDE, SIDE), strict=True)
        )
    ]
    with redirect_stdout(io.StringIO()):
        sides = COCO(), COCO()
        for coco, items in zip(sides, (annotations, [{**entry, "area": 1} for entry in entries]), strict=True):
            coco.dataset = {
                "images": [{"id": 1, "height": SIDE, "width": SIDE}],
                "categories": [{"id": 1}, {"id": 2}],
                "annotations": [{**item, "id": number} for number, item in enumerate(items, start=1)],
            }
            coco.createIndex()
        evaluation = COCOeval(*sides, "segm")
        evaluation.params.maxDets = [100, 10_000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    wanted = np.asarray(evaluation.eval["precision"])[:, :, :, 0, :]
    mine = precision([ImageTruth(1, "1.tif", SIDE, SIDE, cells, regions)], entries, 2)
    plain = precision([ImageTruth(1, "1.tif", SIDE, SIDE, cells)], entries, 2)
    assert np.abs(mine - wanted).max() < 1e-9 and np.abs(mine - plain).max() > 0.01


def test_ambiguous_regions_of_a_folder_are_ignored(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint16)
    mask[5:15, 5:15] = 1
    (tmp_path / "a").mkdir()
    write_image(tmp_path / "a/image.tif", np.zeros((SIDE, SIDE, 3), np.uint8))
    write_mask(tmp_path / "a/class1.tif", mask)
    write_mask(tmp_path / "a/ambiguous.tif", mask[::-1, ::-1])
    (truth,) = load_ground_truth(tmp_path, 4)
    assert len(truth.instances) == 1 and [(r.class_id, r.top, r.left) for r in truth.ignored] == [(0, 105, 105)]
    assert scores(truth, square(5, 5), square(105, 105, class_id=3, score=0.9))["F1"] == 1


@pytest.mark.parametrize("gap", [0, 1])
def test_ids_of_the_ambiguous_mask_do_not_divide_a_detection(gap: int, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint16)
    mask[50:70, 50:58], mask[50:70, 58 + gap : 75] = 1, 2
    (tmp_path / "a").mkdir()
    write_mask(tmp_path / "a/ambiguous.tif", mask)
    write_mask(tmp_path / "a/class1.tif", np.pad(np.ones((10, 10), np.uint16), ((5, SIDE - 15), (5, SIDE - 15))))
    (truth,) = load_ground_truth(tmp_path, 4)
    right, astride = square(5, 5, score=0.9), square(55, 55, score=0.99)
    assert scores(truth, right, astride) == pytest.approx({"AP50": 1, "PQ": 1, "F1": 1})
    assert scores(truth, right, square(55, 90, score=0.99))["PQ"] < 1


def test_in_pq_regions_of_the_class_cover_together_and_in_ap_alone() -> None:
    halves = [square(50, 50), square(50, 60), square(50, 68)]  # the last two overlap
    found = [square(50, 55), square(50, 65), square(50, 75), square(50, 55, class_id=3)]
    regions = [halves[0], halves[1], Instance(2, 1.0, 50, 50, np.ones((10, 40), bool)), halves[2]]
    assert covered_shares(found, regions).tolist() == [0.5, 0.7, 0.3, 0]
    assert covered_shares(found, regions, together=True).tolist() == [1, 1, 0.3, 0]


def test_cells_of_unknown_class_are_ignored(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint16)
    mask[5:15, 5:15] = 1
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_mask(tmp_path / name / "unknown.tif", mask)
        write_mask(tmp_path / name / "class2.tif", mask[::-1, ::-1])
    write_image(tmp_path / "a/image.tif", np.zeros((SIDE, SIDE, 3), np.uint8))
    write_image(tmp_path / "b/image.tif", np.zeros((SIDE, SIDE, 3), np.uint8))
    for truth in load_ground_truth(tmp_path, 4):
        assert [cell.class_id for cell in truth.instances] == [2]
        assert [(region.class_id, region.top, region.left) for region in truth.ignored] == [(0, 5, 5)]


def coco_file(path: Path, cells: list[tuple[Instance, int | str, bool]]) -> Path:
    """Squares, each with its ``iscrowd`` and whether it is an RLE or a polygon."""
    annotations = []
    for number, (one, crowd, is_rle) in enumerate(cells):
        ring = [one.left, one.top, one.right, one.top, one.right, one.bottom, one.left, one.bottom]
        shape = encode([one], SIDE, SIDE)[0] if is_rle else [ring]
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "iscrowd": crowd, "segmentation": shape})
    image = {"id": 1, "file_name": "a.tif", "height": SIDE, "width": SIDE}
    path.write_text(json.dumps({"images": [image], "annotations": annotations}))
    return path


SMALL, OTHER, LARGE = square(5, 5), square(30, 5), square(50, 50, 60)


@pytest.mark.parametrize(
    ("cells", "crowds", "counts"),
    [
        ([(SMALL, 1, True), (OTHER, 1, True)], "auto", (2, 0)),  # a brush tool's
        ([(SMALL, 1, True), (OTHER, 0, True)], "auto", (1, 1)),
        ([(SMALL, 0, False), (LARGE, 1, True)], "auto", (1, 1)),  # COCO's own
        ([(SMALL, 0, False), (OTHER, 1, True)], "auto", (2, 0)),  # brush and polygons
        ([(SMALL, 0, False), (LARGE, 1, True)], "cells", (2, 0)),
        ([(SMALL, 1, True), (OTHER, 1, True)], "ignore", (0, 2)),
        ([(SMALL, 0, True), (OTHER, 0, False)], "auto", (2, 0)),
        ([(SMALL, "0", True), (OTHER, "1", True)], "auto", (1, 1)),
    ],
)
def test_crowds_are_cells_or_regions_and_said(
    cells: list[tuple[Instance, int | str, bool]],
    crowds: str,
    counts: tuple[int, int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (truth,) = load_ground_truth(coco_file(tmp_path / "gt.json", cells), 4, settings=TruthSettings(crowds=crowds))
    assert (len(truth.instances), len(truth.ignored)) == counts
    number = sum(int(crowd) for _, crowd, _ in cells)
    said = capsys.readouterr().err
    assert ("--crowds" in said and f" {number} annotations" in said) if number else said == ""
