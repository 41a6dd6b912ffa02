import pytest
import torch

from engine.memory import DEFAULT, fitting_batch, largest_batch

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("capacity", "count"), [(1000, 9), (1099, 9), (1100, 10), (250, 1), (199, 1), (0, 1), (-5, 1)])
def test_memory_grows_by_as_much_for_each_tile(capacity: int, count: int) -> None:
    assert largest_batch(lambda tiles: 100 + 100 * tiles, capacity) == count


def test_memory_that_does_not_grow() -> None:
    assert largest_batch(lambda tiles: 100, 150) == 51


def test_without_a_gpu_nothing_is_tried() -> None:
    assert fitting_batch(None, None, None, torch.device("cpu")) == DEFAULT
