"""The fake CUDA device of the tests, where the answers are known by hand."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import __future__ as future
from torch.nn import functional as F
from torch.utils import _foreach_utils

from tests.fake_cuda import FakeGpu, can_backward, fake_cuda, guard, needs_guard, to_cpu

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]
MIB = 1 << 20


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    with fake_cuda() as made:
        yield made


def numbers(*values: float) -> Tensor:
    """A float32 tensor on the device."""
    return torch.tensor(values, device="cuda")


def network(device: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).to(device)


def train_step(model: nn.Module, device: str) -> list[Tensor]:
    """The loss, and the parameters after a step of Adam, all on the CPU."""
    images = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss = F.cross_entropy(model(images), torch.tensor([0, 1], device=device))
    loss.backward()
    optimizer.step()
    return [to_cpu(value.detach()) for value in (loss, *model.parameters())]


def state_of_torch() -> dict[str, Any]:
    """What the context may change for as long as it lasts."""
    owners = {"cuda": torch.cuda, "accelerator": torch.accelerator, "tensor": Tensor}
    names = {f"{owner}.{name}": value for owner, found in owners.items() for name, value in vars(found).items()}
    names.pop("tensor.__slotnames__", None)  # Python notes it when a tensor is first copied
    return names | {
        "multithreading": torch.autograd.is_multithreading_enabled(),
        "overwrite": future.get_overwrite_module_params_on_conversion(),
        "lift": torch._C._only_lift_cpu_tensors(),
        "cudnn": torch.backends.cudnn.enabled,
        "foreach": list(_foreach_utils._foreach_supported_types),
        "available": (torch.cuda.is_available(), torch.accelerator.is_available(), torch.cuda.device_count()),
    }


def error_of(function: Callable[[], object]) -> str:
    with pytest.raises(RuntimeError) as caught:
        function()
    return str(caught.value).splitlines()[0]


def test_there_is_a_gpu_of_the_asked_kind() -> None:
    with fake_cuda(capability=(7, 5), memory=8 << 30, devices=2):
        assert torch.cuda.is_available() and torch.cuda.device_count() == 2
        assert torch.cuda.get_device_capability() == (7, 5) and not torch.cuda.is_bf16_supported()
        assert torch.cuda.mem_get_info() == (8 << 30, 8 << 30)
        assert numbers(1, 2).device == torch.device("cuda", 0)


def test_values_are_those_of_the_cpu(gpu: FakeGpu) -> None:
    values = numbers(1, 2, 3)
    values[1:] += 1
    assert values.is_cuda and values.tolist() == [1, 3, 4] and f"{values.sum():.1f}" == "8.0"
    assert torch.equal(values.cpu(), torch.tensor([1.0, 3, 4])) and not to_cpu(values).is_cuda
    source = torch.zeros(2)
    source.to("cuda").add_(1)
    assert source.tolist() == [0, 0]


@pytest.mark.parametrize("inference", [False, True])
def test_mixed_devices_are_refused(gpu: FakeGpu, inference: bool) -> None:
    ours, host, indices = numbers(1, 2), torch.zeros(2), torch.tensor([0])
    refused = [
        lambda: ours + host, lambda: host + ours.sum(), lambda: torch.cat([ours, host]), lambda: host.add_(ours),
        lambda: F.mse_loss(ours, host), lambda: host[indices.to("cuda")], lambda: ours.index_put_((indices,), host[:1]),
    ]  # fmt: skip
    with torch.inference_mode(inference):
        for function in refused:
            with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
                function()
        assert (ours + torch.tensor(1.0)).tolist() == [2, 3]
        assert ours[indices].tolist() == [1] and host.copy_(ours).tolist() == [1, 2]
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        np.asarray(ours)


def test_devices_are_told_apart() -> None:
    with fake_cuda(devices=2):
        first, second = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
        with pytest.raises(RuntimeError, match="two devices, cuda:1 and cuda:0"):
            first + second
        assert (first + second.to("cuda:0")).device.index == 0
        torch.cuda.set_device(1)
        assert torch.ones(2, device="cuda").device.index == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_chooses_the_types_of_cuda(gpu: FakeGpu, dtype: torch.dtype) -> None:
    square, image = torch.ones(2, 2, device="cuda"), torch.ones(1, 1, 4, 4, device="cuda")
    with torch.autocast("cuda", dtype):
        product = square @ square
        assert product.dtype == dtype and product.tolist() == [[2, 2], [2, 2]]
        assert F.conv2d(image, image).dtype == dtype
        assert F.cross_entropy(product, square).dtype == torch.float32
        assert product.exp().dtype == torch.float32 and product.relu().dtype == dtype


def test_a_product_of_halves_is_rounded_once(gpu: FakeGpu) -> None:
    ones = torch.ones(1, 2049, device="cuda", dtype=torch.float16)  # one by one, a sum in fp16 would stop at 2048
    ones[0, :3] = 2
    assert (ones @ ones.new_ones(2049, 1)).item() == 2052


def test_each_wait_is_counted(gpu: FakeGpu) -> None:
    values, host = numbers(1, 0, 3), torch.zeros(3)
    mask, pinned = values > 0, host.pin_memory()
    waiting = {
        "aten::_local_scalar_dense": lambda: values.sum().item(), "aten::nonzero": values.nonzero,
        "aten::index with a mask": lambda: values[mask], "copy from cuda to cpu": values.cpu,
        "copy from cpu to cuda": lambda: values.copy_(host), "tolist": values.tolist,
        "copy from cpu to cuda, not pinned": lambda: host.to("cuda", non_blocking=True),
        "aten::index with an index from the host": lambda: values[torch.tensor([0])],
        "synchronize": torch.cuda.synchronize, "event.synchronize": lambda: torch.cuda.Event().synchronize(),
    }  # fmt: skip
    quick = [
        lambda: values * 2 + 1, lambda: torch.where(mask, values, 0), lambda: values.masked_fill_(mask, 2),
        lambda: values.__setitem__(mask, 1), lambda: values.to("cpu", non_blocking=True), lambda: values[[0, 1][0]],
        lambda: pinned.to("cuda", non_blocking=True), lambda: torch.zeros(3, device="cuda").topk(2),
    ]  # fmt: skip
    for inference in (False, True):
        for operation, function in waiting.items():
            with torch.inference_mode(inference), gpu.counting() as waits:
                function()
            assert {wait.operation: count for wait, count in waits.items()} == {operation: 1}
        with torch.inference_mode(inference), gpu.counting() as waits:
            for function in quick:
                function()
        assert not waits


def test_a_wait_names_its_place(gpu: FakeGpu) -> None:
    def reads(values: Tensor) -> float:
        return values.sum().item()

    reads(numbers(1))
    with gpu.counting() as waits:
        reads(torch.zeros(1, device="cuda"))
    [(wait, count)] = waits.items()
    place = f"{Path(__file__).name}:{reads.__code__.co_firstlineno + 1} reads"
    assert (wait.caller, wait.place, count) == ("test_a_wait_names_its_place", place, 1) and gpu.waits[wait] == 2


def test_memory_is_given_back(gpu: FakeGpu) -> None:
    kept = torch.zeros(MIB, dtype=torch.uint8, device="cuda")
    views = [kept[1:], kept.view(2, -1), kept.detach()]
    assert gpu.allocated == torch.cuda.memory_allocated() == MIB
    other = kept + 1
    del other
    assert (gpu.allocated, gpu.peak, torch.cuda.max_memory_allocated()) == (MIB, 2 * MIB, 2 * MIB)
    torch.cuda.reset_peak_memory_stats()
    assert gpu.peak == MIB and torch.cuda.mem_get_info() == ((16 << 30) - MIB, 16 << 30)
    del kept
    assert gpu.allocated == MIB and len(views) == 3
    views.clear()
    assert gpu.allocated == 0


def test_past_the_limit_is_out_of_memory(gpu: FakeGpu) -> None:
    gpu.limit = 30 * MIB
    kept = torch.zeros(20 * MIB, dtype=torch.uint8, device="cuda")
    beginning = (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 16.00 GiB "
        "of which 10.00 MiB is free. "
    )
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        kept.clone()
    assert str(caught.value).startswith(beginning) and gpu.allocated == gpu.peak == 20 * MIB
    del kept, caught
    torch.zeros(30 * MIB, dtype=torch.uint8, device="cuda")


@needs_guard
def test_training_equals_the_cpus(gpu: FakeGpu) -> None:
    model = network("cuda").to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    found, expected = train_step(model, "cuda"), train_step(network("cpu"), "cpu")
    torch.testing.assert_close(found, expected)
    assert not torch.equal(to_cpu(next(twin.parameters()).detach()), found[1])
    del model, twin
    assert gpu.allocated == 0


@needs_guard
def test_a_scaled_step_in_half_precision(gpu: FakeGpu) -> None:
    weight = torch.ones(1, 2, device="cuda", requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=0.5), torch.amp.GradScaler("cuda", init_scale=8.0)
    with torch.autocast("cuda", torch.float16):
        loss = F.linear(torch.ones(1, 2, device="cuda"), weight).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert weight.tolist() == [[0.5, 0.5]] and weight.grad.dtype == torch.float32


def test_a_saved_state_is_plain(gpu: FakeGpu, tmp_path: Path) -> None:
    torch.save({"weight": numbers(1, 2)}, tmp_path / "state")
    loaded = torch.load(tmp_path / "state", weights_only=True)["weight"]
    assert type(loaded) is Tensor and loaded.tolist() == [1, 2]


def test_a_loader_pins_its_batches(gpu: FakeGpu) -> None:
    [batch] = torch.utils.data.DataLoader(torch.arange(4), batch_size=4, pin_memory=True)
    assert batch.is_pinned() and batch.tolist() == [0, 1, 2, 3]


def test_nothing_stays_patched() -> None:
    use_of_cuda = (lambda: torch.zeros(1, device="cuda")) if not torch.cuda.is_available() else None
    before = state_of_torch(), use_of_cuda and error_of(use_of_cuda)
    with pytest.raises(ZeroDivisionError), fake_cuda():
        network("cuda")(torch.zeros(2, 3, 8, 8, device="cuda"))
        raise ZeroDivisionError
    assert state_of_torch() == before[0]
    if use_of_cuda and can_backward():
        assert error_of(use_of_cuda) == before[1]
    assert all(value.isfinite().all() for value in train_step(network("cpu"), "cpu"))


WITHOUT_COMPILER = """
import shutil, torch
shutil.which = lambda name: None
from tests.test_fake_cuda import *
before, expected = state_of_torch(), train_step(network("cpu"), "cpu")
with fake_cuda() as gpu:
    assert not can_backward() and network("cuda").eval()(torch.zeros(2, 3, 8, 8, device="cuda")).is_cuda
assert state_of_torch() == before
torch.testing.assert_close(train_step(network("cpu"), "cpu"), expected)
"""


def test_forward_needs_no_compiler_and_leaves_the_cpu_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_ci_insists_on_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    assert guard.may_skip()
    monkeypatch.setenv("CI", "true")
    assert not guard.may_skip()


def test_ci_has_a_compiler() -> None:
    assert can_backward() or not os.environ.get("CI"), "g++ is missing: the tests of backward passes need it"


SCRIPT = """
import sys, torch
assert __name__ == "__main__" and sys.argv[1:] == ["--amp", "fp16"]
print(torch.cuda.get_device_capability(), torch.zeros(8, device="cuda").sum().item())
torch.zeros(1024, device="cuda")
"""


def test_a_script_runs_on_it(tmp_path: Path) -> None:
    script, waits = tmp_path / "script.py", tmp_path / "waits.json"
    script.write_text(SCRIPT)
    settings = {"FAKE_CUDA_CAPABILITY": "7.5", "FAKE_CUDA_LIMIT": "4095", "FAKE_CUDA_WAITS": str(waits)}
    command = [sys.executable, "-m", "tests.fake_cuda", str(script), "--amp", "fp16"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    assert done.stdout == "(7, 5) 0.0\n" and "Tried to allocate 4.00 KiB. GPU 0" in done.stderr
    [wait] = json.loads(waits.read_text())
    assert wait["operation"] == "aten::_local_scalar_dense" and wait["place"] == "script.py:4 <module>"
