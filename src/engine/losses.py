"""The losses of a step, read without making the GPU wait."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from src.common.errors import InputError


class StepLosses:
    """Losses on their way from the device. Reading them waits for their step alone, not for what was queued later."""

    def __init__(self, values: Mapping[str, Tensor], step: int, tiles: list[str]) -> None:
        """Start to copy 0-d tensors; ``step`` and ``tiles`` are named where one of them is not finite."""
        self.names, self.step, self.tiles = list(values), step, tiles
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._values = stacked.to("cpu", non_blocking=stacked.is_cuda)
        self._copied = torch.cuda.Event() if stacked.is_cuda else None
        if self._copied:
            self._copied.record()

    def read(self) -> dict[str, float]:
        """The numbers, rounded for the log.

        Raises:
            InputError: where ``loss`` is not finite.
        """
        if self._copied:
            self._copied.synchronize()
        numbers = dict(zip(self.names, self._values.tolist(), strict=True))
        if not math.isfinite(numbers["loss"]):
            parts = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            tiles = "; ".join(self.tiles)
            raise InputError(f"step {self.step}: the loss is not finite ({parts}); tiles: {tiles}; try a lower --lr")
        return {name: round(value, 5) if math.isfinite(value) else -1.0 for name, value in numbers.items()}
