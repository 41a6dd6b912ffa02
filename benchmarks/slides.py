"""Measure the prediction of whole slides, with stand-ins for the network on made slides.

python -m benchmarks.slides --folder slides --json slides.json
python -m benchmarks.slides memory restart --folder slides
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError, nearest, run_command
from src.common.files import write_json
from src.config.command import parse
from src.config.flags import option

CASES = ("cost", "busy", "writing", "restart", "linear", "memory")
ROOT = Path(__file__).parents[1]
SAMPLES_PER_S = 5  # of memory
KILLS = 20


@dataclass(frozen=True)
class SlidesConfig:
    """The measurement."""

    cases: tuple[str, ...] = option((), f"which ones: {', '.join(CASES)}; absent: all", name="case")
    folder: str = option("slides", "folder for the made slides (2 GB) and what is found in them")
    repeats: int = option(3, "measurements of cost and of busy shares", low=1)
    json: str | None = option(None, "write all figures here", metavar="FILE")


def check_cases(config: SlidesConfig) -> None:
    """Refuse a case that does not exist."""
    for name in config.cases:
        if name not in CASES:
            raise InputError(f"unknown case {name}{nearest(name, CASES)}")


def main() -> None:
    """Run the cases, and print the figures of each as JSON."""
    config = parse(SlidesConfig, __doc__, check_cases)
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in config.cases or CASES:
        shutil.rmtree(folder / name, ignore_errors=True)  # what is finished would not be predicted again
        found[name] = globals()[f"measure_{name}"](folder, config.repeats)
        print(f"{name}: {json.dumps(found[name], indent=1)}", flush=True)
    if config.json:
        write_json(config.json, found, indent=1)
        print(f"wrote {config.json}")


def slide_of(folder: Path, height: int, width: int, period: int = 20_480) -> tuple[Path, float]:
    """A made slide with islands of tissue, which is written unless it is there, and its mm² of tissue."""
    from benchmarks.slide_material import MadeSlide, write_slide

    made = MadeSlide(height, width, period)
    path = folder / f"{height}x{width}.tif"
    if not path.exists():
        write_slide(path.with_suffix(".tmp"), made)
        path.with_suffix(".tmp").replace(path)
    return path, made.tissue_mm2


def measure_cost(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Core-seconds of everything but the network, per mm² of tissue."""
    slide, mm2 = slide_of(folder, 20_000, 20_000)
    return [cost(predict(folder, slide, folder / "cost" / str(number)), mm2) for number in range(repeats)]


def measure_linear(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """The same for more and more tissue."""
    sizes = {  # by mm² of tissue, about
        10: (25_000, 20_000),
        30: (40_000, 38_400),
        100: (80_000, 64_000),
        300: (120_000, 128_000),
    }
    rows = []
    for about, sides in sizes.items():
        slide, mm2 = slide_of(folder, *sides)
        rows.append(cost(predict(folder, slide, folder / "linear" / str(about)), mm2))
        slide.unlink()
    return rows


def cost(found: dict[str, float], mm2: float) -> dict[str, float]:
    """What a prediction took, with its core-seconds per mm²."""
    return {**found, "mm2": mm2, "core_s_per_mm2": (found["cpu"] - found["network"]) / mm2}


def measure_memory(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """The most memory on top of model and libraries, for slides with the same columns of tissue."""
    rows = []
    for height in (20_000, 100_000):
        slide, mm2 = slide_of(folder, height, 100_000)
        found = predict(folder, slide, folder / "memory" / str(height))
        rows.append({"rows": height, **cost(found, mm2)})
    return rows


def measure_restart(folder: Path, repeats: int) -> dict[str, Any]:
    """Whether a prediction that is killed at random instants writes the same files as one that is not."""
    slide, _ = slide_of(folder, 20_000, 20_000)
    expected, found = folder / "restart/whole", folder / "restart/killed"
    seconds = predict(folder, slide, expected)["wall"]
    rng, killed = random.Random(0), 0
    while killed < KILLS:
        with working(folder, slide, found) as process:
            start(process)
            try:
                process.wait(rng.uniform(0.05, 0.25) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            else:
                break
    predict(folder, slide, found)
    name = slide.stem
    return {
        "kills": killed,
        "same": {
            file.name: without_times(file) == without_times(found / name / file.name)
            for file in sorted((expected / name).iterdir())
        },
        "left": [path.name for path in found.iterdir() if path.name not in (name, "warm-up")],
    }


def without_times(path: Path) -> bytes:
    """The bytes of an output; of the summary without seconds."""
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    return json.dumps({key: value for key, value in json.loads(data).items() if key != "seconds"}).encode()


def measure_busy(folder: Path, repeats: int) -> list[dict[str, float]]:
    """The share of the time that a network of 2 ms per batch of four is busy, by readers and by processes."""
    slide, _ = slide_of(folder, 12_000, 12_000)
    kinds = [(1, readers) for readers in (1, 2, 4, 8)] + [(2, 1)]
    return [busy_share(slide, folder / "busy", *kind) for _ in range(repeats) for kind in kinds]


def busy_share(slide: Path, folder: Path, processes: int, readers: int) -> dict[str, float]:
    """How busy a network is that some processes share, each of which predicts a slide.

    ``most_by_cores`` is the share that it would have if no core ever waited.
    """
    with ExitStack() as stack:
        running = [
            stack.enter_context(waiting(command("slide_busy", slide, folder / str(number), readers)))
            for number in range(processes)
        ]
        for process in running:
            start(process)
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    wall = max(one["wall"] for one in found)
    cpu, network = (sum(one[name] for one in found) for name in ("cpu", "network"))
    most = network / max(network, cpu / (os.cpu_count() or 1))
    kind = {"processes": processes, "readers": readers}
    return {**kind, "wall": wall, "cpu": cpu, "busy": network / wall, "most_by_cores": most}


def measure_writing(folder: Path, repeats: int) -> list[dict[str, float]]:
    """Seconds and memory to write the files of many cells, in a process with one thread."""
    runs = [
        subprocess.run(
            command("slide_writing", folder / "writing", count), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        for count in (100_000, 1_000_000)
    ]
    return [json.loads(run.stdout.splitlines()[-1]) for run in runs]


def predict(folder: Path, slide: Path, output: Path) -> dict[str, float]:
    """Predict a slide in a process of its own: its wall and CPU time in s, that of the network, and memory in MB."""
    with working(folder, slide, output) as process:
        start(process)
        memory = Memory(process.pid)
        lines = [line for line in process.stdout or () if line.strip()]
        if process.wait():
            raise RuntimeError("".join(lines))
        return {**json.loads(lines[-1]), **memory.stop()}


@contextmanager
def working(folder: Path, slide: Path, output: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has predicted a small slide, for which it imported everything, and waits to begin."""
    warm_up, _ = slide_of(folder, 2048, 2048, period=2048)
    with waiting(command("slide_work", warm_up, slide, output)) as process:
        yield process


@contextmanager
def waiting(call: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that has said that it is ready, and waits to begin."""
    with subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line == "ready\n":
                break
        yield process


def command(module: str, *arguments: object) -> list[str]:
    """The command line that runs ``main`` of a module of this package."""
    code = f"import sys; from benchmarks.{module} import main; main(*sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, arguments)]


def start(process: "subprocess.Popen[str]") -> None:
    """Let a process that waits begin."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


class Memory:
    """Samples the memory of a process, in a thread, on top of what it has now."""

    def __init__(self, pid: int) -> None:
        self._pid, self._begin, self._most, self._stop = pid, memory(pid), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(1 / SAMPLES_PER_S):
            self._most = max(self._most, memory(self._pid))

    def stop(self) -> dict[str, float]:
        """MB before the work, and the most on top of it."""
        self._stop.set()
        self._thread.join()
        return {"before_mb": self._begin, "memory_mb": self._most - self._begin}


def memory(pid: int) -> float:
    """The proportional set size of a process and its children in MB; 0 where it has ended. On Linux."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = next((int(line.split()[1]) / 1e3 for line in text.splitlines() if line.startswith("Pss:")), 0.0)
    return own + sum(memory(int(child)) for child in children)


if __name__ == "__main__":
    run_command(main)
