"""Which device each process gets, and what is refused before processes join."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from src.common.errors import InputError
from src.config.settings import InferenceConfig, MachineSettings, TrainConfig
from src.engine import distributed

pytestmark = pytest.mark.torch


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with two GPUs, and what processes are told when they join."""
    calls = SimpleNamespace(groups=[], device=None)
    for name, answer in (("is_available", True), ("device_count", 2)):
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(calls, "device", device))
    store = SimpleNamespace(set_timeout=lambda timeout: setattr(calls, "store_timeout", timeout))
    monkeypatch.setattr(distributed, "_store_of_this_attempt", lambda: store)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **given: calls.groups.append((name, given["timeout"])))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: calls.groups.append((backend, timeout)))
    return calls


def under_torchrun(monkeypatch: pytest.MonkeyPatch, processes: int, rank: int = 1) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_alone_nobody_joins(joined: SimpleNamespace) -> None:
    for name, device in (("auto", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        world, chosen = distributed.start(MachineSettings(name))
        assert world == distributed.World() and chosen == torch.device(device)
    assert joined.groups == [] and joined.device == torch.device("cuda:1")


def test_each_process_has_its_gpu_and_waits_for_two_hours(
    joined: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_torchrun(monkeypatch, 2)
    world, device = distributed.start(TrainConfig().machine)
    assert device == joined.device == torch.device("cuda:1") and (world.rank, world.size) == (1, 2)
    assert joined.groups == [("nccl", timedelta(hours=2)), ("gloo", timedelta(hours=2))]
    assert joined.store_timeout == timedelta(hours=2) and InferenceConfig().machine.timeout_minutes == 120


def test_on_a_cpu_processes_join_through_gloo_beside_gpus_too(
    joined: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_torchrun(monkeypatch, 4)
    _, device = distributed.start(MachineSettings("cpu", timeout_minutes=3))
    assert device == torch.device("cpu") and joined.device is None and joined.groups == [("gloo", timedelta(minutes=3))]


@pytest.mark.parametrize(("device", "processes"), [("cuda", 3), ("auto", 4), ("cuda:1", 2)])
def test_processes_that_would_share_a_gpu_are_refused(
    joined: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, device: str, processes: int
) -> None:
    under_torchrun(monkeypatch, processes)
    with pytest.raises(InputError, match=rf"--device {device}: torchrun started {processes} processes .* 2 GPUs"):
        distributed.start(MachineSettings(device))
    assert joined.groups == []


def test_a_gpu_that_is_not_there(joined: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="--device cuda:2: torch sees 2 GPUs"):
        distributed.start(MachineSettings("cuda:2"))
