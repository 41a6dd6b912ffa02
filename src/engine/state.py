"""What a training run carries from step to step, and its way into a checkpoint and back."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from src.common.errors import InputError
from src.engine.checkpoint import load_state
from src.engine.optimization import AveragedWeights, restore_optimizer


@dataclass
class Progress:
    """Where a run stands: ``batch`` batches of ``epoch`` are done; ``seconds`` were spent training, not validating.

    ``validating``: the training up to here is done, its validation is not.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_ap50: float = -1.0
    validations_without_gain: int = 0
    validating: bool = False
    finished: bool = False


def read_progress(values: dict[str, Any]) -> Progress:
    """Where a checkpoint says that its run stands; a ``TypeError`` or ``ValueError`` where it cannot be so."""
    progress = Progress(**values)
    for name, value in asdict(Progress()).items():
        if type(getattr(progress, name)) is not type(value):
            raise TypeError(f"progress: {name} is {getattr(progress, name)!r}")
    if not min(progress.epoch, progress.batch, progress.step) >= 0 or not 0 <= progress.seconds < math.inf:
        raise ValueError("progress: a count is no number of at least 0")
    return progress


@dataclass
class TrainingState:
    """Model, optimizer, fp16 scaler and averaged weights (``None`` without) of a run, and where it stands."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedWeights | None
    progress: Progress = field(default_factory=Progress)

    def buffers(self) -> Iterator[torch.Tensor]:
        """What no gradient changes, such as the statistics of batch norm: each process has its own."""
        yield from self.model.buffers()
        if self.averaged:
            yield from self.averaged.model.buffers()

    @property
    def predicting_model(self) -> nn.Module:
        """The network that predicts: the averaged one where there is one."""
        return self.averaged.model if self.averaged else self.model

    def content(self) -> dict[str, Any]:
        """All of it as numbers and tensors."""
        return {
            "model": self.model.state_dict(),
            "ema": self.averaged.model.state_dict() if self.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """The inverse of :meth:`content`; an :class:`InputError` where a checkpoint holds no such state."""
        source = content["source"]
        load_state(self.model, content["model"], source)
        if self.averaged:
            load_state(self.averaged.model, content["ema"] or content["model"], source)
        try:
            restore_optimizer(self.optimizer, content["optimizer"])
            if content["scaler"]:
                self.scaler.load_state_dict(content["scaler"])
            self.progress = read_progress(content["progress"])
            for state in self.optimizer.state.values():
                if not all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor)):
                    raise ValueError("the optimizer's state holds NaN or infinite values")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{source}: training cannot go on from it ({error})") from error
