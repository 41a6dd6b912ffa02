"""Average precision on cases computed by hand, and the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.classes import HOMEWORK_CLASSES as CLASSES
from src.data.tiff import write_mask
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import result_entries, write_results
from src.evaluation.score_tables import format_table
from src.evaluation.scores import figure_at, score
from src.geometry.instances import Instance, tight
from src.score import main

MINI = Path(__file__).parents[3] / "shared/data/consep-mini"
SIDE = 240


def cell(number: int, class_id: int = 1, score: float = 1.0, size: int = 6) -> Instance:
    """A square at its own place in a grid of 20 x 20 places of a 240 x 240 image."""
    return Instance(class_id, score, number // 20 * 12, number % 20 * 12, np.ones((size, size), bool))


def image(*instances: Instance, image_id: int = 1) -> ImageTruth:
    return ImageTruth(image_id, f"{image_id}.tif", SIDE, SIDE, list(instances))


def entries(*instances: Instance, image_id: int = 1) -> list[dict[str, Any]]:
    return result_entries(image_id, instances, SIDE, SIDE)


def test_perfect_predictions_score_one_and_absent_classes_none() -> None:
    result = score([image(cell(0), cell(1, 3))], entries(cell(0), cell(1, 3)), CLASSES)
    one, none = {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}, {"AP": None, "AP50": None, "AP75": None}
    family = {**one, "per_class": {"1": one, "2": none, "3": one, "4": none}}
    quality, missing = {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0}, {"PQ": None, "SQ": None, "RQ": None}
    per_class = {"1": quality, "2": missing, "3": quality, "4": missing}
    at_each_iou = dict.fromkeys([*(f"0.{hundredths}" for hundredths in range(50, 100, 5)), "mean"], 1.0)
    rounded = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 9))
    assert rounded == {
        "images": 1,
        "at_100": family,
        "uncapped": family,
        "pq": {"threshold": 0.5, "agnostic": quality, "per_class": per_class, "mPQ": 1.0, "mPQ+": 1.0},
        "overlap": {"threshold": 0.5, "AJI": 1.0, "AJI+": 1.0, "Dice": 1.0},
        "by_iou": {"threshold": 0.5, "F1": at_each_iou, "accuracy": at_each_iou},
        "f1": {
            "threshold": 0.5,
            "radius": 12.0,
            "detection": 1.0,
            "per_class": {"1": 1.0, "2": None, "3": 1.0, "4": None},
        },
    }


def test_a_false_positive_ranked_first_halves_the_precision() -> None:
    result = score([image(cell(0))], entries(cell(0, score=0.5), cell(9, score=0.9)), CLASSES)
    assert result["at_100"]["AP50"] == pytest.approx(0.5)
    ranked_last = score([image(cell(0))], entries(cell(0, score=0.9), cell(9, score=0.5)), CLASSES)
    assert ranked_last["at_100"]["AP50"] == pytest.approx(1.0)


def test_a_cell_found_of_two_reaches_half_the_recalls() -> None:
    result = score([image(cell(0), cell(1))], entries(cell(0)), CLASSES)
    assert result["uncapped"]["AP50"] == pytest.approx(51 / 101)  # precision 1 at the recalls 0.00 … 0.50


@pytest.mark.parametrize("pixels, passed, ap75", [(20, 2, 0.0), (26, 5, 0.0), (28, 6, 1.0), (36, 10, 1.0)])
def test_iou_thresholds(pixels: int, passed: int, ap75: float) -> None:
    """A prediction of so many of a cell's 36 pixels passes so many of the thresholds 0.50, 0.55 … 0.95."""
    mask = np.arange(36).reshape(6, 6) < pixels
    found = tight(1, 0.9, 0, 0, mask)
    assert found is not None
    result = score([image(cell(0))], entries(found), CLASSES)["at_100"]
    assert (result["AP"], result["AP50"], result["AP75"]) == pytest.approx((passed / 10, 1.0, ap75))


def test_the_wrong_class_is_no_hit() -> None:
    result = score([image(cell(0, 1))], entries(cell(0, 2)), CLASSES)
    assert result["at_100"]["AP50"] == 0.0
    assert result["at_100"]["per_class"]["2"]["AP50"] is None
    assert result["pq"]["agnostic"]["PQ"] == 1.0 and result["pq"]["per_class"]["1"]["PQ"] == 0.0


def test_the_mean_is_over_classes_with_ground_truth() -> None:
    result = score([image(cell(0, 1), cell(1, 4))], entries(cell(0, 1), cell(2, 2)), CLASSES)
    assert result["at_100"]["AP50"] == pytest.approx(0.5)


def test_no_detections_and_no_ground_truth(capsys: pytest.CaptureFixture[str]) -> None:
    result = score([image(cell(0)), image(image_id=2)], [], CLASSES)
    assert result["images"] == 2
    assert (result["uncapped"]["AP"], result["at_100"]["AP50"], result["pq"]["agnostic"]["PQ"]) == (0.0, 0.0, 0.0)
    nothing = score([image()], entries(cell(0)), CLASSES)
    assert nothing["at_100"]["AP"] is None and nothing["pq"]["agnostic"]["PQ"] == 0.0
    assert score([image()], [], CLASSES)["pq"]["agnostic"]["PQ"] is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("image_id", [-5, 0, 2**70])
def test_images_of_any_id_are_scored(image_id: int) -> None:
    found = entries(cell(0), image_id=image_id)
    result = score([image(cell(0), image_id=image_id)], found, CLASSES)
    assert result["uncapped"]["AP"] == pytest.approx(1)


def test_the_cap_is_per_image_and_class() -> None:
    cells = [cell(number, 1, 1 - number / 1000) for number in range(120)]
    more = [cell(number + 150, 2, 0.9) for number in range(100)]
    result = score([image(*cells, *more)], entries(*cells, *more), CLASSES)
    assert result["at_100"]["per_class"]["1"]["AP50"] == pytest.approx(84 / 101)  # recalls 0.00 … 0.83 of 100 / 120
    assert result["at_100"]["per_class"]["2"]["AP50"] == 1.0
    assert result["uncapped"]["per_class"]["1"]["AP50"] == 1.0


def test_the_least_score_counts_scores_from_it_on() -> None:
    found = entries(cell(0, score=0.5), cell(1, score=0.4))
    truths = [image(cell(0), cell(1))]
    assert score(truths, found, CLASSES, 0.5)["pq"]["agnostic"]["RQ"] == pytest.approx(2 / 3)
    lower = score(truths, found, CLASSES, 0.4)["pq"]
    assert lower["threshold"] == 0.4 and lower["agnostic"]["RQ"] == 1.0


def jittered(rng: np.random.Generator, truth: Instance) -> Instance:
    mask = rng.random(truth.mask.shape) < rng.choice([0.6, 0.8, 0.95, 1.0])
    mask[0, 0] = mask[-1, -1] = True
    class_id = truth.class_id if rng.random() < 0.8 else int(rng.integers(1, 5))
    return Instance(class_id, float(rng.choice([0.1, 0.5, rng.random()])), truth.top, truth.left, mask)


def test_a_malformed_entry_is_not_evaluated_and_input_stays_as_it_was() -> None:
    found = entries(cell(0))
    before = json.dumps(found)
    score([image(cell(0))], found, CLASSES)
    assert json.dumps(found) == before
    found[0]["segmentation"]["counts"] = found[0]["segmentation"]["counts"][:-1] + "o"
    with pytest.raises(InputError, match="entry 0: the counts are cut off"):
        score([image(cell(0))], found, CLASSES)


def test_the_table_names_classes_threshold_and_absence() -> None:
    table = format_table(score([image(cell(0))], entries(cell(0)), CLASSES, 0.35), CLASSES).splitlines()
    assert "score >= 0.35" in table[0]
    assert table[1].split() == ["class", *["AP", "AP50", "AP75"] * 2, "PQ", "SQ", "RQ", "F1"]
    assert table[2].split() == ["all", *["1.0000"] * 10]
    assert table[3].split() == ["1", "epithelial", *["1.0000"] * 10]
    assert table[4].split() == ["2", "lymphocyte", *["-"] * 10]
    assert len({len(line) for line in table[1:7]}) == 1
    assert table[9].split() == ["AJI", "AJI+", "Dice", "mPQ", "mPQ+", *["F1", "accuracy"] * 3]
    assert table[10].split() == ["all", *["1.0000"] * 11]
    assert len(table[9]) == len(table[10]) <= 120


def write_truth(root: Path, name: str, *cells: Instance) -> None:
    mask = np.zeros((SIDE, SIDE), np.int32)
    for number, item in enumerate(cells, start=1):
        mask[item.top : item.bottom, item.left : item.right][item.mask] = number
    (root / name).mkdir(parents=True)
    write_mask(root / name / "class1.tif", mask)


def test_the_command_scores_a_part_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, number in (("a", 0), ("b", 1), ("c", 2)):
        write_truth(tmp_path / "gt", name, cell(number))
    (tmp_path / "split.json").write_text('{"train": ["a"], "val": ["c", "b"]}')
    write_results(tmp_path / "pred.json", entries(cell(1), image_id=1) + entries(cell(9), image_id=2))
    gt, pred, out = str(tmp_path / "gt"), str(tmp_path / "pred.json"), str(tmp_path / "out.json")
    main(["--pred", pred, "--gt", gt, "--split", str(tmp_path / "split.json"), "--part", "val", "--json", out])
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out}"
    result = json.loads(Path(out).read_text())
    assert result["images"] == 2
    assert result["pq"]["agnostic"]["PQ"] == 0.5


def test_the_former_name_of_min_score_still_works(tmp_path: Path) -> None:
    write_truth(tmp_path / "gt", "a", cell(0))
    write_results(tmp_path / "pred.json", entries(cell(0, score=0.4)))
    out = tmp_path / "out.json"
    for flag in ("--min-score", "--pq-threshold"):
        for value, wanted in (("0.3", 1.0), ("0.5", 0.0)):
            main(["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt"), flag, value, "--json", str(out)])
            result = json.loads(out.read_text())
            figures = (result["pq"]["agnostic"]["PQ"], result["overlap"]["Dice"], result["f1"]["detection"])
            assert (result["pq"]["threshold"], *figures) == (float(value), wanted, wanted, wanted)


def test_the_page_of_scores_names_keys_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs/scores.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| [^|]+ \| `([^`…]+)` \|", page.split("## Figures")[1].split("## ")[0], re.MULTILINE)
    result = score([image(cell(0))], entries(cell(0)), CLASSES)
    parts = [re.split(r"\.(?!\d\d)", key) for key in keys]  # the point in 0.50 divides nothing
    assert len(keys) > 10 and [figure_at(result, part) for part in parts] == [1.0] * len(keys)


def test_a_part_of_an_id_map_leaves_the_other_predictions_out(tmp_path: Path) -> None:
    for name, number in (("a", 0), ("b", 1)):
        write_truth(tmp_path / "gt", name, cell(number))
    ids = [{"file_name": f"{name}.tif", "id": n, "height": SIDE, "width": SIDE} for name, n in (("a", 5), ("b", 4))]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    (tmp_path / "split.json").write_text('{"train": ["a"], "val": ["b"]}')
    write_results(tmp_path / "pred.json", entries(cell(9), image_id=5) + entries(cell(1), image_id=4))
    files = [
        "--pred",
        str(tmp_path / "pred.json"),
        "--gt",
        str(tmp_path / "gt"),
        "--id-map",
        str(tmp_path / "ids.json"),
    ]
    main([*files, "--split", str(tmp_path / "split.json"), "--json", str(tmp_path / "val.json")])
    main([*files, "--json", str(tmp_path / "all.json")])
    val, whole = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("val", "all"))
    assert (val["images"], val["at_100"]["AP50"]) == (1, 1.0)
    assert (whole["images"], whole["at_100"]["AP50"] < 1) == (2, True)


@pytest.mark.parametrize("stray", ["class_1.tif", "class1.gif", "class1.npy", "ambiguous.jpg"])
def test_what_a_folder_holds_and_nothing_reads_is_said(
    stray: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth(tmp_path / "gt", "a", cell(0))
    write_results(tmp_path / "pred.json", entries(cell(0)))
    files = ["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt")]
    main(files)
    assert capsys.readouterr().err == ""
    (tmp_path / "gt/a" / stray).write_bytes(b"x")
    main(files)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "1 files" in said and stray in said


def test_cells_in_several_pieces_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_truth(tmp_path / "gt", "a")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:6, :6] = mask[:6, 12:18] = 255
    write_mask(tmp_path / "gt/a/class1.tif", mask)
    write_results(tmp_path / "pred.json", entries(cell(0), cell(1)))
    files = ["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt"), "--json", str(tmp_path / "out.json")]
    main(files)
    said = capsys.readouterr().err
    assert "1 of 1 cells" in said and "--split-pieces" in said
    main([*files, "--split-pieces"])
    assert capsys.readouterr().err == ""
    assert json.loads((tmp_path / "out.json").read_text())["uncapped"]["AP50"] == pytest.approx(1)


def test_a_coco_file_without_sizes_takes_those_of_the_results(tmp_path: Path) -> None:
    square = {"image_id": "1", "category_id": 1.0, "segmentation": [[0, 0, 6, 0, 6, 6, 0, 6]]}
    truth = {"images": [{"id": 1, "file_name": "a.png", "width": 0}], "annotations": [square]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    found = [{**entry, "image_id": "1", "category_id": 1.0, "bbox": []} for entry in entries(cell(0))]
    write_results(tmp_path / "pred.json", found)
    out = str(tmp_path / "out.json")
    main(["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt.json"), "--json", out])
    assert json.loads(Path(out).read_text())["uncapped"]["AP50"] == pytest.approx(1)


def test_bad_flags_and_files_are_named(tmp_path: Path) -> None:
    write_truth(tmp_path / "gt", "a", cell(0))
    pred = tmp_path / "pred.json"
    files = ["--pred", str(pred), "--gt", str(tmp_path / "gt")]
    with pytest.raises(InputError, match=r"pred\.json: cannot be read"):
        main(files)
    write_results(pred, entries(cell(0), image_id=2))
    with pytest.raises(InputError, match=r"pred\.json: entry 0: image_id 2 is not among the 1 images"):
        main(files)
    with pytest.raises(InputError, match="--min-score must be at least 0, got nan"):
        main([*files, "--min-score", "nan"])
    with pytest.raises(InputError, match="--part needs --split"):
        main([*files, "--part", "val"])


def test_the_module_runs_and_a_mistake_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.score"]
    arguments = ["--pred", str(tmp_path / "none.json"), "--gt", str(tmp_path)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and "none.json" in done.stderr
    usage = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert usage.returncode == 0 and "python -m src.score --pred" in usage.stdout


@pytest.mark.skipif(not MINI.is_dir(), reason="the development data are not here")
def test_real_ground_truth_given_as_predictions_scores_one() -> None:
    id_map = MINI / "test_image_name_to_ids.json"
    from_masks = load_ground_truth(MINI / "test_gt", 4, id_map)
    from_coco = load_ground_truth(MINI / "test_gt_coco.json", 4)
    found = [e for truth in from_masks for e in result_entries(truth.id, truth.instances, truth.height, truth.width)]
    assert len(found) == 121
    result = score(from_coco, found, CLASSES)
    assert [result[cap][key] for cap in ("at_100", "uncapped") for key in ("AP", "AP50", "AP75")] == pytest.approx(
        [1.0] * 6
    )
    assert result["pq"]["agnostic"] == {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0}
