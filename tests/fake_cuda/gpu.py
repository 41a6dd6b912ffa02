"""The state of the fake GPU: its memory, and how often the host waited for it."""

import sys
import sysconfig
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

# Code that is not the project's: this package, Python's own modules, what is installed, and code without a file.
_FOREIGN = (f"{Path(__file__).parent}/", *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib")), "<")


class Wait(NamedTuple):
    """A place where the host waits for the device."""

    caller: str  # the function of the project that called the one of ``place``
    operation: str
    place: str  # as "file.py:12 function"


class Block:
    """The memory of a storage. All tensors that share the storage hold the same block, so views count nothing."""


class FakeGpu:
    """What a test may read and set.

    Attributes:
        waits: how often the host waited since the context was entered.
        allocated: bytes that tensors on the device hold now.
        peak: the most bytes that they held at once.
        limit: bytes past which an allocation is out of memory; ``None`` means all of the device's memory.
    """

    def __init__(self, capability: tuple[int, int], memory: int, devices: int) -> None:
        self.capability, self.memory, self.devices = capability, memory, devices
        self.limit: int | None = None
        self.current = 0  # the index of the device that "cuda" means
        self.allocated = self.peak = 0
        self.waits: Counter[Wait] = Counter()
        self._counters = [self.waits]
        self._blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()

    @property
    def free(self) -> int:
        """Bytes that can still be allocated."""
        return max(0, (self.memory if self.limit is None else self.limit) - self.allocated)

    @contextmanager
    def counting(self) -> Iterator[Counter[Wait]]:
        """Count the waits inside a ``with`` block separately as well."""
        self._counters.append(Counter())
        try:
            yield self._counters[-1]
        finally:
            self._counters.pop()

    def note_wait(self, operation: str) -> None:
        """Count that the host waits for the device here."""
        called = _called_functions()
        (name, place), (caller, _) = next(called, ("?", "?")), next(called, ("?", "?"))
        for counter in self._counters:
            counter[Wait(caller, operation, f"{place} {name}")] += 1

    def block_of(self, values: Tensor, device: torch.device) -> Block:
        """The block of a tensor's storage. A storage without one is new and gets one, as far as memory allows."""
        storage = values.untyped_storage()
        block = self._blocks.get(storage._cdata)
        if block is None:
            self._allocate(storage.nbytes(), device)
            block = self._blocks[storage._cdata] = Block()
            weakref.finalize(block, self._give_back, storage.nbytes()).atexit = False
        return block

    def _allocate(self, size: int, device: torch.device) -> None:
        if size > self.free:
            raise torch.cuda.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {_readable(size)}. GPU {device.index} has a total capacity of "
                f"{_readable(self.memory)} of which {_readable(self.free)} is free. Of the allocated memory "
                f"{_readable(self.allocated)} is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
                "unallocated."
            )
        self.allocated += size
        self.peak = max(self.peak, self.allocated)

    def _give_back(self, size: int) -> None:
        self.allocated -= size


def _called_functions() -> Iterator[tuple[str, str]]:
    """The project's functions that are running, the innermost first: the name, and where it is as "file.py:12"."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_FOREIGN):
            yield code.co_name, f"{Path(code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back


def _readable(size: int) -> str:
    """A number of bytes as torch writes it, such as 20.00 MiB."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size > 1024**power:
            return f"{size / 1024**power:.2f} {unit}"
    return f"{size} bytes"
