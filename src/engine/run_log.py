"""The log of a run."""

import csv
import io
import json
import math
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.common.errors import InputError
from src.common.files import read_lines, write_text, writing

CSV_COLUMNS = (
    "event", "step", "epoch", "time_s", "lr", "loss", "classifier", "box", "mask", "objectness", "rpn_box",
    "grad_norm", "skipped", "images_per_s", "AP50", "AP", "AP50_at_100",
)  # fmt: skip  # fmt: skip


class RunLog:
    """``log.jsonl`` (one event a line), the same as ``log.csv``, and TensorBoard's files where that is installed."""

    def __init__(self, folder: Path, keep_steps: int = 0) -> None:
        """Open a run's log; of an earlier one the events up to step ``keep_steps`` stay."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        kept = [event for event in read_lines(self.path) if event["step"] <= keep_steps] if keep_steps else []
        write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        rows = io.StringIO(newline="")
        table = csv.DictWriter(rows, CSV_COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows(kept)
        write_text(folder / "log.csv", rows.getvalue())
        with writing(self.path):
            self._file = self.path.open("a", encoding="utf-8")
            self._csv_file = (folder / "log.csv").open("a", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._csv_file, CSV_COLUMNS, extrasaction="ignore")
        self._board = _tensorboard(folder)

    def write(self, event: str, step: int, epoch: int, time_s: float, **values: Any) -> None:
        """Add an event. ``time_s`` is training time, validation not counted."""
        row = {"event": event, "step": step, "epoch": epoch, "time_s": round(time_s, 3), **values}
        with writing(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            self._csv.writerow(row)
            self._csv_file.flush()
            if self._board is not None:
                for name, value in _numbers(event, values):
                    self._board.add_scalar(name, value, step)

    def start(self, progress: Any) -> None:
        """Add what runs: the command, and the versions that a result may depend on."""
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        versions |= {name: version(name) for name in ("torchvision", "numpy", "opencv-python-headless")}
        self.write("start", progress.step, progress.epoch, progress.seconds, command=command(), versions=versions)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 image in TensorBoard, where that is installed."""
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files. Every event was written out at once: what a full disk did not take is not tried again."""
        for file in filter(None, (self._file, self._csv_file, self._board)):
            with suppress(OSError):
                file.close()


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in nested values, each by its path, as ``val/scores/uncapped/per_class/1/AP50``."""
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
