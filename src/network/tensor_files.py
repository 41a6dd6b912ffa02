"""Files of tensors, read without running code from them: torch's zip files with a digest, and safetensors."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.common.errors import InputError
from src.common.files import replacing

EXPORTED = {"settings", "classes", "digest"}  # the metadata of an exported checkpoint
DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256
_CHUNK = 1 << 20


def check_weights(state: Any, source: str | Path) -> None:
    """Refuse what is no state dict of finite, dense tensors.

    Raises:
        InputError: naming ``source`` and the tensor.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{source}: its weights are not a dict of tensors")
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{source}: {name} is not a dense tensor")
        if tensor.is_complex() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{source}: {name} is complex, or larger than what is stored of it")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{source}: {name} holds NaN or infinite values")


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a whole state dict into a model.

    Raises:
        InputError: naming ``source`` and the first tensor that does not fit.
    """
    check_fits(model, state, source)
    model.load_state_dict(dict(state))


def check_fits(model: torch.nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse a state dict whose names, shapes or types are not the model's, which may be on the ``meta`` device.

    Raises:
        InputError: naming ``source`` and the first tensor that does not fit.
    """
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and the metadata of an exported checkpoint as a safetensors file, with a digest of both."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # save_file would give the file to its owner alone.
        temporary.write_bytes(save(contiguous, {**metadata, "digest": _digest(contiguous, metadata)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file.

    Raises:
        InputError: it is none, or one of :func:`write_tensors` that is not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is not a safetensors file ({str(error).splitlines()[0]})") from error
    described = {name: text for name, text in metadata.items() if name != "digest"}
    if metadata.keys() >= EXPORTED and metadata["digest"] != _digest(tensors, described):
        raise InputError(f"{path}: is damaged (its digest does not fit)")
    return tensors, metadata


def _digest(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def seal(path: Path) -> None:
    """Add the digest to a zip file that has no comment yet."""
    with path.open("rb+") as file:
        file.seek(-2, os.SEEK_END)  # a zip file ends with the length of its comment
        if file.read() != b"\0\0":
            raise ValueError(f"{path} is not a zip file, or has a comment already")
        file.seek(-2, os.SEEK_END)
        file.write(DIGEST_LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def is_intact(path: Path) -> bool:
    """Whether a file carries a digest and every byte is as it was when the digest was added."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGEST_LENGTH
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.hexdigest().encode()
