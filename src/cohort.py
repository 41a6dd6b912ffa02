"""Predict the slides of a list on many machines: Dask brings the workers, each slide is a process of inference.py.

python -m src.cohort --scheduler local --workers 2 --slides slides.txt --out out -- --ckpt weights/he-nuclei.safetensors
python -m src.cohort --scheduler tls://10.0.0.5:8786 --gpus-per-task 1 --slides slides.txt --out out -- --ckpt best.pt

What follows -- are the flags of inference.py. What is finished with the same settings is skipped: the same command goes
on where one was interrupted. out/cohort.csv says what became of each slide; exit code 1 where any failed.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.cluster.connection import LocalWorkers, connect, require_dask, require_gpus
from src.cluster.finished import digests_of, finished_seconds, settings_digest, with_digest
from src.cluster.on_worker import COMPLAINT, Job
from src.cluster.schedule import Schedule, SchedulerLostError, Workers
from src.cluster.table import DONE, FAILED, Row, write_table
from src.cluster.tasks import Cohort, SlideTask, plan, read_slides
from src.common.errors import InputError, counted, run_command
from src.common.progress import ProgressBar, say
from src.config.checks import check_prediction, check_slides
from src.config.command import parse
from src.config.flags import option
from src.config.settings import InferenceConfig
from src.slides.claims import claimed

INFERENCE = Path(__file__).resolve().parents[1] / "inference.py"
TABLE = "cohort.csv"
OWN_FLAGS = ("--test-dir", "--output", "--print-config")
MOST_ALIKE = 5  # slides with one complaint of inference.py, after which no more are tried
MOST_NAMED = 20  # slides that failed, at the end; the table names all
Rows = dict[str, Row]  # by slide


@dataclass(frozen=True)
class CohortConfig:
    """The cohort."""

    scheduler: str = option(
        "local", "local: start workers on this machine; else the address of Dask's scheduler", metavar="ADDRESS"
    )
    slides: str = option("", "text file with the path of a slide a line, or a folder of slides", required=True)
    out: str = option("", "folder of the outputs, which all workers see, with a folder per slide in it", required=True)
    workers: int | None = option(None, "with --scheduler local: slides at a time; absent: 1", low=1, high=1024)
    threads: int | None = option(
        None, "cores of each slide's process; absent: all it may use, with --scheduler local its share", low=1
    )
    gpus_per_task: int = option(0, "GPUs of each slide's process: of the resource GPU that workers offer", low=0)
    retries: int = option(2, "how often a slide that failed is tried again, on another worker", low=0, high=100)
    dashboard: bool = option(False, "with --scheduler local: Dask's dashboard, on http://127.0.0.1:8787")


def main(arguments: Sequence[str] | None = None, inference: Path = INFERENCE) -> None:
    """Run the command; ``inference`` is the script that predicts a slide."""
    own, flags = split_flags(sys.argv[1:] if arguments is None else arguments)
    config = parse(CohortConfig, __doc__, check_flags, own)
    prediction = read_inference_flags(config, flags)
    require_dask(config.dashboard)
    inputs = digests_of(prediction, recipe_of(flags))
    settings = settings_digest(prediction, inputs)
    slides = read_slides(Path(config.slides), prediction.slide_pixels or prediction.machine.max_pixels)
    if config.scheduler == "local":
        require_gpus(local_workers(config))
    rows: Rows = {}
    with claimed(Path(config.out, TABLE), "another src.cohort is running with this --out"):
        cohort = plan(slides, Path(config.out), folder_of_regions(prediction))
        tasks = unfinished(cohort.tasks, settings, rows)
        print(f"{counted(len(slides), 'slide')}: {len(rows):,} finished or not there, {len(tasks):,} to predict")
        try:
            if tasks:
                command = [str(inference), *flags, *device_flags(config, prediction)]
                of_first = dict.fromkeys([path for path in (tasks[0].slide, tasks[0].tissue) if path], "")
                predict(config, job_of(config, cohort, command, {**inputs, **of_first}), tasks, rows)
        except KeyboardInterrupt:
            print(f"stopped: {state_of(cohort, rows)}; the same command goes on", file=sys.stderr)
            raise
        except SchedulerLostError:
            print(f"--scheduler {config.scheduler}: has ended; the same command goes on", file=sys.stderr)
        finally:
            write_table(cohort.out / TABLE, cohort.tasks, rows)
    report(cohort, rows)


def split_flags(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The command's own flags, and those of ``inference.py`` behind ``--``."""
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def check_flags(config: CohortConfig) -> None:
    """Refuse flags that have no effect, and an ``--out`` that ``inference.py`` does not take."""
    for name, is_given in (("--workers", config.workers), ("--dashboard", config.dashboard)):
        if is_given and config.scheduler != "local":
            raise InputError(f"{name}: has no effect with --scheduler {config.scheduler}")
    if Path(config.out).suffix == ".json" or (Path(config.out).exists() and not Path(config.out).is_dir()):
        raise InputError(f"--out {config.out}: must be a folder, and its name may not end with .json")


def read_inference_flags(config: CohortConfig, flags: Sequence[str]) -> InferenceConfig:
    """What the flags behind ``--`` say, checked as ``inference.py`` does, before anything is started."""
    for flag in flags:
        if flag.split("=")[0] in OWN_FLAGS:
            raise InputError(f"{flag}: cannot stand behind --: src.cohort says what is read and where it is written")
    places = ["--test-dir", config.slides, "--output", config.out]
    prediction = parse(InferenceConfig, None, check_prediction, [*flags, *places], recipe=True)
    check_slides(prediction)
    for flag, value in (("--shard", prediction.shard), ("--export", prediction.export)):  # of a recipe, too
        if value:
            raise InputError(f"{flag} {value}: does not work with src.cohort, which gives each slide a process")
    return prediction


def recipe_of(flags: Sequence[str]) -> str | None:
    """The file behind ``--recipe``, which is no setting of its own."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    recipe: str | None = parser.parse_known_args(flags)[0].recipe
    return recipe


def folder_of_regions(prediction: InferenceConfig) -> Path | None:
    """The folder with a GeoJSON file for each slide, where ``--tissue`` names one."""
    is_folder = prediction.tissue not in ("auto", "all") and Path(prediction.tissue).is_dir()
    return Path(prediction.tissue) if is_folder else None


def unfinished(tasks: Sequence[SlideTask], settings: str, rows: Rows) -> list[SlideTask]:
    """The slides that are left to predict; ``rows`` gets those that are finished, or not there."""
    waiting = []
    for task in tasks:
        try:
            known = with_digest(task, settings)
        except (OSError, ValueError) as error:  # ValueError: no path has a null byte
            rows[task.slide] = Row(FAILED, reason=f"cannot be read ({getattr(error, 'strerror', None) or error})")
            continue
        seconds = finished_seconds(known)
        if seconds is None:
            waiting.append(known)
        else:
            rows[task.slide] = Row(DONE, seconds)
    return waiting


def local_workers(config: CohortConfig) -> LocalWorkers:
    """What is started with ``--scheduler local``."""
    return LocalWorkers(config.workers or 1, config.gpus_per_task, config.dashboard)


def device_flags(config: CohortConfig, prediction: InferenceConfig) -> list[str]:
    """``--device cuda`` where GPUs were asked for, so that a worker that sees none does not predict on its CPU."""
    return ["--device", "cuda"] if config.gpus_per_task and prediction.machine.device == "auto" else []


def job_of(config: CohortConfig, cohort: Cohort, command: Sequence[str], inputs: Mapping[str, str]) -> Job:
    """What all slides have in common."""
    threads = config.threads
    if threads is None and config.scheduler == "local":
        threads = max(1, (os.cpu_count() or 1) // (config.workers or 1))
    return Job(command, inputs, str(Path.cwd()), str(cohort.out), cohort.id, threads)


def predict(config: CohortConfig, job: Job, tasks: Sequence[SlideTask], rows: Rows) -> None:
    """Predict slides on workers, and show how far that is; ``rows`` gets what became of each.

    Raises:
        InputError: no worker can predict, or the first slides, or all, failed with one complaint about the flags.
    """
    with connect(config.scheduler, local_workers(config)) as client:
        schedule = Schedule(Workers(client, job, config.gpus_per_task), tasks, config.retries)
        bar = ProgressBar(schedule, "predict", unit="slide")
        failed, reasons = 0, set()
        for ended, outcome in enumerate(bar, start=1):
            rows[outcome.task.slide] = Row(FAILED if outcome.reason else DONE, outcome.seconds, outcome.reason)
            if outcome.reason:
                failed += 1
                say(f"failed: {outcome.task.slide}: {outcome.reason}")
                bar.show(failed=f"{failed:,}")
            reasons.add(outcome.reason)
            if ended == min(MOST_ALIKE, len(tasks)) and len(reasons) == 1 and outcome.reason.startswith(COMPLAINT):
                said = outcome.reason.removeprefix(COMPLAINT)
                raise InputError(f"nothing could be predicted; {counted(ended, 'slide')} failed with: {said}")


def state_of(cohort: Cohort, rows: Rows) -> str:
    """How many slides are done, failed and waiting, and where the table is."""
    slides, failed = len(cohort.tasks), sum(row.status == FAILED for row in rows.values())
    done = f"{len(rows) - failed:,} of {counted(slides, 'slide')} done"
    return f"{done}, {failed:,} failed, {slides - len(rows):,} waiting; the table is {cohort.out / TABLE}"


def report(cohort: Cohort, rows: Rows) -> None:
    """Print what became of the slides; exit code 1 where any is not done."""
    print(state_of(cohort, rows))
    failed = {slide: row.reason for slide, row in rows.items() if row.status == FAILED}
    for slide, reason in list(failed.items())[:MOST_NAMED]:
        print(f"failed: {slide}: {reason}")
    if len(failed) > MOST_NAMED:
        print(f"and {len(failed) - MOST_NAMED:,} more, in the table")
    if failed or len(rows) < len(cohort.tasks):
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)
