"""The log of a training run: what happened at which step."""

import csv
import io
import json
import math
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from src.common.errors import InputError
from src.common.files import read_lines, write_text, writing
from src.common.progress import ProgressBar, format_seconds
from src.engine.checkpoint import Progress

CSV_COLUMNS = (
    "event", "step", "epoch", "time_s", "lr", "loss", "classifier", "box", "mask", "objectness", "rpn_box",
    "grad_norm", "skipped", "images_per_s", "AP50", "AP", "AP50_at_100",
)  # fmt: skip
LOWEST_SCALE = 1e-3  # of fp16 losses; it begins at 65,536 and halves with each step whose gradients overflow


class RunLog:
    """``log.jsonl`` (one event per line), the same as ``log.csv``, and TensorBoard's files where that is installed.

    Without a folder, as in all processes but the first, it writes nothing.
    """

    def __init__(self, folder: Path | None, keep_steps: int = 0) -> None:
        """Open the log of a run folder; of an earlier one the events up to step ``keep_steps`` stay."""
        self._folder, self._files, self._board = folder, [], None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        events = read_lines(folder / "log.jsonl") if keep_steps else []
        kept = [event for event in events if event["step"] <= keep_steps]
        write_text(folder / "log.jsonl", "".join(json.dumps(event) + "\n" for event in kept))
        write_text(folder / "log.csv", _csv_lines(kept, header=True))
        with writing(folder / "log.jsonl"):
            self._files = [(folder / name).open("a", encoding="utf-8", newline="") for name in ("log.jsonl", "log.csv")]
        self._board = _tensorboard(folder)

    _files: list[TextIO]

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files. Every event was written out at once: what a full disk did not take is not tried again."""
        for file in filter(None, (*self._files, self._board)):
            with suppress(OSError):
                file.close()

    def write(self, event: str, progress: Progress, **values: Any) -> None:
        """Add an event; its time is training time, validation not counted."""
        if self._folder is None:
            return
        place = {"step": progress.step, "epoch": progress.epoch, "time_s": round(progress.seconds, 3)}
        row = {"event": event, **place, **values}
        with writing(self._folder / "log.jsonl"):
            for file, line in zip(self._files, (json.dumps(row) + "\n", _csv_lines([row])), strict=True):
                file.write(line)
                file.flush()
            if self._board is not None:
                for name, value in _numbers(event, values):
                    self._board.add_scalar(name, value, progress.step)

    def write_start(self, progress: Progress) -> None:
        """Add what runs: the command, and the versions that a result may depend on."""
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        versions |= {name: version(name) for name in ("torchvision", "numpy", "opencv-python-headless")}
        self.write("start", progress, command=command(), versions=versions)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 image in TensorBoard, where that is installed."""
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")


def _csv_lines(rows: list[dict[str, Any]], header: bool = False) -> str:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore")
    if header:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in nested values with their paths, such as ``val/scores/uncapped/per_class/1/AP50``."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(f"{name}/{key}", part)
    elif isinstance(value, int | float):
        yield name, value


def command() -> str:
    """How this program was called, to be pasted into a shell."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


class StepLosses:
    """Losses being copied from the device. Reading them waits for their own step, not for work queued later."""

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


@dataclass(frozen=True)
class Step:
    """A training step that has begun.

    ``progress`` is where the run stands after it and ``share_done`` how much of its budget is spent then, in [0, 1];
    ``updated`` tells whether the weights moved or gradients were only added up; ``peak_bytes`` is the most memory held.
    """

    progress: Progress
    losses: StepLosses
    rate: float
    images_per_s: float
    share_done: float
    updated: bool
    peak_bytes: int


class StepLog:
    """Logs and shows each step while the next one runs, so that a GPU never waits for its losses."""

    def __init__(self, log: RunLog, bar: ProgressBar[Any], scaler: torch.amp.GradScaler) -> None:
        self._log, self._bar, self._scaler = log, bar, scaler
        self._waiting: Step | None = None

    def add(self, step: Step) -> None:
        """Log the step before; this one follows with the next, or with :meth:`flush`."""
        self.flush()
        self._waiting = replace(step, progress=replace(step.progress))

    def flush(self) -> None:
        """Log the last step.

        Raises:
            InputError: its loss is not finite, or the gradients overflow in fp16 however far the scaler has lowered
                the losses.
        """
        if self._waiting:
            step, self._waiting = self._waiting, None
            self._write(step)

    def _write(self, step: Step) -> None:
        values = step.losses.read()
        skipped = bool(values.pop("skipped", 0.0))
        if skipped and self._scaler.get_scale() < LOWEST_SCALE:
            raise InputError(
                f"step {step.progress.step}: gradients overflow in fp16 in every step; use --amp bf16 or off"
            )
        self._bar.show(
            step=str(step.progress.step),
            loss=f"{values['loss']:.3f}",
            lr=f"{step.rate:.2g}",
            images_per_s=f"{step.images_per_s:.1f}",
            memory=f"{step.peak_bytes / 1e9:.1f}GB",
            done=f"{step.share_done:.0%}",
            left=format_seconds(step.progress.seconds * (1 / max(step.share_done, 1e-6) - 1)),
        )
        if step.updated:
            flags = {"skipped": True} if skipped else {}
            speed = round(step.images_per_s, 2)
            self._log.write("step", step.progress, lr=step.rate, images_per_s=speed, **values, **flags)
