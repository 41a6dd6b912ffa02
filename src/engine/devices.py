"""The device of a process, and the precision that it computes in."""

from collections.abc import Mapping
from typing import Any

import torch

from src.common.errors import InputError

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


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
    """Half precisions that are faster than float32 on a device, the preferred one first."""
    if device.type == "cuda":
        return ("bf16", "fp16") if torch.cuda.get_device_capability(device)[0] >= 8 else ("fp16",)
    return ("bf16",) if device.type == "cpu" and cpu_has_bf16() else ()


def resolve_amp(name: str, device: torch.device) -> str:
    """What ``--amp`` means on a device: ``bf16``, ``fp16`` or ``off``, a key of :data:`AMP_TYPES`.

    Raises:
        InputError: the device does not have it.
    """
    if name == "auto":
        return next(iter(native_precisions(device)), "off")
    if name == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16 needs an NVIDIA GPU; on a CPU only bf16 and off are available")
    if name != "off" and device.type == "mps":
        raise InputError(f"--amp {name}: on {device} torchvision has no half precision; only off is available")
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
