"""What each start of inference.py and each slide read and write, and what a run costs that has nothing to do."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from src.cluster.finished import RECEIPT, digests_of, read_summary, settings_digest, with_digest
from src.cluster.tasks import plan
from src.cohort import CohortConfig, read_inference_flags
from src.common.errors import InputError
from src.common.files import read_json, write_text
from src.slides.outputs import SUMMARY

ROOT = Path(__file__).parents[1]
# inference.py, which writes as its last act how many modules it has imported, and what Linux knows of its reading.
COUNTING = """
import atexit, json, runpy, sys
from pathlib import Path

def tell():
    read = Path("/proc/self/io").read_text().split()[1]
    Path(place).write_text(json.dumps([len(sys.modules), int(read)]))

place, *sys.argv = sys.argv[1:]
sys.path.insert(0, "")
atexit.register(tell)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def print_reading(folder: Path, small: Path, slide: Path, flags: list[str]) -> None:
    """Predict a small slide, which costs little more than a start, and another, and print what they read and wrote."""
    modules, at_start = predict_counting(folder, small, flags)
    _, in_all = predict_counting(folder, slide, flags)
    print(f"a start: {modules:,} modules, {at_start / 1e6:.0f} MB through read calls")
    size, out = slide.stat().st_size, folder / slide.stem
    written = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(out.iterdir()))
    summary = read_summary(str(out))
    print(f"{slide.name}, {size / 1e6:.1f} MB: {(in_all - at_start) / 1e6:.1f} MB more; it wrote {written}")
    print(f"{summary['cells']['all']:,} cells in {summary['tissue_mm2']:.2f} mm² of tissue")


def predict_counting(folder: Path, slide: Path, flags: list[str]) -> tuple[int, int]:
    """Predict a slide into a folder: the number of modules, and the bytes that were read through read calls."""
    told = folder / "counts.json"
    command = ["inference.py", *flags, "--test-dir", str(slide.absolute()), "--output", str(folder)]
    if subprocess.run([sys.executable, "-c", COUNTING, str(told), *command], cwd=ROOT).returncode:
        raise InputError(f"{slide}: was not predicted")
    modules, read = read_json(told)
    return modules, read


def finish(folder: Path, count: int, flags: list[str]) -> list[str]:
    """Make slides that look finished; the command that finds nothing to do."""
    config = CohortConfig(slides=str(folder / "list.txt"), out=str(folder / "out"))
    prediction = read_inference_flags(config, flags)
    settings = settings_digest(prediction, digests_of(prediction))
    slides = [folder / "slides" / f"{number:06d}.tif" for number in range(count)]
    slides[0].parent.mkdir()
    for slide in slides:
        slide.write_bytes(b"slide")
    write_text(Path(config.slides), "".join(f"{slide}\n" for slide in slides))
    for task in plan(slides, Path(config.out)).tasks:
        out = Path(task.folder)
        out.mkdir()
        (out / SUMMARY).write_text(json.dumps({"tissue_mm2": 1.0, "cells": {"all": 1}}))
        (out / RECEIPT).write_text(json.dumps({"digest": with_digest(task, settings).digest, "seconds": 1.0}))
    return [sys.executable, "-m", "src.cohort", "--slides", config.slides, "--out", config.out, "--", *flags]


def print_nothing_to_do(folder: Path, count: int, flags: list[str]) -> None:
    """Run the command with slides that are all finished, and print its seconds and its memory."""
    command = finish(folder, count, flags)
    started = time.monotonic()
    if subprocess.run(command, cwd=ROOT).returncode:
        raise InputError("src.cohort did not end well")
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # of the largest process
    print(f"{count:,} finished slides: {seconds:.1f} s, {memory:.0f} MB")
