"""Runs of the command with a stand-in for inference.py."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from src.cohort import main
from tests.sources import ROOT

STAND_IN = ROOT / "tests/cluster/stand_in.py"
COMMAND = f"""
import sys
from pathlib import Path

from src.cluster import connection
from src.cohort import main
from src.common.errors import run_command

if __name__ == "__main__":
    connection.SECONDS_TO_ANSWER = 5
    run_command(lambda: main(sys.argv[1:], Path({str(STAND_IN)!r})))
"""


def is_stand_in(process: psutil.Process) -> bool:
    """Whether a process is, or supervises, the stand-in."""
    try:
        return "stand_in.py" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def write_slides(folder: Path, **slides: str) -> Path:
    """Slides in a folder, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in slides.items():
        (folder / f"{name}.svs").write_text(text)
    listed = folder / "slides.txt"
    listed.write_text("# all\n\n" + "".join(f"{folder / name}.svs\n" for name in slides))
    (folder / "best.pt").write_text("weights")
    return listed


def flags(listed: Path, *more: str) -> list[str]:
    own = ["--slides", str(listed), "--out", str(listed.parent / "out"), *more]
    return [*own, "--", "--ckpt", str(listed.parent / "best.pt")]


def run(listed: Path, *more: str) -> int:
    """Run the command with two workers; its exit code."""
    try:
        main(flags(listed, *more), STAND_IN)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def table(listed: Path) -> dict[str, dict[str, str]]:
    with (listed.parent / "out/cohort.csv").open(newline="") as file:
        return {Path(row["slide"]).stem: row for row in csv.DictReader(file)}


def count(listed: Path, name: str, what: str) -> int:
    path = listed.parent / f"{name}.svs.{what}"
    return len(path.read_text().splitlines()) if path.exists() else 0


def environment() -> dict[str, str]:
    """The environment of a process that finds the checkout from any folder, and does not wait long for Dask."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}


@contextmanager
def start(listed: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process of its own, in a session of its own; killed at the end, if it is still there."""
    code = (
        "import signal, sys; from pathlib import Path; from src.cohort import main"
        "; from src.common.errors import run_command"
        # as from a terminal; what a shell starts in the background ignores it
        "\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    )
    code += f"\nif __name__ == '__main__': run_command(lambda: main(sys.argv[1:], Path({str(STAND_IN)!r})))"
    script = listed.parent / "command.py"
    script.write_text(code)
    command = [sys.executable, str(script), *flags(listed, *more)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment(), start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path) -> int:
    """Wait until a slide has started; the id of its process."""
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline, path
        time.sleep(0.05)
    return int(path.read_text().split()[-1])


def wait_for_end(process_id: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(process_id) and psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
