"""One process, or several under torchrun."""

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` in 0..size-1, ``local_rank`` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    host_group: Any = None  # for numbers that are not on a GPU, where the main group is on GPUs alone

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, on all processes."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all must ask."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.host_group)
        return bool(said)

    def from_main(self, value: float) -> float:
        """The main process's number, on all processes."""
        return float(self.gather(value)[0]) if self.size > 1 else value


def start(backend: str) -> World:
    """Join the processes that torchrun started; alone without it. ``auto`` is nccl with CUDA, else gloo."""
    if "RANK" not in os.environ:
        return World()
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", 0)))
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    if world.size > 1:
        chosen = backend if backend != "auto" else "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(chosen, store=_store_of_this_attempt(), rank=world.rank, world_size=world.size)
        if chosen != "gloo":
            world = replace(world, host_group=dist.new_group(backend="gloo"))
    return world


def _store_of_this_attempt() -> Any:
    """Where the processes find each other. Torch keeps one store over all restarts, in which those that start again
    would find the addresses of the processes that died."""
    store, _, _ = next(dist.rendezvous("env://"))
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def stop(world: World) -> None:
    """Leave the process group."""
    if world.size > 1:
        dist.destroy_process_group()
