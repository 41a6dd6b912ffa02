"""What src.cohort promises, measured: nothing is lost with a worker, and a scheduler has little to do.

python -m benchmarks.cohort kill --slides 20 --side 1024    # two workers, of which one is killed, against one
python -m benchmarks.cohort tasks --tasks 100000            # tasks that do nothing: one by one, and at once
python -m benchmarks.cohort finished --tasks 100000         # a run that has nothing to do
python -m benchmarks.cohort start --slide slide.svs         # what a start and a slide read and write (on Linux)
"""

import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cohort_costs import print_nothing_to_do, print_reading
from src.cluster.on_worker import Job
from src.cluster.schedule import Schedule, Workers
from src.cluster.tasks import SlideTask, plan
from src.common.errors import InputError, run_command
from src.common.files import read_json
from src.config.command import parse
from src.config.flags import option

ROOT = Path(__file__).parents[1]
CASES = ("kill", "tasks", "finished", "start")
FLAGS = ["--ckpt", str(ROOT / "weights/he-nuclei.safetensors"), "--device", "cpu"]


@dataclass(frozen=True)
class CohortBenchmarkConfig:
    """The measurement."""

    case: str = option("", f"which one: {', '.join(CASES)}", name="CASE", required=True, choices=CASES)
    slides: int = option(20, "kill: made slides", low=2)
    side: int = option(1024, "kill, start: height and width of made slides in px, at 0.25 µm per px", low=256)
    slide: str | None = option(None, "start: the slide; absent: a made one", metavar="FILE")
    tasks: int = option(100_000, "tasks, finished: how many", low=1)
    workers: int = option(50, "tasks: workers, which are all in one process", low=1)


def main() -> None:
    """Run a case and print its figures."""
    config = parse(CohortBenchmarkConfig, __doc__)
    with tempfile.TemporaryDirectory() as folder:
        if config.case == "kill":
            compare_with_a_kill(Path(folder), config.slides, config.side)
        elif config.case == "tasks":
            send_tasks(Path(folder), config.tasks, config.workers)
        elif config.case == "finished":
            print_nothing_to_do(Path(folder), config.tasks, FLAGS)
        else:
            measure_reading(Path(folder), config)


def compare_with_a_kill(folder: Path, count: int, side: int) -> None:
    """Predict made slides with one worker, and with two of which one is killed; the cells must be the same."""
    write_slides(folder / "slides", count, side)
    alone, _ = timed(lambda: run_cohort(folder, "alone", 1, kill=False))
    both, killed = timed(lambda: run_cohort(folder, "both", 2, kill=True))
    rows = [read_table(folder / name / "cohort.csv") for name in ("alone", "both")]
    differing = [name for name, row in rows[0].items() if rows[1][name]["cells"] != row["cells"]]
    attempts = sum(path.read_text().count("--- ") for path in (folder / "both").glob("*.log"))
    undone = sum(row["status"] != "done" for of_run in rows for row in of_run.values())
    cells = sum(int(row["cells"] or 0) for row in rows[1].values())
    print(f"one worker {alone:.0f} s, two workers with a kill {both:.0f} s; killed in the middle of {killed}")
    print(f"{count} slides, {cells:,} cells, {attempts} attempts, {undone} not done, {len(differing)} with other cells")
    if undone or differing:
        raise SystemExit(1)


def measure_reading(folder: Path, config: CohortBenchmarkConfig) -> None:
    """Print what a start reads, and what the prediction of a slide reads and writes."""
    for name, side in (("small", 256), ("made", config.side)):
        write_slides(folder / name, 1, side)
    slide = Path(config.slide) if config.slide else folder / "made" / "slide00.tif"
    print_reading(folder, (folder / "small/slide00.tif").rename(folder / "small.tif"), slide, FLAGS)


def write_slides(folder: Path, count: int, side: int) -> None:
    """Synthetic tissue as tiled TIFF: the same for all, each shifted in its own way."""
    import numpy as np
    import tifffile

    from src.synthetic.placement import make_tissue

    folder.mkdir()
    tissue, _ = make_tissue(np.random.default_rng(0), side, side)
    for number in range(count):
        shifted = np.roll(tissue, (side * number // count, side * number // count), (0, 1))
        tifffile.imwrite(
            folder / f"slide{number:02d}.tif", shifted, tile=(256, 256), photometric="rgb", compression="zlib",
            resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
        )  # fmt: skip


def run_cohort(folder: Path, name: str, workers: int, kill: bool) -> str:
    """Run the command; with ``kill`` a worker is killed when it has begun its third slide. That slide's name."""
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in sorted((folder / "slides").iterdir())))
    own = ["--workers", str(workers), "--slides", str(folder / "list.txt"), "--out", str(folder / name)]
    command = [sys.executable, "-m", "src.cohort", *own, "--", *FLAGS]
    with subprocess.Popen(command, cwd=ROOT) as process:
        victim = kill_a_worker(process.pid, folder / name) if kill else ""
    if process.returncode:
        raise InputError(f"src.cohort ended with {process.returncode}")
    return victim


def kill_a_worker(command: int, out: Path) -> str:
    """Kill the worker that predicts the third slide of the list, a second after its process has printed something."""
    import psutil

    log = out / "slide02.log"
    while not (log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.1)
    time.sleep(1)
    for process in psutil.Process(command).children(recursive=True):
        if "supervisor.py" in " ".join(process.cmdline()) and str(log) in process.cmdline():
            process.parent().kill()
            return log.stem
    raise InputError(f"{log}: was predicted before its worker could be killed; make larger slides with --side")


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by slide."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def nothing(task: SlideTask, job: Job, attempt: int) -> tuple[str, float]:
    """A task that does nothing."""
    return "", 0.0


def send_tasks(folder: Path, count: int, worker_count: int) -> None:
    """Run tasks that do nothing through a scheduler in a process of its own, and print what it used."""
    from distributed import Client

    cohort = plan([folder / f"{number:06d}.tif" for number in range(count)], folder / "out")
    job = Job([__file__], {}, str(folder), str(cohort.out), cohort.id)
    with processes(folder, worker_count) as (address, scheduler), Client(address) as client:
        client.wait_for_workers(worker_count, timeout=300)
        idle, _ = used(scheduler, lambda: time.sleep(20))
        print(f"{worker_count} workers that have nothing to do: {idle['cpu'] / idle['seconds']:.1%} of a core")
        schedule = Schedule(Workers(client, job, 0), cohort.tasks, 0, nothing)
        use, done = used(scheduler, lambda: sum(1 for _ in schedule))
        print_use(f"{done:,} tasks as src.cohort sends them", use, count)
        use, done = used(scheduler, lambda: len(client.gather(client.map(str, range(count), pure=False))))
        print_use(f"{done:,} tasks at once", use, count)


@contextmanager
def processes(folder: Path, worker_count: int) -> Iterator[tuple[str, Any]]:
    """A scheduler, as psutil knows it, and workers in another process; the address of the scheduler."""
    import psutil

    about = folder / "scheduler.json"
    at = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    start_workers = f"from benchmarks.cohort import run_workers; run_workers({str(about)!r}, {worker_count})"
    commands: Sequence[Sequence[str]] = (
        ["-m", "dask", "scheduler", "--scheduler-file", str(about), *at],
        ["-c", start_workers],
    )
    started = []
    with (folder / "log.txt").open("wb") as log:
        for command in commands:
            started.append(subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=log))
            while not about.exists():
                time.sleep(0.1)
        try:
            yield read_json(about)["address"], psutil.Process(started[0].pid)
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def run_workers(scheduler_file: str, count: int) -> None:
    """Run workers of one thread in this process, for ever."""
    import asyncio

    from distributed import Worker

    async def run() -> None:
        options: dict[str, Any] = {"nthreads": 1, "host": "127.0.0.1", "dashboard": False, "memory_limit": 0}
        for _ in range(count):
            await Worker(scheduler_file=scheduler_file, dashboard_address="127.0.0.1:0", **options)
        await asyncio.Event().wait()

    asyncio.run(run())


def used(process: Any, work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """The seconds of some work, and what a process used meanwhile: seconds of a core, and memory at the end, in MB."""
    before = sum(process.cpu_times()[:2])
    seconds, found = timed(work)
    cpu, memory = sum(process.cpu_times()[:2]) - before, process.memory_info().rss / 1e6
    return {"seconds": seconds, "cpu": cpu, "memory": memory}, found


def print_use(what: str, use: dict[str, float], count: int) -> None:
    """Print what some tasks cost."""
    print(
        f"{what}: {use['seconds']:.0f} s, {count / use['seconds']:.0f} a second; the scheduler used"
        f" {use['cpu']:.0f} s of a core, {use['cpu'] / count * 1000:.2f} ms a task, and holds {use['memory']:.0f} MB",
        flush=True,
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of some work, and what it returns."""
    started = time.monotonic()
    found = work()
    return time.monotonic() - started, found


if __name__ == "__main__":
    run_command(main)
