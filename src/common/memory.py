"""Memory that was freed goes back to the system."""

import ctypes
import sys


def give_back_memory() -> None:
    """Have the C library hand over what it keeps of freed memory; without glibc nothing is done.

    It keeps some for each thread, between what is in use, and more the longer threads pass arrays to each other.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
