"""A CUDA device for tests on machines that have none.

Inside :func:`fake_cuda` torch believes that there is a GPU. A tensor on it names the device ``cuda:0`` and keeps its
values in CPU memory. So tests can check code that only runs on GPUs:

- An operation on tensors of different devices is refused, as CUDA refuses it.
- Mixed precision follows torch's own rules for CUDA, so each operation runs in the type that it has on a GPU.
- Each time that the host would wait for the GPU is counted, with the line that made it wait.
- Allocated memory is counted until it is given back, and an allocation past a limit is out of memory.

A passing test says nothing about CUDA's kernels and their rounding, cuDNN and its memory formats, workspaces and
fragments of memory, streams, speed, ``torch.compile``, or communication between GPUs. Several fake devices share one
memory. Only the thread that enters the context can make tensors on the device.

Backward passes need ``guard.cpp``, which g++ compiles on first use; all else needs Python alone. At the end of the
context what was changed is put back. Without g++ two changes stay, and neither concerns work on the CPU: torch keeps an
empty device guard for CUDA (the one that torch's own fake tensors set), and does not try to initialize CUDA again.
"""

from tests.fake_cuda.context import fake_cuda
from tests.fake_cuda.gpu import FakeGpu, Wait
from tests.fake_cuda.guard import can_backward, needs_guard
from tests.fake_cuda.tensor import to_cpu

__all__ = ["FakeGpu", "Wait", "can_backward", "fake_cuda", "needs_guard", "to_cpu"]
