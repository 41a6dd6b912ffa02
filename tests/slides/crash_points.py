"""Runs that are killed where they touch their output: ``python -m tests.slides.crash_points SLIDES OLD WORK STEP``.

Each begins with a copy of the outputs in OLD and is killed as it opens, renames or deletes a file of its output for the
k-th time, for every STEP-th k; then it is run to the end. A line of JSON for each says what was found. The processes
are forked from one, so that torch is imported once.
"""

import json
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

from tests.slides import command
from tests.slides.running import arguments, content

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def die_at(number: int, out: Path) -> None:
    """Kill this process at the ``number``-th event on a file of a folder."""
    seen = 0

    def hook(event: str, about: tuple[object, ...]) -> None:
        nonlocal seen
        # rmtree names what it deletes by its folder's descriptor
        if event in EVENTS and (str(out) in str(about[0]) or event in ("os.remove", "os.rmdir")):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(slides: Path, out: Path, number: int = 0) -> int:
    """The exit code of a run in a process of its own; negative where it was killed."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            if number:
                die_at(number, out)
            command.main(arguments(slides, out))
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(slides: Path, old: Path, work: Path, step: int) -> None:
    """Kill runs at one point after another until one gets to its end."""
    whole = work / "whole"
    run(slides, whole)
    before, after = content(old), content(whole)
    for number in count(1, step):
        out = work / str(number)
        shutil.copytree(old, out)
        ended = run(slides, out, number)
        seen = {name: value for name, value in content(out).items() if not name.startswith(".")}
        code = run(slides, out)
        found = {
            "number": number,
            "killed": ended == -signal.SIGKILL,
            "whole": seen in ({}, before, after),
            "code": code,
            "equal": content(out) == after,
        }
        print(json.dumps(found), flush=True)
        shutil.rmtree(out)
        if not found["killed"]:
            break


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))  # type: ignore[arg-type]
