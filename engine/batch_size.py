"""How many tiles a GPU holds at once, for ``--batch-size auto``."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from engine.loading import Item, collate

DEFAULT = 4  # where memory is not what limits a step
SHARE = 0.85  # of the memory that is free; the rest is for fragments and for tiles that need more than the one tried


def largest_batch(peak_of: Callable[[int], int], capacity: int) -> int:
    """The largest number of tiles whose step fits, from the line through the peaks of one tile and of two.

    Args:
        peak_of: bytes that a step on so many tiles needs.
        capacity: bytes that there are.
    """
    one, two = peak_of(1), peak_of(2)
    return max(1, 1 + (capacity - one) // max(two - one, 1))


def fitting_batch(model: nn.Module, tile: Item, amp: torch.dtype | None, device: torch.device) -> int:
    """Tiles a step like ``tile`` that ``device`` has memory for; tried on a copy of the model, whose statistics and
    seeds stay."""
    if device.type != "cuda":
        return DEFAULT
    optimizer_state = 2 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    capacity = int(SHARE * torch.cuda.mem_get_info(device)[0]) - optimizer_state
    trial = deepcopy(model).train()
    with torch.random.fork_rng([device]):
        step_memory(trial, tile, 1, amp, device)  # libraries take their workspaces in the first step
        count = largest_batch(lambda count: step_memory(trial, tile, count, amp, device), capacity)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return count


def step_memory(model: nn.Module, item: Item, count: int, amp: torch.dtype | None, device: torch.device) -> int:
    """Bytes of GPU memory that forward and backward on ``count`` times the same tile take on top of what is held."""
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    batch = collate([item] * count).to(device)
    with torch.autocast(device.type, amp, enabled=amp is not None):
        losses = model(batch.tiles, batch.targets())
    torch.stack(list(losses.values())).sum().backward()
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated(device) - held
