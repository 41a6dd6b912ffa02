"""The context in which torch has a fake CUDA device."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # while it is imported, as torchvision, it reads functions that are patched here
import torchvision  # noqa: F401
from torch import Tensor
from torch import __future__ as future
from torch.utils import _foreach_utils

from tests.fake_cuda.gpu import FakeGpu
from tests.fake_cuda.guard import can_backward, guard
from tests.fake_cuda.tensor import FakeCudaMode, FakeCudaTensor


@contextmanager
def fake_cuda(capability: tuple[int, int] = (8, 0), memory: int = 16 << 30, devices: int = 1) -> Iterator[FakeGpu]:
    """Inside, there are so many GPUs of a compute capability, with ``memory`` bytes. Contexts cannot be nested."""
    gpu = FakeGpu(capability, memory, devices)
    with ExitStack() as stack:
        stack.enter_context(guard(devices))
        stack.enter_context(patch.multiple(torch.cuda, **_device_fakes(gpu), **_memory_fakes(gpu), **_other_fakes(gpu)))
        stack.enter_context(patch.multiple(torch.accelerator, **_accelerator_fakes(gpu)))
        stack.enter_context(patch.multiple(Tensor, pin_memory=_pin_memory, is_pinned=_is_pinned))
        _set_flags(stack)
        stack.enter_context(FakeCudaMode(gpu))
        yield gpu


def _set_flags(stack: ExitStack) -> None:
    """Set what torch asks before it makes or uses a tensor, until ``stack`` closes."""
    stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # the mode is active in this thread alone
    stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # else batch norm becomes an operation of cuDNN
    stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes a CPU tensor and moves it
    stack.callback(future.set_overwrite_module_params_on_conversion, future.get_overwrite_module_params_on_conversion())
    future.set_overwrite_module_params_on_conversion(True)  # a CPU parameter cannot become a fake tensor in place
    types = [*_foreach_utils._foreach_supported_types, FakeCudaTensor]
    stack.enter_context(patch.object(_foreach_utils, "_foreach_supported_types", types))


def _device_fakes(gpu: FakeGpu) -> dict[str, Any]:
    major, minor = gpu.capability
    properties = SimpleNamespace(
        name="fake GPU", major=major, minor=minor, total_memory=gpu.memory, multi_processor_count=80
    )
    return {
        "_lazy_init": _always(None), "is_initialized": _always(True), "is_available": _always(True),
        "device_count": _always(gpu.devices), "current_device": lambda: gpu.current,
        "get_device_capability": _always(gpu.capability), "is_bf16_supported": _always(major >= 8),
        "get_device_name": _always(properties.name), "get_device_properties": _always(properties),
        **dict.fromkeys(("set_device", "_exchange_device", "_maybe_exchange_device"), lambda new: _exchange(gpu, new)),
    }  # fmt: skip


def _memory_fakes(gpu: FakeGpu) -> dict[str, Any]:
    return {
        "mem_get_info": lambda *_: (gpu.free, gpu.memory), "empty_cache": _always(None),
        "memory_allocated": lambda *_: gpu.allocated, "max_memory_allocated": lambda *_: gpu.peak,
        "reset_peak_memory_stats": lambda *_: setattr(gpu, "peak", gpu.allocated),
    }  # fmt: skip


def _other_fakes(gpu: FakeGpu) -> dict[str, Any]:
    """Streams that have nothing to wait for, and random numbers from the CPU's generator, which torch seeds anyway."""
    event = SimpleNamespace(record=_always(None), query=_always(True), synchronize=_wait(gpu, "event.synchronize"))
    stream = SimpleNamespace(wait_stream=_always(None), synchronize=_wait(gpu, "stream.synchronize"))
    return {
        "Event": _always(event), "current_stream": _always(stream), "is_current_stream_capturing": _always(False),
        "synchronize": _wait(gpu, "synchronize"), "manual_seed": _always(None), "manual_seed_all": _always(None),
        "get_rng_state": lambda *_: torch.get_rng_state(), "set_rng_state": lambda new, *_: torch.set_rng_state(new),
    }  # fmt: skip


def _accelerator_fakes(gpu: FakeGpu) -> dict[str, Any]:
    """What the thread asks that pins the batches of a data loader."""
    return {
        "is_available": _always(True), "current_device_index": lambda: gpu.current,
        "set_device_index": lambda new: _exchange(gpu, new),
    }  # fmt: skip


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _wait(gpu: FakeGpu, operation: str) -> Callable[..., None]:
    return lambda *_: gpu.note_wait(operation)


def _exchange(gpu: FakeGpu, device: torch.device | str | int) -> int:
    """Make another device the current one and return the index of the one before. A negative index changes nothing."""
    before, index = gpu.current, device if isinstance(device, int) else torch.device(device).index
    gpu.current = before if index is None or index < 0 else index
    if can_backward():
        torch._C._accelerator_setDeviceIndex(gpu.current)  # so that torch's C++ code knows it too
    return before


def _pin_memory(tensor: Tensor, *_: Any) -> Tensor:
    pinned = tensor.clone()
    pinned._pinned_for_fake_cuda = True
    return pinned


def _is_pinned(tensor: Tensor, *_: Any) -> bool:
    return getattr(tensor, "_pinned_for_fake_cuda", False)
