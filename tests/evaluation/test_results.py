"""Result entries, the results file and the submission zip."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.id_map import ImageId
from src.evaluation.results import (
    RESULTS_NAME,
    check_results,
    read_results,
    result_entries,
    write_results,
    write_submission_zip,
)
from src.geometry.instances import Instance

ID_MAP = [ImageId("a.tif", 7, 20, 30), ImageId("b.tif", 3, 10, 10)]


def make_entries() -> list[dict[str, Any]]:
    cells = [Instance(2, 0.75, 4, 6, np.ones((3, 5), bool)), Instance(1, 1, 0, 0, np.ones((1, 1), bool))]
    return result_entries(7, cells, 20, 30) + result_entries(3, cells[1:], 10, 10)


def test_an_entry_holds_the_tight_box_and_plain_types() -> None:
    first = make_entries()[0]
    assert first["bbox"] == [6, 4, 5, 3]
    assert (first["image_id"], first["category_id"], first["score"]) == (7, 2, 0.75)
    assert first["segmentation"]["size"] == [20, 30]
    numpy_typed = Instance(np.int64(2), np.float32(0.75), np.int64(4), np.int64(6), np.ones((3, 5), bool))
    assert json.dumps(result_entries(7, [numpy_typed], 20, 30)[0]) == json.dumps(first)


def test_no_instances_give_no_entries() -> None:
    assert result_entries(7, [], 20, 30) == []
    check_results([], ID_MAP, 4)


def test_results_survive_the_file_and_the_zip(tmp_path: Path) -> None:
    entries = make_entries()
    write_results(tmp_path / "out" / "mine.json", entries)
    assert read_results(tmp_path / "out" / "mine.json") == entries
    write_submission_zip(tmp_path / "mine.zip", tmp_path / "out" / "mine.json")
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        assert archive.namelist() == [RESULTS_NAME] == ["test-results.json"]
        assert json.loads(archive.read(RESULTS_NAME)) == entries
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.zip", "out"]
    check_results(read_results(tmp_path / "out" / "mine.json"), ID_MAP, 4)


def test_a_score_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, [])
    with pytest.raises(ValueError, match="JSON"):
        write_results(path, [{**make_entries()[0], "score": float("nan")}])
    assert read_results(path) == []


def test_a_missing_file_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: there is no such file"):
        write_submission_zip(tmp_path / "out.zip", tmp_path / "none.json")
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    "text, reason", [("{}", "expected a JSON list"), ("[{}, 3]", "entry 1 is no"), ("[", "not valid")]
)
def test_a_file_that_is_no_list_of_objects_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"bad\.json: .*{reason}"):
        read_results(path)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"image_id": 8}, "image_id 8 is not among"),
        ({"image_id": True}, "image_id True is not among"),
        ({"image_id": [7]}, "image_id"),
        ({"category_id": 0}, r"category_id 0 is not in 1\.\.4"),
        ({"category_id": 5}, "category_id 5"),
        ({"category_id": 2.0}, "category_id 2.0"),
        ({"score": 1.01}, "score 1.01 is not in"),
        ({"score": -0.1}, "score -0.1 is not in"),
        ({"score": float("nan")}, "score nan is not in"),
        ({"score": "0.5"}, "score '0.5' is not in"),
        ({"bbox": [0, 0, 1]}, "bbox .* is not four finite numbers"),
        ({"bbox": [0, 0, 1, float("inf")]}, "bbox .* is not four finite numbers"),
        ({"bbox": [0, 0, 1, 10**400]}, "bbox .* is not four finite numbers"),
        ({"segmentation": [[0, 0, 1, 1, 2, 0]]}, "segmentation's size"),
        ({"segmentation": {"size": [30, 20], "counts": "hb0"}}, r"size is not \[20, 30\]"),
        ({"segmentation": {"size": 5, "counts": "hb0"}}, "segmentation's size"),
        ({"segmentation": {"size": [20, 30], "counts": "hb1"}}, "do not sum"),
        ({"segmentation": {"size": [20, 30], "counts": "hb"}}, "cut off"),
        ({"segmentation": {"size": [20, 30]}}, "needs size and counts"),
    ],
)
def test_a_malformed_entry_is_named_with_its_index(change: dict[str, Any], reason: str) -> None:
    entries = make_entries()
    entries[1] = {**entries[1], **change}
    with pytest.raises(InputError, match=f"mine.json: entry 1: .*{reason}"):
        check_results(entries, ID_MAP, 4, "mine.json")


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "segmentation"])
def test_a_missing_key_is_named(key: str) -> None:
    entries = make_entries()
    del entries[2][key]
    with pytest.raises(InputError, match=f"entry 2: {key} is missing"):
        check_results(entries, ID_MAP, 4)


def test_numbers_as_text_or_with_a_point_are_read_as_integers(tmp_path: Path) -> None:
    wanted = [{**entry, "bbox": []} for entry in make_entries()]
    written = [
        {**entry, "image_id": str(entry["image_id"]), "category_id": float(entry["category_id"])} for entry in wanted
    ]
    written[0]["segmentation"] = {**wanted[0]["segmentation"], "size": ["20", 30.0]}
    write_results(tmp_path / "mine.json", written)
    found = read_results(tmp_path / "mine.json")
    assert found == wanted and all(type(entry["category_id"]) is int for entry in found)
    check_results(found, ID_MAP, 4)
    write_results(tmp_path / "mine.json", [{**written[0], "category_id": 1.5}])
    with pytest.raises(InputError, match=r"category_id 1\.5"):
        check_results(read_results(tmp_path / "mine.json"), ID_MAP, 4)
