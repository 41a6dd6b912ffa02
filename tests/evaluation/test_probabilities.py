"""Class probabilities: beside the results, in the results, and in what is exported from them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import InputError
from src.convert import main
from src.data.id_map import ImageId
from src.evaluation.probabilities import add_probabilities, is_distribution, write_probabilities
from src.evaluation.results import check_results, read_results, result_entries, write_results
from src.geometry.instances import Instance

ROWS = [[0.9, 0.1], [0.25, 0.75]]
CLASSES = [{"id": 1, "name": "one", "color": "#ff0000"}, {"id": 2, "name": "two", "color": "#0000ff"}]
IMAGE = ImageId("a.tif", 1, 40, 50)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    cells = [Instance(1, 0.9, 2, 3, np.ones((5, 6), bool)), Instance(2, 0.8, 20, 20, np.ones((4, 4), bool))]
    path = tmp_path / "r.json"
    write_results(path, result_entries(1, cells, 40, 50))
    write_probabilities(path, ROWS)
    (tmp_path / "r.id-map.json").write_text(json.dumps([vars(IMAGE)]))
    (tmp_path / "r.classes.json").write_text(json.dumps(CLASSES))
    return path


def export(results: Path, kind: str) -> Path:
    out = results.parent / kind
    main(["--from", "results", str(results), str(out), "--to", kind, "--force"])
    return out


def test_tables_hold_what_lies_beside_the_results(results: Path) -> None:
    rows = list(csv.DictReader((export(results, "csv") / "a.csv").read_text().splitlines()))
    assert [[float(row[f"probability_{name}"]) for name in ("one", "two")] for row in rows] == ROWS
    features = json.loads((export(results, "geojson") / "a.geojson").read_text())["features"]
    found = [feature["properties"]["measurements"] for feature in features]
    assert [[one["Probability of one"], one["Probability of two"]] for one in found] == ROWS
    annotations = json.loads(export(results, "coco").read_text())["annotations"]
    assert [one["probabilities"] for one in annotations] == ROWS


def test_results_may_hold_them_themselves(results: Path) -> None:
    entries = [{**entry, "probabilities": row[::-1]} for entry, row in zip(read_results(results), ROWS, strict=True)]
    write_results(results, entries)
    assert add_probabilities(results, entries, 2) == []
    rows = list(csv.DictReader((export(results, "csv") / "a.csv").read_text().splitlines()))
    assert [float(row["probability_one"]) for row in rows] == [0.1, 0.75]


def test_those_of_other_results_are_not_used(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(results, read_results(results)[::-1])
    rows = list(csv.DictReader((export(results, "csv") / "a.csv").read_text().splitlines()))
    assert "r.probabilities.json" in capsys.readouterr().out and [row["probability_one"] for row in rows] == ["", ""]
    (results.parent / "r.probabilities.json").unlink()
    assert add_probabilities(results, read_results(results), 2) == []


@pytest.mark.parametrize(
    "row", [[0.5], [0.5, 0.6], [1.5, -0.5], ["0.5", 0.5], [float("nan"), 1.0], None, [0.2, 0.3, 0.5]]
)
def test_what_are_no_probabilities_is_refused(results: Path, row: object) -> None:
    entries = read_results(results)
    entries[1]["probabilities"] = row
    assert not is_distribution(row, 2)
    with pytest.raises(InputError, match="entry 1: probabilities"):
        check_results(entries, [IMAGE], 2)
