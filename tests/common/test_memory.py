import ctypes
import subprocess
import sys

import pytest

from src.common.memory import give_back_memory, share_heap

HOLES = """
import sys
from src.common.memory import give_back_memory

def resident():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) / 1000

blocks = [bytearray(20_000) for _ in range(10_000)]  # 200 MB, smaller than what the C library maps by itself
del blocks[:9_990]  # those that are left lie behind the holes
before = resident()
give_back_memory()
print(before, resident())
"""


HEAPS = """
import ctypes, sys, threading
from src.common.memory import share_heap

if sys.argv[1] == "shared":
    share_heap()
ready = threading.Barrier(3)

def work():
    kept = [bytearray(20_000) for _ in range(10)]
    ready.wait()

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)


@needs_glibc
@pytest.mark.parametrize("kind", ["shared", "of their own"])
def test_threads_share_a_heap(kind: str) -> None:
    run = subprocess.run([sys.executable, "-c", HEAPS, kind], capture_output=True, text=True, check=True)
    assert (run.stdout.count("<heap nr=") == 1) == (kind == "shared")


@needs_glibc
def test_memory_between_what_is_in_use_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    before, after = map(float, run.stdout.split())
    assert before > 200 and after < before - 150


def test_nothing_is_done_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("no C library has this name"))
    give_back_memory()
    share_heap()


def test_a_c_library_without_these_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    give_back_memory()
    share_heap()
    assert asked == ["malloc_trim", "mallopt"]
