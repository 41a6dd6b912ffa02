"""Compile and load ``guard.cpp``, without which the autograd engine asks the driver for the device."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

_SOURCE = Path(__file__).with_name("guard.cpp")


def can_backward() -> bool:
    """Whether backward passes work, that is, whether there is a compiler."""
    return shutil.which("g++") is not None


def may_skip() -> bool:
    """Whether tests of backward passes may be left out. In CI (see the variable of that name) they never are."""
    return not can_backward() and not os.environ.get("CI")


needs_guard = pytest.mark.skipif(may_skip(), reason="backward passes on the fake device need g++")


@contextmanager
def guard(devices: int) -> Iterator[None]:
    """Inside, torch's C++ code finds so many CUDA devices that need nothing."""
    if not can_backward():
        torch._C._ensureCUDADeviceGuardSet()
        yield
        return
    # The engine counts devices once, at its first use, and starts a thread for each. There shall be none for ours.
    torch.zeros((), requires_grad=True).backward()
    library = _library()
    library.install(devices)
    try:
        yield
    finally:
        library.uninstall()


@cache
def _library() -> ctypes.CDLL:
    """The compiled guard. It is made once for each version of torch and of the source, outside of the repository."""
    key = hashlib.sha256(_SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    path = _own_folder() / f"guard-{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _compile(Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)  # another process finds the whole file or none
    return ctypes.CDLL(str(path))


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"fake_cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user, whose code must not be loaded")
    return folder


def _compile(path: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    flags = ["-std=c++20", "-shared", "-fPIC", f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}"]
    libraries = ["-lc10", "-ltorch_cpu", "-ltorch_python"]
    subprocess.run(["g++", *flags, str(_SOURCE), "-o", str(path), *libraries], check=True)
