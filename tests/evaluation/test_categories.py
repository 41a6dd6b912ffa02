"""A COCO file's categories are the classes of the same name, whatever their ids and order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.common.files import write_json
from src.data.classes import HOMEWORK_CLASSES, name_classes, to_json
from src.data.tiff import write_mask
from src.evaluation.categories import Category, match_classes
from src.evaluation.ground_truth import TruthSettings, load_ground_truth
from src.evaluation.results import result_entries
from src.evaluation.scores import score
from src.geometry.instances import Instance
from src.score import main

SIDE = 60
CELLS = ["epithelial", "lymphocyte", "lymphocyte", "macrophage"]  # of four squares in a row


def coco(path: Path, categories: dict[int, str], **more: Any) -> Path:
    """Four squares whose categories are those of the names in ``CELLS``, in the order of ``categories`` by name."""
    ids = {name.strip().lower(): number for number, name in categories.items()}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": ids[name],
            "segmentation": [[12 * number, 5, 12 * number + 8, 5, 12 * number + 8, 13, 12 * number, 13]],
        }
        for number, name in enumerate(CELLS)
    ]
    items = [{"id": number, "name": name, **more} for number, name in categories.items()]
    image = {"id": 1, "file_name": "a.tif", "height": SIDE, "width": SIDE}
    path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": items}))
    return path


def ap50(truth: Path, numbers: list[int]) -> float:
    truths = load_ground_truth(truth, 4, settings=TruthSettings(HOMEWORK_CLASSES))
    found = [
        Instance(number, 0.9, cell.top, cell.left, cell.mask)
        for number, cell in zip(numbers, truths[0].instances, strict=True)
    ]
    result = score(truths, result_entries(1, found, SIDE, SIDE), HOMEWORK_CLASSES)["uncapped"]["AP50"]
    assert isinstance(result, float)
    return result


NAMES = [cell_class.name for cell_class in HOMEWORK_CLASSES]


@pytest.mark.parametrize(
    "categories",
    [
        dict(enumerate(NAMES, start=1)),
        dict(enumerate(NAMES)),  # from 0
        dict(enumerate(reversed(NAMES), start=1)),  # in another order
        {7: NAMES[3], 90: NAMES[0], 3: NAMES[1]},  # with gaps, and a class less
        {1: " Epithelial", 2: "LYMPHOCYTE ", 4: "macrophage"},
        {1: NAMES[0], 2: NAMES[1], 3: NAMES[2], 4: NAMES[3], 5: "artefact"},  # which no annotation has
    ],
)
def test_names_decide(categories: dict[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ap50(coco(tmp_path / "gt.json", categories), [1, 2, 2, 4]) == pytest.approx(1)
    assert capsys.readouterr().err == ""


def test_a_root_above_the_categories_is_no_class(tmp_path: Path) -> None:
    path = coco(tmp_path / "gt.json", {1: NAMES[0], 2: NAMES[1], 4: NAMES[3]}, supercategory="cells")
    data = json.loads(path.read_text())
    data["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"})
    path.write_text(json.dumps(data))
    assert ap50(path, [1, 2, 2, 4]) == pytest.approx(1)


@pytest.mark.parametrize("names", [["1", "2", "4"], ["class1", "Class 2", "class_4"]])
@pytest.mark.parametrize("first", [0, 1])
def test_generic_names_match_by_id_and_are_said(
    names: list[str], first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco(tmp_path / "gt.json", {1: NAMES[0], 2: NAMES[1], 4: NAMES[3]})
    data = json.loads(path.read_text())
    numbers = {1: first, 2: first + 1, 4: first + 3}
    data["categories"] = [{"id": numbers[n], "name": name} for n, name in zip((1, 2, 4), names, strict=True)]
    data["categories"].append({"id": first + 2, "name": "class 3"})
    for item in data["annotations"]:
        item["category_id"] = numbers[item["category_id"]]
    path.write_text(json.dumps(data))
    assert ap50(path, [1, 2, 2, 4]) == pytest.approx(1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "gt.json" in said and "id" in said


@pytest.mark.parametrize(
    ("ids", "names", "used", "wanted"),
    [
        ([0, 1, 2, 3], ["class0", "class1", "class2", "class3"], {1, 3}, {1: 1, 3: 3}),  # 0 is their background
        ([0, 1, 2, 3], ["1", "2", "3", "4"], {1, 3}, {1: 2, 3: 4}),
        ([0, 1, 2, 3], ["a1", "class1", "x", "y"], {0}, None),
        ([5, 7], ["class 10", "class 20"], {5, 7}, {5: 1, 7: 2}),
        ([0, 1, 2, 3, 4], ["c", "1", "2", "3", "4"], {1, 4}, None),
    ],
)
def test_generic_names_by_hand(
    ids: list[int], names: list[str], used: set[int], wanted: dict[int, int] | None, tmp_path: Path
) -> None:
    categories = [Category(number, name, "") for number, name in zip(ids, names, strict=True)]
    classes = name_classes(["epithelial", "lymphocyte", "neutrophil", "macrophage"])
    if wanted is None:
        with pytest.raises(InputError, match="--classes"):
            match_classes(categories, used, classes, tmp_path)
        return
    found, said = match_classes(categories, used, classes, tmp_path)
    assert {number: found[number] for number in used} == wanted and said


def test_names_that_differ_in_case_alone_are_two_classes(tmp_path: Path) -> None:
    classes = name_classes(["T", "t"])
    categories = [Category(1, "t", ""), Category(2, "T", "")]
    assert match_classes(categories, {1, 2}, classes, tmp_path)[0] == {1: 2, 2: 1}


def test_names_that_differ_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path / "gt.json", {1: NAMES[0], 2: NAMES[1], 4: NAMES[3]})
    with pytest.raises(InputError, match=r"gt\.json: .*macrophage.*tumour.*--classes"):
        load_ground_truth(path, 3, settings=TruthSettings(name_classes(["epithelial", "lymphocyte", "tumour"])))


def test_a_file_without_categories_goes_by_its_ids(tmp_path: Path) -> None:
    path = coco(tmp_path / "gt.json", {1: NAMES[0], 2: NAMES[1], 4: NAMES[3]})
    data = json.loads(path.read_text())
    del data["categories"]
    path.write_text(json.dumps(data))
    assert ap50(path, [1, 2, 2, 4]) == pytest.approx(1)


def scored(folder: Path, gt: Path, numbers: list[int], *flags: str) -> float:
    """AP50 as the command says it, of the true squares with these category ids."""
    truths = load_ground_truth(gt, 4, settings=TruthSettings(HOMEWORK_CLASSES))
    found = [
        Instance(number, 0.9, cell.top, cell.left, cell.mask)
        for number, cell in zip(numbers, truths[0].instances, strict=True)
    ]
    write_json(folder / "pred.json", result_entries(1, found, SIDE, SIDE))
    main(["--pred", str(folder / "pred.json"), "--gt", str(gt), "--json", str(folder / "scores.json"), *flags])
    return float(json.loads((folder / "scores.json").read_text())["uncapped"]["AP50"])


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [7, 20, 90, 5], [4, 3, 2, 1], [2, 3, 4, 1]])
def test_results_with_the_ids_of_the_coco_file_are_matched_and_said(
    ids: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gt = coco(tmp_path / "gt.json", dict(zip(ids, NAMES, strict=True)))
    numbers = [ids[0], ids[1], ids[1], ids[3]]
    assert scored(tmp_path, gt, numbers) == pytest.approx(1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{ids[0]} is 1 epithelial" in said
    assert ("--classes" in said) == (set(numbers) <= {1, 2, 3, 4})  # where another reading is possible


def test_results_of_this_program_have_class_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt = coco(tmp_path / "gt.json", dict(zip([4, 3, 2, 1], NAMES, strict=True)))
    write_json(tmp_path / "classes-of-mine.json", to_json(HOMEWORK_CLASSES))
    assert scored(tmp_path, gt, [1, 2, 2, 4], "--classes", str(tmp_path / "classes-of-mine.json")) == pytest.approx(1)
    assert "--classes" in capsys.readouterr().err
    write_json(tmp_path / "pred.classes.json", to_json(HOMEWORK_CLASSES))
    assert scored(tmp_path, gt, [1, 2, 2, 4]) == pytest.approx(1)
    assert capsys.readouterr().err == ""


def test_ids_that_are_of_no_class_are_refused(tmp_path: Path) -> None:
    gt = coco(tmp_path / "gt.json", {10: NAMES[0], 20: NAMES[1], 40: NAMES[3], 50: "artefact"})
    with pytest.raises(InputError, match=r"entry 2: category_id 50 is artefact .*--classes"):
        scored(tmp_path, gt, [10, 20, 50, 40])
    with pytest.raises(InputError, match=r"entry 2: category_id 9 .* 10, 20, 40, 50 of .*gt\.json.*1\.\.4"):
        scored(tmp_path, gt, [10, 20, 9, 40])


def test_the_classes_of_a_folder_are_matched_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``classes.json`` in the ground truth, and classes beside the results, in another order."""
    truth = tmp_path / "truth"
    for number in (1, 2):
        mask = np.zeros((SIDE, SIDE), np.uint16)
        mask[5:15, 20 * number : 20 * number + 10] = 1
        write_mask(truth / "x" / f"class{number}.tif", mask)
    write_json(truth / "classes.json", to_json(name_classes(["b", "a"])))
    cells = [Instance(3 - number, 0.9, 5, 20 * number, np.ones((10, 10), bool)) for number in (1, 2)]
    write_json(tmp_path / "p.json", result_entries(1, cells, SIDE, SIDE))
    write_json(tmp_path / "p.id-map.json", [{"file_name": "x.tif", "id": 1, "height": SIDE, "width": SIDE}])

    def ap(names: list[str], *flags: str) -> float:
        write_json(tmp_path / "p.classes.json", to_json(name_classes(names)))
        main(["--pred", str(tmp_path / "p.json"), "--gt", str(truth), "--json", str(tmp_path / "s.json"), *flags])
        found: float = json.loads((tmp_path / "s.json").read_text())["uncapped"]["AP50"]
        return found

    assert ap(["A", "b"]) == 1 and ap(["b", "a"]) == 0
    with pytest.raises(InputError, match=r"classes\.json: has the categories"):
        ap(["tumour", "stroma"])
    capsys.readouterr()
    assert ap(["class1", "class2"]) == 0 and "generic" in capsys.readouterr().err
    write_json(tmp_path / "given.json", to_json(name_classes(["tumour", "stroma"])))
    assert ap(["tumour", "stroma"], "--classes", str(tmp_path / "given.json")) == 0  # the flag says what the ids are
