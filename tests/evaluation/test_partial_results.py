"""An interrupted prediction goes on, and never with results of something else."""

from pathlib import Path

import numpy as np

from src.data.id_map import ImageId
from src.data.images_to_predict import TestImage
from src.data.tiff import write_image
from src.evaluation.partial_results import PartialResults


def images(folder: Path) -> list[TestImage]:
    for name in "ab":
        write_image(folder / f"{name}.tif", np.zeros((4, 5, 3), np.uint8))
    return [TestImage(folder / f"{name}.tif", ImageId(f"{name}.tif", i, 4, 5)) for i, name in enumerate("ab", start=7)]


def test_what_is_done_is_read_back_whoever_did_it(tmp_path: Path) -> None:
    first, second = images(tmp_path)
    PartialResults(tmp_path / "r.json", ["job"], 0).add(first, [{"score": 0.5}])
    PartialResults(tmp_path / "r.json", ["job"], 1).add(second, [])
    partial = PartialResults(tmp_path / "r.json", ["job"], 2)
    assert partial.read([first, second]) == {7: [{"score": 0.5}], 8: []}
    assert partial.read([second]) == {8: []}
    partial.remove()
    assert partial.read([first, second]) == {} and not list(tmp_path.glob(".*"))


def test_a_torn_line_is_one_image(tmp_path: Path) -> None:
    first, second = images(tmp_path)
    partial = PartialResults(tmp_path / "r.json", ["job"], 0)
    partial.add(first, [{"score": 0.5}])
    partial.add(second, [{"score": 0.7}])
    partial.path.write_bytes(partial.path.read_bytes()[:-9])
    assert partial.read([first, second]) == {7: [{"score": 0.5}]}


def test_another_job_or_another_image_does_not_count(tmp_path: Path) -> None:
    first, _ = images(tmp_path)
    PartialResults(tmp_path / "r.json", ["job"], 0).add(first, [])
    assert PartialResults(tmp_path / "r.json", ["other"], 0).read([first]) == {}
    assert PartialResults(tmp_path / "s.json", ["job"], 0).read([first]) == {}
    write_image(first.image, np.full((4, 5, 3), 9, np.uint8))
    assert PartialResults(tmp_path / "r.json", ["job"], 0).read([first]) == {}
