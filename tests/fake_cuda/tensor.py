"""Tensors that name a CUDA device and keep their values in CPU memory, and the operations on them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.fake_cuda.gpu import Block, FakeGpu
from tests.fake_cuda.rules import check_devices, reason_to_wait

CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)
# A GPU adds these up in float32 and rounds once, at the end. A CPU may round in between.
SUMS = {
    "aten::addmm", "aten::baddbmm", "aten::bmm", "aten::convolution", "aten::convolution_backward", "aten::mm",
}  # fmt: skip


class FakeCudaTensor(Tensor):
    """A tensor on the fake device. Torch knows its shape, type and device; ``values`` is a plain tensor on the CPU."""

    values: Tensor
    gpu: FakeGpu
    block: Block

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Reached where the mode is not active: in other threads, and after the context."""
        gpu = next(leaf.gpu for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, cls))
        return run(gpu, func, args, kwargs or {})

    def tolist(self) -> Any:
        """Torch refuses this for all subclasses of its tensor."""
        self.gpu.note_wait("tolist")
        return self.values.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def _set_data(self, new: "FakeCudaTensor") -> None:
        Tensor.data.__set__(self, new)
        self.values, self.block = new.values, new.block

    data = property(Tensor.detach, _set_data)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else super().__format__(spec)

    def __repr__(self, **_: Any) -> str:
        return f"{self.values!r} on {self.device}"

    def __reduce_ex__(self, protocol: int) -> Any:
        """``torch.save`` writes a plain CPU tensor."""
        return self.values.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)
        memo[id(self)] = copied
        return copied


class FakeCudaMode(TorchDispatchMode):
    """Sees all operations of a thread, thus also those that make a tensor on the device out of none."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(self.gpu, func, args, kwargs or {})


def to_cpu(tensor: Tensor) -> Tensor:
    """The plain CPU tensor of a fake one. They share their memory, and no wait is counted."""
    return tensor.values if isinstance(tensor, FakeCudaTensor) else tensor


def run(gpu: FakeGpu, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation as the device would."""
    with FakeCudaMode(gpu):  # in inference mode torch does not split operations into simpler ones before this
        parts = func.decompose(*args, **kwargs)
    if parts is not NotImplemented:
        return parts
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    device = _device_of_result(gpu, tensors, kwargs)
    if device.type != "cuda" and not any(tensor.is_cuda for tensor in tensors):
        return func(*args, **kwargs)
    name = func._schema.name
    check_devices(name, args, tensors)
    if reason := reason_to_wait(name, args, kwargs):
        gpu.note_wait(reason)
    made = _compute(func, *tree_map_only(FakeCudaTensor, to_cpu, (args, _on_cpu(kwargs))))
    if func._schema.is_mutable and (written := _written(func, args, kwargs)):
        return written[0] if len(written) == 1 else written
    return tree_map_only(Tensor, lambda values: _wrap(gpu, values, device), made) if device.type == "cuda" else made


def _device_of_result(gpu: FakeGpu, tensors: Sequence[Tensor], kwargs: dict[str, Any]) -> torch.device:
    device = kwargs.get("device")
    if device is None:
        return next((tensor.device for tensor in tensors if tensor.is_cuda), CPU)
    return torch.device("cuda", gpu.current) if device.type == "cuda" and device.index is None else device


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    changes = {"device": CPU, "pin_memory": False}
    return {name: value if value is None else changes.get(name, value) for name, value in kwargs.items()}


def _compute(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU; 16-bit types pass through float32 where a GPU does that, or where the CPU has no kernel."""
    types = [leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    half = next((dtype for dtype in types if dtype in HALF), None)
    if half is None or func._schema.name not in SUMS:
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if half is None or func._schema.is_mutable or "not implemented for" not in str(error):
                raise
    args, kwargs = tree_map_only(Tensor, lambda leaf: leaf.float() if leaf.dtype in HALF else leaf, (args, kwargs))
    made = func(*args, **kwargs)
    return tree_map_only(Tensor, lambda leaf: leaf.to(half) if leaf.dtype == torch.float32 else leaf, made)


def _written(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments that an operation has written into and gives back."""
    arguments, returns = func._schema.arguments, func._schema.returns
    given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    written = tuple(given[arg.name] for arg in arguments if arg.is_write and arg.name in given)
    if any(isinstance(value, FakeCudaTensor) and value.shape != value.values.shape for value in written):
        raise NotImplementedError(f"the fake device cannot change a shape in place: {func}")
    return written[: len(returns)] if all(result.is_write for result in returns) else ()


def _wrap(gpu: FakeGpu, values: Tensor, device: torch.device) -> FakeCudaTensor:
    block = gpu.block_of(values, device)
    with torch.inference_mode(values.is_inference()):  # there a view of a normal tensor is a normal tensor as well
        made = Tensor._make_wrapper_subclass(
            FakeCudaTensor, values.size(), strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, layout=values.layout, device=device,
        )  # fmt: skip
    made.values, made.gpu, made.block = values, gpu, block
    return made
