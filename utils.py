"""Seeds, threads and memory of a process, and moving a network to its device."""

import os
import random
import sys
from typing import TypeVar

import numpy as np
import torch

Module = TypeVar("Module", bound=torch.nn.Module)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. The data has seeds of its own (see ``dataset.py``)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, rank: int, epoch: int, batch: int) -> None:
    """Seed torch from (seed, rank, epoch, batch), so that a resumed run draws the same numbers."""
    torch.manual_seed(int(np.random.SeedSequence((seed, rank, epoch, batch)).generate_state(1, np.uint64)[0] >> 1))


def available_cores() -> int:
    """The number of cores that this process may use, possibly fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_device(model: Module, device: torch.device) -> Module:
    """Move a network to its device; on a GPU in the formats that its tensor cores are fast with."""
    if device.type != "cuda":
        return model.to(device)
    torch.set_float32_matmul_precision("high")  # TF32, where a step is not in bf16 or fp16 anyway
    return model.to(device).to(memory_format=torch.channels_last)


def share_cores(device: torch.device, world_size: int) -> None:
    """Keep several processes on one machine from fighting for the same cores."""
    if world_size > 1 and device.type == "cpu":
        torch.set_num_threads(max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", world_size))))


def peak_memory(device: torch.device) -> int:
    """The peak memory in bytes: torch's on a GPU, else this process's; 0 on Windows, which does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
