"""A stand-in for inference.py: what a slide holds says what becomes of it. Each start and each end is noted beside it.

``ok``; ``fail REASON``; ``fail_once REASON``; ``kill``: its worker, each time; ``kill once``; ``hang``; ``crash``: as C
code does; ``empty``: it ends well and writes nothing.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil


def flag(name: str) -> str:
    return sys.argv[len(sys.argv) - sys.argv[::-1].index(name)]  # the last one wins


def note(slide: Path, what: str) -> int:
    """Note that something happened; how often it has."""
    path = slide.with_name(f"{slide.name}.{what}")
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(path.read_text().splitlines())


def main() -> None:
    slide = Path(flag("--test-dir"))
    words = slide.read_text().split()
    starts = note(slide, "starts")
    device = f"device {flag('--device')}" if "--device" in sys.argv else "no device"
    print(f"threads {os.environ.get('OMP_NUM_THREADS')}, GPUs {os.environ.get('CUDA_VISIBLE_DEVICES')}, {device}")
    if "--tissue" in sys.argv:
        print(f"tissue {flag('--tissue')}")
    if words[0] == "fail" or (words[0] == "fail_once" and starts == 1):
        print(" ".join(words[1:]), file=sys.stderr)
        sys.exit(1)
    if words[0] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if words[0] == "kill" and (words[1:] != ["once"] or starts == 1):
        psutil.Process().parent().parent().kill()  # over the supervisor's head
        time.sleep(3)  # long enough to go on, if nobody stopped it
    if words[0] == "hang" and starts == 1:
        time.sleep(600)
    if words[0] != "empty":
        folder = Path(flag("--output")) / slide.stem
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"tissue_mm2": 1.5, "cells": {"all": 7}}))
    note(slide, "ends")


main()
