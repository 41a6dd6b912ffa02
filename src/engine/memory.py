"""GPU memory: the batch size that fits (``--batch-size auto``), and the error where memory runs out."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy

import torch
from torch import nn

from src.common.errors import InputError
from src.engine.loading import Item, collate

DEFAULT = 4  # tiles per step where memory does not limit it
SHARE = 0.85  # of the memory that is free; the rest is for fragments and for tiles that need more than the one tried
COPIES = 3  # of the trained weights that a run keeps beside their gradients: two moments of AdamW, and the average
STEPS_PER_EPOCH = 8  # at least; with fewer a run on little data would hardly learn
_CUDA = re.compile(r"\b(?:cuda|cublas|cudnn)", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|_ALLOC_FAILED", re.IGNORECASE)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Report in one line that memory ran out, on the GPU or on the CPU, with what was free and ``advice``.

    Raises:
        InputError: in place of torch's errors, of which there are several.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        on_gpu = isinstance(error, torch.OutOfMemoryError) or _CUDA.search(str(error))
        place, free = ("of the GPU", _free()) if on_gpu else ("of the computer", "")
        raise InputError(f"out of memory {place}{_needed(str(error))}{free}; {advice}") from error


def _needed(message: str) -> str:
    found = re.search(r"(?:tried|unable) to allocate ([\d.]+ \w+)", message, re.IGNORECASE)
    return f": {found[1]} more were needed" if found else ""


def _free() -> str:
    """The free memory of the current GPU as text; empty without a GPU that still responds."""
    with suppress(RuntimeError, AssertionError):
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            others = max(total - free - torch.cuda.memory_reserved(), 0)
            numbers = [f"{value / 2**30:.2f}" for value in (free, total, others)]
            return ", {} of {} GiB of GPU memory are free and {} are held by others and by CUDA".format(*numbers)
    return ""


def auto_batch_size(fitting: int, tiles: int, accumulate: int) -> int:
    """``--batch-size auto``: as many tiles as fit and leave :data:`STEPS_PER_EPOCH` steps per epoch.

    Args:
        fitting: tiles that memory has room for.
        tiles: of one process in an epoch.
        accumulate: batches per step.
    """
    return max(1, min(fitting, tiles // (STEPS_PER_EPOCH * accumulate)))


def largest_batch(peak_of: Callable[[int], int], capacity: int) -> int:
    """The largest number of tiles whose step fits, from the line through the peaks of one tile and of two.

    Args:
        peak_of: bytes that a step on so many tiles needs.
        capacity: bytes that there are.
    """
    one, two = peak_of(1), peak_of(2)
    return max(1, 1 + (capacity - one) // max(two - one, 1))


def largest_fitting_batch(model: nn.Module, tile: Item, amp: torch.dtype | None, device: torch.device) -> int:
    """Tiles like ``tile`` per step that ``device`` has memory for, at least one.

    They are tried on a copy of the model, so that its statistics, and the seeds, stay as they are.
    """
    if device.type != "cuda":
        return DEFAULT
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    capacity = int(SHARE * torch.cuda.mem_get_info(device)[0]) - COPIES * trained
    trial = deepcopy(model).train()

    def peak_of(count: int) -> int:
        try:
            return step_memory(trial, tile, count, amp, device)
        except torch.cuda.OutOfMemoryError:
            if count == 1:
                raise
            return sys.maxsize

    with torch.random.fork_rng([device]):
        peak_of(1)  # libraries take their workspaces in the first step
        count = largest_batch(peak_of, capacity)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return count


def step_memory(model: nn.Module, item: Item, count: int, amp: torch.dtype | None, device: torch.device) -> int:
    """Bytes of GPU memory that forward and backward on ``count`` copies of a tile need beyond what is allocated."""
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    batch = collate([item] * count).to(device)
    with torch.autocast(device.type, amp, enabled=amp is not None):
        losses = model(batch.tiles, batch.targets())
    torch.stack(list(losses.values())).sum().backward()
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated(device) - held
