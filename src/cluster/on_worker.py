"""What a worker runs: the check of its paths, and one slide, as a process of ``inference.py``."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from src.cluster.finished import write_receipt
from src.cluster.tasks import RECORD, SlideTask, log_of
from src.common.errors import InputError
from src.common.files import file_digest, read_json, writing
from src.formats.slide_folder import SUMMARY

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LONGEST_REASON = 500  # characters
END_OF_LOG = 4096  # bytes in which the last line is looked for
COMPLAINT = "error: "  # how inference.py begins what it says of its flags and files, with exit code 2
# Dask limits its workers to one thread, and memory that is freed is given back at once: none of it is for the slide.
OF_DASK = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")


@dataclass(frozen=True)
class Job:
    """What all slides have in common.

    Attributes:
        command: ``inference.py`` in the checkout, and its flags, but for the slide and the output.
        inputs: files that every worker must see, such as checkpoints and a slide, with digests of what they hold; of
            those without one only the path is looked up.
        folder: the current folder of the command line, from which relative paths count.
        out: the folder of all outputs, which every worker must see.
        id: what the record in ``out`` says, so that another folder of the same name is told apart.
        threads: cores of one process; ``None`` for all that it may use.
    """

    command: Sequence[str]
    inputs: Mapping[str, str]
    folder: str
    out: str
    id: str
    threads: int | None = None


def why_unfit(job: Job) -> str:
    """Why this worker cannot predict: a path that it does not see, other files, or no torch; empty where it can."""
    for path in (job.folder, job.command[0], *job.inputs):
        if not Path(job.folder, path).exists():
            return f"it does not see {path}"
    for path, digest in job.inputs.items():
        if digest and file_digest(Path(job.folder, path)) != digest:
            return f"its {path} is not the file with which the run began"
    try:
        record = read_json(Path(job.out) / RECORD)
    except InputError as error:
        return f"it does not see the outputs: {error}"
    if record.get("id") != job.id:
        return f"its {job.out} is another folder than that of the others"
    if not os.access(job.out, os.W_OK):
        return f"it may not write into {job.out}"
    return "" if find_spec("torch") else f"its {sys.executable} has no torch"


def predict_slide(task: SlideTask, job: Job, attempt: int) -> tuple[str, float]:
    """Predict one slide; why it failed, which is empty where it did not, and how many seconds it took.

    A reason that begins with ``COMPLAINT`` is not about the slide: it would be said of others, too.

    Raises:
        InputError: the log cannot be written.
    """
    from distributed import get_worker

    worker, started = get_worker(), time.monotonic()
    if not Path(task.slide).exists():
        return f"the worker {worker.address} does not see it", 0.0
    key = worker.get_current_task()

    def is_wanted() -> bool:
        # Dask cannot stop what runs, but knows that it was cancelled, or that the worker is to end.
        state = worker.state.tasks.get(key)
        return state is not None and state.state == "executing" and worker.status.name in ("running", "paused")

    log = log_of(task.folder)
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        begin = time.strftime(f"--- %Y-%m-%d %H:%M:%S, attempt {attempt} on {worker.address}\n")
        with log.open("wb" if attempt == 1 else "ab") as file:
            file.write(begin.encode())
        code = _run(task, job, is_wanted)
    seconds = time.monotonic() - started
    if code == 0 and (Path(task.folder) / SUMMARY).is_file():
        write_receipt(task, seconds)
        return "", seconds
    said = _last_line(log)
    if task.slide in said or (task.tissue and task.tissue in said):
        said = said.removeprefix(COMPLAINT).removeprefix(f"{task.slide}: ")
    return (said or f"exit code {code}") if code else f"wrote no outputs: {said}", seconds


def _run(task: SlideTask, job: Job, is_wanted: Callable[[], bool]) -> int:
    """Run ``inference.py`` under the supervisor, until it ends or is not wanted any more; its exit code."""
    output = str(Path(task.folder).parent)
    tissue = ["--tissue", task.tissue] if task.tissue else []
    command = [sys.executable, *job.command, *tissue, "--test-dir", task.slide, "--output", output]
    environment = {key: value for key, value in os.environ.items() if key not in OF_DASK}
    environment["PYTHONUNBUFFERED"] = "1"  # else the last line of the log would not be the last that was printed
    if job.threads:
        environment["OMP_NUM_THREADS"] = str(job.threads)
    supervised = [sys.executable, "-P", str(SUPERVISOR), str(log_of(task.folder)), *command]
    how: dict[str, Any] = {"cwd": job.folder, "env": environment, "start_new_session": True}  # Ctrl-C is not for it
    with subprocess.Popen(supervised, stdin=subprocess.PIPE, **how) as process:
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if process.stdin and not is_wanted():
                    process.stdin.close()


def _last_line(log: Path) -> str:
    """The last line that was printed, without the line that begins an attempt."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - END_OF_LOG))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    said = [line for line in lines if line]
    return said[-1][:LONGEST_REASON] if said and not said[-1].startswith("--- ") else ""
