"""Runs of :mod:`tests.slides.command`, and what they leave."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.sources import ROOT


def arguments(slides: Path, out: Path, *flags: str) -> list[str]:
    """The flags of a run."""
    return ["--test-dir", str(slides), "--output", str(out), "--slide-pixels", "10000", "--device", "cpu", *flags]


def start(
    slides: Path, out: Path, *flags: str, before: tuple[str, ...] = ("-m",), **more: Any
) -> subprocess.Popen[str]:
    """Begin a run; ``more`` are variables of its environment."""
    environment = {**os.environ, **{name: str(value) for name, value in more.items()}}
    command = [sys.executable, *before, "tests.slides.command", *arguments(slides, out, *flags)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(slides: Path, out: Path, *flags: str, **more: Any) -> tuple[int, str, str]:
    """Exit code, and what a run prints."""
    child = start(slides, out, *flags, **more)
    said, complained = child.communicate(timeout=300)
    assert "Traceback" not in said + complained, complained
    return child.returncode, said, complained


def content(out: Path) -> dict[str, Any]:
    """All files below a folder, those of times without them."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        found[name] = path.read_bytes()
        if path.name == "summary.json":
            found[name] = {key: value for key, value in json.loads(found[name]).items() if key != "seconds"}
    return found


def cells_in(folder: Path) -> int:
    """The number of outlines of a slide."""
    with gzip.open(folder / "cells.geojson.gz") as file:
        return len(json.load(file)["features"])


def tiles_in(counts: Path) -> int:
    """The number of tiles that runs have predicted, by their file of ``COUNT``."""
    return sum(int(line) for line in counts.read_text().splitlines() if not line.startswith("peak"))
