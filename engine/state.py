"""What a training run carries from step to step, and its way into a checkpoint and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from engine.optimization import AveragedWeights


@dataclass
class Progress:
    """Where a run stands: ``batch`` batches of ``epoch`` are done; ``seconds`` were spent training, not validating."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_ap50: float = -1.0
    validations_without_gain: int = 0
    finished: bool = False


@dataclass
class TrainingState:
    """Model, optimizer, fp16 scaler and averaged weights (``None`` without) of a run, and where it stands."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedWeights | None
    progress: Progress = field(default_factory=Progress)

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
            "rng": rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """The inverse of :meth:`content`."""
        self.model.load_state_dict(content["model"])
        if self.averaged:
            self.averaged.model.load_state_dict(content["ema"] or content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        restore_rng(content["rng"])


def rng_state() -> dict[str, Any]:
    """The state of torch's generators, as tensors."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_rng(state: Mapping[str, Any]) -> None:
    """The inverse of :func:`rng_state`; another number of GPUs keeps its own state."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
