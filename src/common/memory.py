"""Memory that was freed goes back to the system. The C library keeps much of it, in long work with many threads."""

import ctypes
import sys

M_ARENA_MAX = -8  # of glibc's malloc.h: how many heaps there may be


def share_heap() -> None:
    """Have threads that start from now on allocate from one heap; without glibc nothing is done.

    By itself glibc gives each a heap of its own, and each heap keeps memory that lies between objects still in use.
    """
    _call("mallopt", M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Have the C library return freed memory to the system; without glibc nothing is done."""
    _call("malloc_trim", 0)


def _call(name: str, *values: int) -> None:
    """Call a function of the C library, if it has one of this name."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*values)
