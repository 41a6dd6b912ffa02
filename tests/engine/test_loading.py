import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import src.engine.loading
from dataset import TileDataset
from src.common.errors import InputError
from src.config.settings import AugmentSettings, TileSettings
from src.data.cache import ImageCache
from src.data.open_images import OpenImages
from src.engine.loading import EpochSampler, build_loader, choose_workers, collate, worker_errors
from tests.helpers import facts_about, find_records, write_dataset

pytestmark = pytest.mark.torch


def make(data: Path, cache_gb: float = 1.0) -> TileDataset:
    cache = ImageCache(data.parent / "cache", cache_gb, "full", 1.0)
    settings, records = TileSettings(tile_size=64, overlap=16), find_records(data, 2)
    images, facts = OpenImages(records, cache), facts_about(records, cache)
    return TileDataset(images, facts, settings, AugmentSettings(), False, seed=3)


def test_sampler_shares_out_every_index_and_goes_on_where_it_stopped() -> None:
    samplers = [EpochSampler(7, seed=1, rank=rank, world_size=2) for rank in range(2)]
    drawn = [key for sampler in samplers for key in sampler]
    assert len(samplers[0]) == len(samplers[1]) == 4
    assert {index for _, index in drawn} == set(range(7)) and {epoch for epoch, _ in drawn} == {0}
    whole = list(samplers[0])
    samplers[0].skip = 3
    assert list(samplers[0]) == whole[3:] and len(samplers[0]) == 1
    samplers[0].skip, samplers[0].epoch = 0, 1
    assert list(samplers[0]) != whole


def test_a_batch_gives_back_the_targets_of_its_tiles() -> None:
    def target(count: int, depth: int) -> dict[str, np.ndarray]:
        numbers = {"labels": np.arange(count) + 1, "ids": np.arange(count) + 5, "layers": np.full(count, depth - 1)}
        boxes = np.tile(np.array([0, 1, 2, 2 + depth], np.float32), (count, 1))
        return {"boxes": boxes, "label_map": np.full((depth, 4, 4), 7, np.uint16), **numbers}

    tile, given = np.full((4, 4, 3), (1, 2, 3), np.uint8), [target(0, 1), target(3, 2), target(1, 1)]
    batch = collate([(tile, one, name) for one, name in zip(given, "abc", strict=True)])
    assert batch.tiles.shape == (3, 3, 4, 4) and batch.tiles[0, :, 0, 0].tolist() == [1, 2, 3]
    assert batch.names == ["a", "b", "c"] and batch.counts == [0, 3, 1]
    for wanted, found in zip(given, batch.to(torch.device("cpu")).targets(), strict=True):
        for key in ("boxes", "labels", "layers", "ids"):
            assert np.array_equal(found[key].numpy(), wanted[key])
        depth = len(wanted["label_map"])
        assert found["label_map"].shape == (2, 4, 4) and found["label_map"].dtype == torch.int32
        assert (found["label_map"][:depth] == 7).all() and not found["label_map"][depth:].any()


def test_workers_change_nothing(tmp_path: Path) -> None:
    dataset = make(write_dataset(tmp_path / "train", "abc"))
    loaded = []
    for workers in (0, 2):
        loader = build_loader(dataset, EpochSampler(len(dataset), seed=0), 2, workers, cuda=False)
        loaded.append([batch.tiles for batch in loader])
    assert len(loaded[0]) == len(dataset) // 2
    assert all(torch.equal(a, b) for a, b in zip(*loaded, strict=True))


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(src.engine.loading, "free_shared_memory", lambda: 64_000_000)
    assert choose_workers(3, False, 2, 1_000_000) == 3  # as asked
    assert choose_workers("auto", False, 16, 1_000_000) == 0  # a CPU's cores are for the network
    assert [choose_workers("auto", True, cores, 1_000_000) for cores in (1, 2, 4, 16)] == [0, 1, 3, 4]


def test_workers_that_shared_memory_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(src.engine.loading, "free_shared_memory", lambda: 64_000_000)
    assert choose_workers("auto", True, 16, 10_000_000) == 2  # 4 batches of theirs and 2 on their way
    assert choose_workers("auto", True, 16, 30_000_000) == 0 == choose_workers(0, True, 16, 100_000_000)
    with pytest.raises(InputError, match=r"--workers 3: /dev/shm .*batches of 10 MB; enlarge it .* --workers 2"):
        choose_workers(3, True, 16, 10_000_000)


def test_a_tile_is_as_large_as_said(tmp_path: Path) -> None:
    dataset = make(write_dataset(tmp_path / "train", "ab"))
    batch = collate([dataset[(0, index)] for index in range(len(dataset))])
    assert len(dataset) * dataset.bytes_per_tile() == batch.tiles.nbytes + batch.label_maps.nbytes


def test_a_bad_file_that_a_worker_meets_is_named_in_one_line(tmp_path: Path) -> None:
    dataset = make(write_dataset(tmp_path / "train", "abcdefghijkl"), cache_gb=0.0)  # of which few stay open
    (tmp_path / "train/a/image.tif").write_bytes(b"no image")
    loader = build_loader(dataset, EpochSampler(len(dataset), 0), 2, 2, cuda=False)
    with pytest.raises(InputError) as caught, worker_errors():
        list(loader)
    assert str(caught.value).startswith(f"{tmp_path}/train/a/image.tif: ") and "\n" not in str(caught.value)


class Dying(TileDataset):
    """Ends its worker by a signal: SIGBUS is what a process gets that shared memory has no page for."""

    number = signal.SIGBUS

    def __getitem__(self, key: tuple[int, int]) -> src.engine.loading.Item:
        os.kill(os.getpid(), self.number)
        return super().__getitem__(key)


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGKILL])
def test_a_worker_that_dies_is_said_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    dataset = make(write_dataset(tmp_path / "train", "ab"))
    dataset.__class__, Dying.number = Dying, number
    loader = build_loader(dataset, EpochSampler(len(dataset), 0), 2, 1, cuda=False)
    said = r"^--workers: worker .* (killed by signal: (Bus error|Killed)|exited unexpectedly)"
    with pytest.raises(InputError, match=said) as caught, worker_errors():
        list(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "reset"),
        ConnectionRefusedError(),
        EOFError(),
        RuntimeError("received 0 items of ancdata"),
    ],
)
def test_a_worker_that_dies_while_it_hands_over_a_batch(error: Exception) -> None:
    with pytest.raises(InputError, match=r"^--workers: "), worker_errors():
        raise error


def test_a_worker_whose_death_is_noticed_in_the_middle_of_writing(tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.pt"
    with pytest.raises(InputError, match=r"^--workers: worker \(pid 7\) is killed by signal: Killed;"), worker_errors():
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except RuntimeError as error:
            raise InputError(f"{checkpoint}: cannot be written ({error})") from error


def test_a_file_that_ends_early_is_not_the_workers() -> None:
    with pytest.raises(InputError, match=r"^image\.tif: cut off$"), worker_errors():
        try:
            raise EOFError
        except EOFError as error:
            raise InputError("image.tif: cut off") from error


@pytest.mark.parametrize("error", [RuntimeError("a bug"), BrokenPipeError(), ValueError("a bug")])
def test_other_errors_are_not_the_workers(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, worker_errors():
        raise error
    assert caught.value is error
