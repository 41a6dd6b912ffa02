"""One limit on the size of an image, wherever images are read; none is decoded beyond it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from src import check, score
from src.common.errors import InputError
from src.config.settings import DataSettings, ImageSettings, RunSettings
from src.convert import main as convert
from src.data.id_map import ImageId, write_id_map
from src.data.records import find_records, find_test_images
from src.data.tiff import read_rgb
from src.data.training_data import load_training_data
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import write_results
from src.formats.imported import read_picture
from tests.helpers import write_dataset

LIMIT = 96 * 80  # px, of the images that `write_dataset` makes


def training(folder: Path, limit: int) -> None:
    data = replace(DataSettings(), data_path=str(folder), num_classes=3)
    load_training_data(data, ImageSettings(max_pixels=limit), RunSettings(cache_gb=0.0), lambda records: records)


def scoring(folder: Path, limit: int) -> None:
    results = folder.parent / "r.json"
    write_results(results, [])
    score.main(["--pred", str(results), "--gt", str(folder), "--max-pixels", str(limit)])


def checking(folder: Path, limit: int) -> None:
    facts, problems = check.check([folder / "a"], 2, limit)
    if not facts:
        raise InputError(problems[0])


READERS: dict[str, Callable[[Path, int], object]] = {
    "training": training,
    "scoring": scoring,
    "checking": checking,
    "records": lambda folder, limit: find_records(folder, 2, max_pixels=limit),
    "test images": lambda folder, limit: find_test_images(folder, max_pixels=limit),
    "prediction": lambda folder, limit: read_rgb(folder / "a/image.tif", "full", False, limit),
    "ground truth": lambda folder, limit: load_ground_truth(folder, 2, max_pixels=limit),
    "import": lambda folder, limit: read_picture(folder / "a/image.tif", limit),
}


def test_an_id_map_claims_no_more_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "gt/a").mkdir(parents=True)  # neither a mask nor image.tif: the size is the id map's
    results, id_map = tmp_path / "r.json", tmp_path / "r.id-map.json"
    write_results(results, [])
    given = ["--pred", str(results), "--gt", str(tmp_path / "gt")]
    write_id_map(id_map, [ImageId("a.tif", 1, 96, 80)])
    score.main([*given, "--max-pixels", str(LIMIT)])
    with pytest.raises(InputError, match=r"r.id-map.json: a.tif is 96 x 80 px; see --max-pixels"):
        score.main([*given, "--max-pixels", str(LIMIT - 1)])
    write_id_map(id_map, [ImageId("a.tif", 1, 10**6, 10**6)])
    with pytest.raises(InputError, match="1000000 x 1000000 px; see --max-pixels"):
        score.main(given)
    with pytest.raises(InputError, match="1000000 x 1000000 px; see --max-pixels"):
        load_ground_truth(tmp_path / "gt", 2, id_map)


@pytest.mark.parametrize("reader", READERS)
def test_the_limit_is_kept(tmp_path: Path, reader: str) -> None:
    folder = write_dataset(tmp_path / "train", "ab")
    READERS[reader](folder, LIMIT)
    with pytest.raises(InputError, match=rf"a/.*\.tif: is 96 x 80 px; more than {LIMIT - 1} px .*--max-pixels"):
        READERS[reader](folder, LIMIT - 1)


def test_the_limit_of_a_conversion_is_a_flag(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    folder = write_dataset(tmp_path / "train", "a")
    (folder / "a/image.tif").rename(tmp_path / "in/x.tif")
    (folder / "a/class1.tif").rename(tmp_path / "in/x_masks.tif")
    given = ["--from", "labels", str(tmp_path / "in"), str(tmp_path / "out")]
    with pytest.raises(InputError, match="--max-pixels"):
        convert([*given, "--max-pixels", str(LIMIT - 1)])
    convert(given)
