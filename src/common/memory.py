"""Memory that was freed goes back to the system."""

import ctypes
import sys


def give_back_memory() -> None:
    """Have the C library return freed memory to the system; without glibc nothing is done.

    By itself it keeps freed memory that lies between objects still in use, for each thread, which adds up in long work.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
