"""Checkpoints: one function writes them, one reads them. They hold plain numbers, strings and tensors alone."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from src.common.errors import InputError, nearest_path
from src.common.files import replacing
from src.config.checks import EXPORT_SUFFIX
from src.config.flags import build
from src.config.settings import TrainConfig

FORMAT = 2
# What prediction reads; to go on training takes more.
KINDS: dict[str, Any] = {
    "settings": dict, "classes": list, "split": dict, "checksums": dict, "model": dict, "ema": (dict, type(None)),
}  # fmt: skip


def save_checkpoint(path: Path, content: dict[str, Any], previous: Path | None = None) -> None:
    """Write a sealed checkpoint atomically; the file that it replaces is kept as ``previous`` where that is given.

    Raises:
        InputError: it cannot be written (no room, no right); what was there before still is.
    """
    try:
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **content}, temporary)
            seal(temporary)
            if previous is not None and path.exists():
                path.replace(previous)
    except RuntimeError as error:  # what torch's own writer says where the disk is full
        raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or an exported one, onto the CPU without running any code in it.

    Raises:
        InputError: naming the file and the reason, where it is missing, not as it was written, no checkpoint of this
            program, or holds weights that no training leaves.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint{nearest_path(path)}")
    content = read_export(path) if path.suffix == EXPORT_SUFFIX else _read(path)
    for part in ("model", "ema"):
        check_weights(content[part] or {}, path)
    return {**content, "source": str(path)}


def _read(path: Path) -> dict[str, Any]:
    try:
        intact = is_intact(path)
        content = torch.load(path, map_location="cpu", weights_only=True) if intact else None
    except Exception as error:  # torch.load has no error of its own: a bad file shows as nearly anything
        raise InputError(f"{path}: is no checkpoint ({(str(error) or repr(error)).splitlines()[0]})") from error
    if not intact:
        raise InputError(f"{path}: is damaged, or no checkpoint of this program (its digest does not fit)")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not _has_parts(content):
        raise InputError(f"{path}: is no checkpoint of this program")
    return content


def _has_parts(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(content.get(key), kind) for key, kind in KINDS.items())


def settings_of(checkpoint: Mapping[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was trained with."""
    try:
        config = build(TrainConfig, checkpoint["settings"])
    except (InputError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint['source']}: its settings are not this program's: {error}") from error
    for name in ("norm", "head_norm", "anchors"):
        if getattr(config.model, name) == "auto":
            raise InputError(f"{checkpoint['source']}: its settings are not those of a run: {name} is auto")
    return config


def check_weights(state: Any, source: str | Path) -> None:
    """Refuse what is no state dict of finite, dense tensors, naming ``source`` and the tensor."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{source}: its weights are no dict of tensors")
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{source}: {name} is no dense tensor")
        if tensor.is_complex() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{source}: {name} is complex, or larger than what is stored of it")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{source}: {name} holds NaN or infinite values")


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a whole state dict; an :class:`InputError` names the first tensor that does not fit."""
    check_fits(model, state, source)
    model.load_state_dict(dict(state))


def check_fits(model: torch.nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse a state dict whose names, shapes and types are not the model's; one on the ``meta`` device will do."""
    for reason in _misfits(model.state_dict(), state):
        raise InputError(f"{source}: does not fit the network that its own settings describe: {reason}")


def _misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    for name in own.keys() ^ given.keys():
        yield f"{name} is {'missing' if name in own else 'unknown'}"
    for name in own:
        if own[name].shape != given[name].shape:
            yield f"{name} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        if own[name].is_floating_point() != given[name].is_floating_point():
            yield f"{name} is of type {given[name].dtype}, not {own[name].dtype}"


def checkpoint_to_resume(resume: str | None, folder: Path) -> dict[str, Any] | None:
    """What ``--resume`` names; ``auto`` is the run folder's last good checkpoint. ``None`` in a new run."""
    if resume is None:
        return None
    if resume != "auto":
        return load_checkpoint(Path(resume))
    reasons = []
    for path in (folder / "last.pt", folder / "previous.pt"):
        if path.exists():
            try:
                return load_checkpoint(path)
            except InputError as error:
                reasons.append(str(error))
                print(f"not resumed: {error}", flush=True)
    if reasons:  # a new run would write over what may still be saved by hand
        raise InputError(f"--resume auto: no checkpoint can be used; without --resume a new run begins: {reasons[0]}")
    return None


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


DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256
_CHUNK = 1 << 20


def seal(path: Path) -> None:
    """Add the digest to a zip file that has no comment yet."""
    with path.open("rb+") as file:
        file.seek(-2, os.SEEK_END)  # a zip file ends with the length of its comment
        if file.read() != b"\0\0":
            raise ValueError(f"{path} is no zip file without a comment")
        file.seek(-2, os.SEEK_END)
        file.write(DIGEST_LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def is_intact(path: Path) -> bool:
    """Whether a file is sealed and every byte of it is as it was then."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGEST_LENGTH
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.hexdigest().encode()
