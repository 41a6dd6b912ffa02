"""One limit on the size of an image, wherever images are read; none is decoded beyond it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from src import check, score
from src.common.errors import InputError
from src.common.limits import max_pixels, set_max_pixels
from src.config.settings import DataSettings, ImageSettings
from src.convert import main as convert
from src.data.id_map import ImageId, write_id_map
from src.data.images_to_predict import find_test_images
from src.data.pictures import read_picture, read_rgb
from src.data.training_data import load_training_data
from src.engine.loading import start_worker
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import write_results
from tests.helpers import find_records, write_dataset

LIMIT = 96 * 80  # px, of the images that `write_dataset` makes


def training(folder: Path) -> None:
    data = replace(DataSettings(), data_path=str(folder), num_classes=3, cache_gb=0.0)
    load_training_data(data, ImageSettings())


def scoring(folder: Path) -> None:
    results = folder.parent / "r.json"
    write_results(results, [])
    score.main(["--pred", str(results), "--gt", str(folder), "--max-pixels", str(max_pixels())])


def checking(folder: Path) -> None:
    facts, problems = check.check([("a", folder / "a")], 2, "full")
    if not facts:
        raise InputError(problems[0])


READERS: dict[str, Callable[[Path], object]] = {
    "training": training,
    "scoring": scoring,
    "checking": checking,
    "records": lambda folder: find_records(folder, 2),
    "test images": find_test_images,
    "prediction": lambda folder: read_rgb(folder / "a/image.tif", "full", False),
    "ground truth": lambda folder: load_ground_truth(folder, 2),
    "import": lambda folder: read_picture(folder / "a/image.tif"),
}


def test_an_id_map_claims_no_more_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "gt/a").mkdir(parents=True)  # neither a mask nor image.tif: the size is the id map's
    results, id_map = tmp_path / "r.json", tmp_path / "r.id-map.json"
    write_results(results, [])
    given = ["--pred", str(results), "--gt", str(tmp_path / "gt")]
    write_id_map(id_map, [ImageId("a.tif", 1, 96, 80)])
    score.main([*given, "--max-pixels", str(LIMIT)])
    with pytest.raises(InputError, match=r"r.id-map.json: a.tif: is 96 x 80 px; .*--max-pixels"):
        score.main([*given, "--max-pixels", str(LIMIT - 1)])
    write_id_map(id_map, [ImageId("a.tif", 1, 10**6, 10**6)])
    with pytest.raises(InputError, match=r"1000000 x 1000000 px; .*--max-pixels"):
        score.main(given)
    with pytest.raises(InputError, match=r"1000000 x 1000000 px; .*--max-pixels"):
        load_ground_truth(tmp_path / "gt", 2, id_map)


@pytest.mark.parametrize("reader", READERS)
def test_the_limit_is_kept(tmp_path: Path, reader: str) -> None:
    folder = write_dataset(tmp_path / "train", "ab")
    set_max_pixels(LIMIT)
    READERS[reader](folder)
    set_max_pixels(LIMIT - 1)
    with pytest.raises(InputError, match=rf"a/.*\.tif: is 96 x 80 px; more than {LIMIT - 1} px .*--max-pixels"):
        READERS[reader](folder)


def test_the_limit_of_a_conversion_is_a_flag(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    folder = write_dataset(tmp_path / "train", "a")
    (folder / "a/image.tif").rename(tmp_path / "in/x.tif")
    (folder / "a/class1.tif").rename(tmp_path / "in/x_masks.tif")
    given = ["--from", "labels", str(tmp_path / "in"), str(tmp_path / "out")]
    with pytest.raises(InputError, match="--max-pixels"):
        convert([*given, "--max-pixels", str(LIMIT - 1)])
    convert(given)


class Readers(Dataset[int]):
    """Reads a file in whichever process asks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return len(read_rgb(self.path, "full", False))


@pytest.mark.torch
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_keep_the_limit(tmp_path: Path, method: str) -> None:
    path = write_dataset(tmp_path / "train", "a") / "a/image.tif"
    for limit, is_read in ((LIMIT, True), (LIMIT - 1, False)):
        set_max_pixels(limit)
        loader = DataLoader(Readers(path), num_workers=1, worker_init_fn=start_worker(), multiprocessing_context=method)
        with nullcontext() if is_read else pytest.raises(InputError, match="--max-pixels"):
            assert [int(height) for height in loader] == [96]
