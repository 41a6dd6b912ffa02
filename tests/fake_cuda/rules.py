"""What CUDA refuses, and what makes the host wait."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# The host needs a value of these, or the size of their result.
WAITING = {
    "aten::_local_scalar_dense", "aten::_unique2", "aten::bincount", "aten::equal", "aten::masked_select",
    "aten::nonzero", "aten::unique_consecutive", "aten::unique_dim", "torchvision::nms",
}  # fmt: skip
COPYING = {"aten::_to_copy", "aten::copy_"}
INDEXING = {
    "aten::_index_put_impl_", "aten::_unsafe_index", "aten::_unsafe_index_put", "aten::index", "aten::index_put",
    "aten::index_put_",
}  # fmt: skip


def check_devices(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse to mix devices. From the host CUDA takes only 0-d tensors, and the indices of an indexing operation.

    Raises:
        RuntimeError: as from torch.
    """
    if name in COPYING or name == "aten::_has_compatible_shallow_copy_type":
        return
    if name in INDEXING and args[0].is_cuda:
        tensors = [args[0], *args[2:3]]
    devices = {str(tensor.device) for tensor in tensors if tensor.is_cuda or tensor.dim() > 0 or name == "aten::cat"}
    if len(devices) > 1:
        found = " and ".join(sorted(devices, reverse=True)[:2])
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {found}! (in {name})"
        )


def reason_to_wait(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """Why the host waits for an operation on the device; ``None`` where it does not."""
    if name in WAITING or (name == "aten::repeat_interleave" and kwargs.get("output_size") is None):
        return name
    if name in INDEXING:
        return _reason_in_indices(name, *args[:3])
    if name == "aten::_to_copy":
        target = kwargs.get("device") or args[0].device
        pinned = target.type != "cuda" or args[0].is_pinned()  # torch itself pins what it copies to the host
        return _reason_in_copy(args[0].device, target, kwargs.get("non_blocking", False), pinned)
    if name == "aten::copy_":
        host = args[1] if args[0].is_cuda else args[0]
        return _reason_in_copy(args[1].device, args[0].device, True in args[2:], host.is_pinned())
    return None


def _reason_in_copy(source: torch.device, target: torch.device, non_blocking: bool, pinned: bool) -> str | None:
    if source.type == target.type or (non_blocking and pinned):
        return None
    return f"copy from {source.type} to {target.type}" + (", not pinned" if non_blocking else "")


def _reason_in_indices(
    name: str, _: Tensor, optional: Sequence[Tensor | None], value: Tensor | None = None
) -> str | None:
    indices = [index for index in optional if index is not None]
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    if len(masks) == len(indices) == 1 and value is not None and value.numel() == 1 and not value.is_cuda:
        return None  # torch fills under the mask then, and needs no list of positions
    if masks:
        return f"{name} with a mask"
    return None if all(index.is_cuda for index in indices) else f"{name} with an index from the host"
