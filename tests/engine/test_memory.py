import pytest
import torch

from src.common.errors import InputError
from src.engine.memory import DEFAULT, auto_batch_size, largest_batch, largest_fitting_batch, memory_errors

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("capacity", "count"), [(1000, 9), (1099, 9), (1100, 10), (250, 1), (199, 1), (0, 1), (-5, 1)])
def test_memory_grows_by_as_much_for_each_tile(capacity: int, count: int) -> None:
    assert largest_batch(lambda tiles: 100 + 100 * tiles, capacity) == count


def test_memory_that_does_not_grow() -> None:
    assert largest_batch(lambda tiles: 100, 150) == 51


def test_without_a_gpu_nothing_is_tried() -> None:
    assert largest_fitting_batch(None, None, None, torch.device("cpu")) == DEFAULT


@pytest.mark.parametrize(
    ("fitting", "tiles", "accumulate", "batch_size"),
    [(165, 48, 1, 6), (4, 48, 1, 4), (165, 48, 3, 2), (165, 7, 1, 1), (1, 1000, 1, 1)],
)
def test_auto_leaves_eight_steps_per_epoch(fitting: int, tiles: int, accumulate: int, batch_size: int) -> None:
    assert auto_batch_size(fitting, tiles, accumulate) == batch_size


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.50 MiB. GPU 0 has ..."), "20.50 MiB"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."), None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."), "800 bytes"),
        (MemoryError(), None),
        (MemoryError("Unable to allocate 8.00 PiB for an array with shape (1,)"), "8.00 PiB"),
    ],
)
def test_out_of_memory_is_one_line(error: Exception, needed: str | None) -> None:
    with pytest.raises(InputError) as caught, memory_errors("lower --this"):
        raise error
    said = str(caught.value)
    assert said.startswith("out of memory") and said.endswith("; lower --this") and "\n" not in said
    assert (needed in said) if needed else ("needed" not in said)


def test_memory_that_cannot_be_had_for_real() -> None:
    with (
        pytest.raises(InputError, match=r"out of memory of the computer: \d+ bytes .*; lower --this"),
        memory_errors("lower --this"),
    ):
        torch.empty(1 << 50)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("lower --this"):
        raise RuntimeError("shapes do not fit")
