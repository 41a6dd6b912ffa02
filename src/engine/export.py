"""A checkpoint's weights as a safetensors file, which holds nothing that could be run and is safe to share."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from src.common.errors import InputError
from src.common.files import replacing

_PARTS = ("settings", "classes")
_KEYS = (*_PARTS, "digest")


def write_export(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write the weights that predict (the averaged ones where there are any), with the settings and the classes."""
    weights = {name: tensor.contiguous() for name, tensor in (checkpoint["ema"] or checkpoint["model"]).items()}
    metadata = {part: json.dumps(checkpoint[part]) for part in _PARTS}
    with replacing(path) as temporary:
        save_file(weights, temporary, {**metadata, "digest": _digest(weights, metadata)})


def read_export(path: Path) -> dict[str, Any]:
    """The content of a checkpoint from an exported file.

    Raises:
        InputError: a damaged file, or one that :func:`write_export` did not write.
    """
    try:
        weights, metadata = read_tensors(path)
        settings, classes, _ = (metadata[key] for key in _KEYS)
        content = {"settings": json.loads(settings), "classes": json.loads(classes)}
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not what --export writes: it lacks settings or classes") from error
    return {**content, "split": {}, "checksums": {}, "model": weights, "ema": None}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file.

    Raises:
        InputError: it is none, or one that :func:`write_export` wrote and that is not as it was then.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is no safetensors file ({str(error).splitlines()[0]})") from error
    is_ours = metadata.keys() >= set(_KEYS)
    if is_ours and metadata["digest"] != _digest(tensors, {part: metadata[part] for part in _PARTS}):
        raise InputError(f"{path}: is damaged (its digest does not fit)")
    return tensors, metadata


def _digest(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
