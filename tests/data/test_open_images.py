"""Any number of images is read with few of them open."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.data.cache import ImageCache
from src.data.open_images import MOST_DECODED, MOST_MAPPED, OpenImages
from src.data.prepared import prepare
from src.data.records import Record
from tests.helpers import find_records, write_many

FEW = 256  # descriptors, as macOS allows a process


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return find_records(write_many(tmp_path / "data", 60), 2)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_few_memory_maps_are_open(records: list[Record], tmp_path: Path) -> None:
    images = OpenImages(records, ImageCache(tmp_path / "cache", 1.0, "full", 1.0))
    before = open_files()
    for index in [*range(len(records)), 3, 3, 59]:
        assert np.array_equal(images[index].image, prepare(records[index], "full", 1.0).image)
        assert open_files() <= before + 2 * MOST_MAPPED
    assert open_files() == before + 2 * MOST_MAPPED
    assert len(pickle.loads(pickle.dumps(images))._open) == 0


def test_few_decoded_images_are_kept(records: list[Record], tmp_path: Path) -> None:
    images = OpenImages(records, ImageCache(tmp_path / "cache", 0.0, "full", 1.0))
    for index in range(len(records)):
        assert images[index].image.shape == (96, 80, 3)
        assert len(images._open) <= MOST_DECODED
    images[len(records) - 2]
    images[0]
    assert len(records) - 2 in images._open and len(records) - MOST_DECODED not in images._open  # the oldest went


def test_an_entry_that_was_removed_meanwhile_is_decoded_again(records: list[Record], tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", 1.0, "full", 1.0)
    images = OpenImages(records[:1], cache)
    wanted = np.array(images[0].label_map)
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert np.array_equal(images[0].label_map, wanted)  # what is open stays readable
    assert np.array_equal(OpenImages(records[:1], cache)[0].label_map, wanted) and cache.decoded == 2


LOADS_AN_EPOCH = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
from dataset import TileDataset
from src.config.settings import AugmentSettings, DataSettings, ImageSettings, TileSettings
from src.data.open_images import OpenImages
from src.data.training_data import load_training_data
from src.engine.loading import EpochSampler, build_loader
folder = Path(sys.argv[1])
data = load_training_data(
    DataSettings(str(folder), num_classes=3, val_fraction=0.0, cache_dir=str(folder.parent / "cache")), ImageSettings()
)
images = OpenImages(data.train, data.cache)
dataset = TileDataset(images, data.train_facts, TileSettings(64, 16), AugmentSettings(), False, 0)
loader = build_loader(dataset, EpochSampler(len(dataset), 0), 4, int(sys.argv[3]), cuda=False)
print(sum(len(batch.tiles) for batch in loader), len(dataset))
"""


@pytest.mark.torch
@pytest.mark.parametrize("workers", [0, 2])
def test_more_images_than_a_process_may_open_files(tmp_path: Path, workers: int) -> None:
    folder = write_many(tmp_path / "data", 300)
    command = [sys.executable, "-c", LOADS_AN_EPOCH, str(folder), str(FEW), str(workers)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded, tiles = map(int, done.stdout.split()[-2:])
    assert tiles >= 300 and tiles - 4 < loaded <= tiles
