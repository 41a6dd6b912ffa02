"""The state of a training, and how it is restored from a checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from src.common.errors import InputError
from src.engine.checkpoint import Checkpoint, Progress, Weights
from src.engine.optimization import AveragedWeights, restore_optimizer
from src.network.tensor_files import load_state


@dataclass
class TrainingState:
    """Model, optimizer, fp16 scaler and averaged weights (``None`` without) of a training, and how far it has come."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedWeights | None
    progress: Progress = field(default_factory=Progress)

    def buffers(self) -> Iterator[torch.Tensor]:
        """Tensors that no gradient changes, such as batch norm's statistics; each process has its own."""
        yield from self.model.buffers()
        if self.averaged:
            yield from self.averaged.model.buffers()

    @property
    def predicting_model(self) -> nn.Module:
        """The network that predicts: the averaged one where there is one."""
        return self.averaged.model if self.averaged else self.model

    def weights(self) -> Weights:
        """The state dict of the network that predicts."""
        return self.predicting_model.state_dict()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint's snapshot.

        Raises:
            InputError: the checkpoint holds no state of this model and optimizer.
        """
        snapshot, source = checkpoint.snapshot, checkpoint.source
        if snapshot is None:
            raise InputError(f"{source}: holds no state of a training")
        load_state(self.model, snapshot.model, source)
        if self.averaged:
            load_state(self.averaged.model, checkpoint.weights, source)
        try:
            restore_optimizer(self.optimizer, snapshot.optimizer)
            if snapshot.scaler:
                self.scaler.load_state_dict(snapshot.scaler)
            for state in self.optimizer.state.values():
                if not all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor)):
                    raise ValueError("the optimizer's state holds NaN or infinite values")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{source}: training cannot be resumed from it ({error})") from error
        self.progress = replace(snapshot.progress)
