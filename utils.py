"""Run plumbing: seeds, devices, threads, and the log of a run."""

import csv
import io
import json
import os
import platform
import random
import resource
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from src.errors import InputError
from src.files import read_lines, write_text, writing

Module = TypeVar("Module", bound=torch.nn.Module)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
CSV_COLUMNS = (
    "event", "step", "epoch", "time_s", "lr", "loss", "classifier", "box", "mask", "objectness", "rpn_box",
    "grad_norm", "skipped", "images_per_s", "AP50", "AP", "AP50_at_100",
)  # fmt: skip


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. The data has seeds of its own (see ``dataset.py``)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, rank: int, epoch: int, batch: int) -> None:
    """Seed what a step draws from all that it is, so that a run goes on as it would have, wherever it stopped."""
    torch.manual_seed(int(np.random.SeedSequence((seed, rank, epoch, batch)).generate_state(1, np.uint64)[0] >> 1))


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``--device`` names; of several GPUs each process of a machine gets its own.

    Args:
        name: ``auto`` (CUDA, then Apple's MPS, then the CPU), ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        local_rank: number of this process among those on this machine.

    Raises:
        InputError: there is no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in available.items() if is_there)
    kind, _, index = name.partition(":")
    if not available[kind]:
        raise InputError(f"--device {name}: there is none on this machine")
    if kind != "cuda":
        return torch.device(kind)
    count = torch.cuda.device_count()
    if index and int(index) >= count:
        raise InputError(f"--device {name}: torch sees {count} GPU{'s' if count > 1 else ''}, numbered from 0")
    return torch.device("cuda", int(index) if index else local_rank % count)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices itself (AVX512-BF16 or AMX); elsewhere bf16 is slower than float32."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def native_precisions(device: torch.device) -> tuple[str, ...]:
    """Half precisions that are faster than float32 on a device, the one to prefer first."""
    if device.type == "cuda":
        return ("bf16", "fp16") if torch.cuda.get_device_capability(device)[0] >= 8 else ("fp16",)
    return ("bf16",) if device.type == "cpu" and cpu_has_bf16() else ()


def resolve_amp(name: str, device: torch.device) -> str:
    """What ``--amp`` means on a device: ``bf16``, ``fp16`` or ``off``, a key of :data:`AMP_TYPES`.

    Raises:
        InputError: fp16 without a GPU.
    """
    if name == "auto":
        return next(iter(native_precisions(device)), "off")
    if name == "fp16" and device.type != "cuda":
        raise InputError(f"--amp fp16 needs an NVIDIA GPU; on {device} there are bf16 and off")
    return name


def prediction_amp(asked: str | None, trained: str, device: torch.device) -> str:
    """The precision of a prediction: what the flag asks for, else that of the training where it is native here.

    Args:
        asked: ``--amp``, or ``None``.
        trained: the checkpoint's. Old checkpoints hold ``auto``, which meant float32 on a CPU.
    """
    if asked is None and trained == "auto" and device.type == "cuda":
        asked = "auto"
    if asked is not None:
        return resolve_amp(asked, device)
    return trained if trained in native_precisions(device) else "off"


def available_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(model: Module, device: torch.device) -> Module:
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
    """The most bytes held so far: torch's on a GPU, else this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
