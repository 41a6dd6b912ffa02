"""What Windows lacks or does otherwise, as far as another system can show it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from dataset import TileDataset
from src.common.errors import InputError
from src.config.flags import build
from src.config.recipe import read_recipe, to_toml
from src.config.settings import AugmentSettings, TileSettings, TrainConfig
from src.data.cache import ImageCache
from src.data.open_images import OpenImages
from src.engine.loading import EpochSampler, collate, start_worker
from src.evaluation.image_truth import ImageTruth
from tests.helpers import TINY, facts_about, find_records, write_dataset

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]

# Modules that are not there, and the lock that stands in for fcntl's; paths keep this system's rules.
WITHOUT_POSIX_MODULES = """
import os, runpy, sys, types
import subprocess, torch, torch.utils.data, torchvision  # which know for themselves what Windows lacks
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
locks = set()
def locking(descriptor, mode, size):
    place = os.fstat(descriptor).st_ino
    if place in locks:
        raise OSError("locked")
    locks.add(place)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.getcwd())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_POSIX_MODULES, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_it_trains_and_predicts_without_modules_of_posix(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "a folder" / "train", "ab")
    places = {"data_path": str(data), "output_dir": str(tmp_path / "a run"), "cache_dir": str(tmp_path / "cache")}
    config = build(TrainConfig, {**TINY, **places, "max_steps": 1, "val_fraction": 0.0})
    (tmp_path / "tiny recipe.toml").write_text(to_toml(config), encoding="utf-8")
    for _ in range(2):  # the second renames the first one's folder
        done = run("main.py", "--recipe", str(tmp_path / "tiny recipe.toml"))
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "a run.1/best.pt").is_file()
    flags = ["--ckpt", str(tmp_path / "a run/best.pt"), "--test-dir", str(data), "--output", str(tmp_path / "out.json")]
    done = run("inference.py", *flags, "--device", "cpu")
    assert done.returncode == 0 and (tmp_path / "out.json").is_file(), done.stderr[-2000:]


def test_workers_that_are_spawned_load_tiles(tmp_path: Path) -> None:
    records = find_records(write_dataset(tmp_path / "train", "ab"), 2)
    cache = ImageCache(tmp_path / "cache", 1.0, "full", 1.0)
    images, facts = OpenImages(records, cache), facts_about(records, cache)
    dataset = TileDataset(images, facts, TileSettings(64, 16), AugmentSettings(), False, 0)
    sampler = EpochSampler(len(dataset), 0)
    here, spawned = (
        DataLoader(dataset, 2, sampler=sampler, collate_fn=collate, num_workers=workers, worker_init_fn=start,
                   multiprocessing_context=context)
        for workers, start, context in ((0, None, None), (1, start_worker(), "spawn"))
    )  # fmt: skip
    for one, other in zip(here, spawned, strict=True):
        assert one.names == other.names and (one.tiles == other.tiles).all()


def test_paths_with_backslashes(tmp_path: Path) -> None:
    config = build(TrainConfig, {"data_path": "C:\\Users\\me\\my cells", "output_dir": "D:\\runs\\1"})
    (tmp_path / "r.toml").write_text(to_toml(config), encoding="utf-8")
    assert build(TrainConfig, read_recipe(tmp_path / "r.toml")) == config
    (tmp_path / "r.toml").write_text('data_path = "C:\\Users\\me"')
    with pytest.raises(InputError, match=r"r\.toml: is not valid TOML .*single quotes"):
        read_recipe(tmp_path / "r.toml")
    assert ImageTruth(1, "images\\tumour\\a.tif", 4, 4, []).name == ImageTruth(1, "images/a.tif", 4, 4, []).name == "a"


def test_a_console_that_lacks_characters(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "src.score", "--pred", str(tmp_path / "…"), "--gt", "→"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    helped = subprocess.run(
        [sys.executable, "main.py", "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert helped.returncode == 0 and "JSON file of part ? names" in helped.stdout
