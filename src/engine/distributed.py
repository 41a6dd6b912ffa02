"""One process, or several under torchrun."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from src.common.errors import InputError
from src.config.settings import MachineSettings
from src.engine.devices import choose_device


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` in 0..size-1, ``local_rank`` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1  # processes on this machine
    host_group: Any = None  # a gloo group for values on the CPU, where the main group is NCCL's

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier(group=self.host_group)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks (collective call)."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.host_group)
        return values

    def any(self, flag: bool) -> bool:
        """Logical OR over all processes (collective call)."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.host_group)
        return bool(said)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's tensors to every process, in place (collective call)."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def from_main(self, value: float) -> float:
        """The main process's number, on all processes (collective call)."""
        return float(self.gather(value)[0]) if self.size > 1 else value


def start(machine: MachineSettings) -> tuple[World, torch.device]:
    """Join the processes that torchrun started, or stay alone without it, and choose this process's device.

    The processes wait for one another as long as ``machine`` says: NCCL's own ten minutes are too short where one of
    them decodes or predicts a large image.

    Raises:
        InputError: there is no such device, or processes would share a GPU, which NCCL refuses.
    """
    world = _this_process()
    device = choose_device(machine.device, world.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world.size == 1:
        return world, device
    backend = machine.backend if machine.backend != "auto" else "nccl" if device.type == "cuda" else "gloo"
    if backend == "nccl":
        _refuse_shared_gpus(machine.device, world.local_size)
    timeout = timedelta(minutes=machine.timeout_minutes)
    store = _store_of_this_attempt()
    store.set_timeout(timeout)  # processes meet through it, perhaps while one of them still decodes images
    dist.init_process_group(backend, timeout=timeout, store=store, rank=world.rank, world_size=world.size)
    if backend != "gloo":
        world = replace(world, host_group=dist.new_group(backend="gloo", timeout=timeout))
    return world, device


def _this_process() -> World:
    if "RANK" not in os.environ:
        return World()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return World(rank, size, int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", size)))


def _refuse_shared_gpus(device_name: str, processes: int) -> None:
    gpus = torch.cuda.device_count()
    if processes > (1 if ":" in device_name else gpus):
        raise InputError(
            f"--device {device_name}: torchrun started {processes} processes on this machine, where torch sees "
            f"{gpus} GPU{'s' if gpus != 1 else ''}; each process needs a GPU of its own"
        )


def _store_of_this_attempt() -> Any:
    """The store through which processes find each other, with a prefix per attempt: torch keeps one store over all
    restarts, in which restarted processes would find the addresses of those that died."""
    store, _, _ = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def stop(world: World) -> None:
    """Leave the process group."""
    if world.size > 1:
        dist.destroy_process_group()
