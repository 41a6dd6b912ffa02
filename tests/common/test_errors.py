from pathlib import Path

import cv2
import pytest

from benchmarks.errors import main
from src.common.errors import InputError
from src.common.files import companion
from src.data.id_map import ImageId, write_id_map
from src.data.records import find_records
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import result_entries, write_results
from tests.helpers import write_dataset


def test_worst_errors_are_counted_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data", "ab")
    records = find_records(data, 4)
    ids = [ImageId(f"{record.name}.tif", k, record.height, record.width) for k, record in enumerate(records, start=1)]
    id_map = companion(tmp_path / "r.json", "id-map")
    write_id_map(id_map, ids)
    truths = load_ground_truth(data, 4, id_map)
    entries = []
    for truth in truths:  # all but the first cell, and the second as another class
        found = [vars(cell) for cell in truth.instances[1:]]
        found[0] = {**found[0], "category_id": 3}
        cells = [type(truth.instances[0])(**values) for values in found]
        entries += result_entries(truth.id, cells, truth.height, truth.width)
    write_results(tmp_path / "r.json", entries)
    given = {"--pred": tmp_path / "r.json", "--gt": data, "--out": tmp_path / "out"}
    monkeypatch.setattr("sys.argv", ["errors", *(str(word) for pair in given.items() for word in pair)])
    main()
    said = capsys.readouterr().out
    assert "misses: 4 in all" in said and "wrong class 2" in said and "inventions: 2 in all: wrong class 2" in said
    pictures = {name: cv2.imread(str(tmp_path / f"out/{name}.png")) for name in ("misses", "inventions")}
    assert pictures["misses"].shape[1] == pictures["inventions"].shape[1] == 6 * 2 * 72 * 3
    id_map.unlink()
    with pytest.raises(InputError, match=r"r.id-map.json: no such file; name an id map"):
        main()
