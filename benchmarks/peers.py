"""Compare prediction with SAHI's, on the same network, weights, tiles and threshold.

python -m benchmarks.peers --ckpt demo/run/best.pt --test-dir demo/data/test_release --gt demo/data/test_gt

SAHI wants opencv-python, which would overwrite the OpenCV of this program; it gets a virtual environment of its own.
"""

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from src.common.errors import InputError, run_command
from src.common.files import id_map_of, write_json
from src.config.command import parse
from src.config.flags import option
from src.data.classes import classes_of_results
from src.evaluation.ground_truth import TruthSettings
from src.evaluation.scored import ScoredFiles, read_scored
from src.evaluation.scores import score

SIDES = ("ours", "sahi")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class PeersConfig:
    """The comparison."""

    ckpt: str = option("", "checkpoint or exported weights", required=True)
    test_dir: str = option("", "folder of images", required=True)
    gt: str = option("", "their ground truth", required=True)
    id_map: str | None = option(None, "id map of the images; absent: 1..N by name")
    score_thresh: float = option(0.05, "detections below this score are dropped", low=0, high=1)
    repeats: int = option(3, "measurements of each side, in turn", low=1)
    venv: str = option(".venv-peers", "folder of SAHI's virtual environment")
    out: str = option("peers", "folder for both sides' results")


def main() -> None:
    """Measure both sides in turn, each in a process of its own, and print a table."""
    config = parse(PeersConfig, __doc__)
    pythons = {"ours": sys.executable, "sahi": str(make_environment(Path(config.venv)))}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(config.repeats):
        for side in SIDES:
            runs[side].append(predict(pythons[side], side, config))
    rows = {side: {**summary(runs[side]), **scores(config, side)} for side in SIDES}
    print(f"{'':22}" + "".join(f"{side:>10}" for side in SIDES))
    for name in rows["ours"]:
        print(f"{name:22}" + "".join(f"{rows[side][name]:10.3f}" for side in SIDES))
    write_json(Path(config.out) / "peers.json", {"medians": rows, "runs": runs}, indent=1)


def make_environment(folder: Path) -> Path:
    """The Python of an environment with SAHI, which finds torch where this one has it."""
    python = folder / "bin" / "python"
    if not (folder / "installed").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "sahi==0.12.8"]
        if subprocess.run(install, check=False).returncode:
            raise InputError(f"--venv {folder}: SAHI cannot be installed")
        query = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = Path(subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip())
        # What a .pth file names comes behind the environment's own packages, of which OpenCV is one.
        (packages / "program.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / "installed").touch()
    return python


def predict(python: str, side: str, config: PeersConfig) -> dict[str, float]:
    """Seconds and memory of one side, which writes its results."""
    job = {**vars(config), "output": str(Path(config.out) / f"{side}.json"), "side": side}
    call = "import json, sys; from benchmarks.peer_prediction import main; main(json.loads(sys.argv[1]))"
    command = [python, "-c", call, json.dumps(job)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if said.returncode:
        raise InputError(f"{side}: {said.stderr.strip().splitlines()[-1]}")
    measured: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return measured


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """The medians of some runs."""
    return {name: median(run[name] for run in runs) for name in runs[0]}


def scores(config: PeersConfig, side: str) -> dict[str, float]:
    """What one side's results score."""
    results = Path(config.out) / f"{side}.json"
    classes = classes_of_results(None, Path(config.out) / "ours.json")
    files = ScoredFiles(str(results), config.gt, id_map_of(results, config.id_map))
    truth, entries = read_scored(files, classes, TruthSettings(classes))
    found: dict[str, Any] = score(truth, entries, classes)
    uncapped = found["uncapped"]
    return {
        **{name: uncapped[name] or 0.0 for name in ("AP", "AP50", "AP75")},
        "PQ": found["pq"]["agnostic"]["PQ"] or 0.0,
        "cells": float(len(entries)),
    }


if __name__ == "__main__":
    run_command(main)
