"""The supervisor ends what it supervises, keeps a bounded log, and says why."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from src.cluster.on_worker import SUPERVISOR
from src.cluster.supervisor import CHUNK, HEAD, TAIL, BoundedLog

SLEEP_WITH_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def supervise(log: Path, code: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", str(SUPERVISOR), str(log), sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("code", "exit_code", "last_line"),
    [
        ("print('well')", 0, "well"),
        ("import sys; print('out'); sys.stdout.flush(); sys.exit('why')", 1, "why"),
        ("import os; os.kill(os.getpid(), 11)", 139, "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", 137, "killed by SIGKILL"),
    ],
)
def test_the_exit_code_and_the_last_line_say_how_it_ended(
    tmp_path: Path, code: str, exit_code: int, last_line: str
) -> None:
    with supervise(tmp_path / "log", code) as process:
        assert process.wait(timeout=60) == exit_code
    assert (tmp_path / "log").read_text().splitlines()[-1] == last_line


@pytest.mark.parametrize("how", ["input", "terminated", "silent"])
def test_the_command_ends_with_all_that_it_has_started(tmp_path: Path, how: str) -> None:
    log = tmp_path / "log"
    with supervise(log, SLEEP_WITH_A_CHILD, **({"COHORT_SILENCE": "3"} if how == "silent" else {})) as process:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        grandchild = int(log.read_text().split()[0])
        family = psutil.Process(process.pid).children(recursive=True)
        assert grandchild in {child.pid for child in family}
        if how == "input":
            assert process.stdin
            process.stdin.close()
        elif how == "terminated":
            process.terminate()
        assert process.wait(timeout=60) == 137
    assert not psutil.wait_procs(family, timeout=10)[1]
    reason = {"input": "worker", "terminated": "SIGTERM", "silent": "0.05 minutes"}[how]
    assert reason in log.read_text().splitlines()[-1]


def test_a_child_that_is_left_behind_does_not_keep_the_supervisor_waiting(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with supervise(tmp_path / "log", code) as process:
        assert process.wait(timeout=60) == 0


def test_a_log_keeps_the_beginning_and_the_end_of_much_output(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    lines = [f"line {number:07d}\n".encode() for number in range(300_000)]
    for line in lines:
        log.write(line)
    log.close("the end")
    content, total = (tmp_path / "log").read_bytes(), sum(map(len, lines))
    assert content.startswith(lines[0]) and content.endswith(lines[-1] + b"\nthe end\n")
    assert HEAD + TAIL - CHUNK < len(content) < HEAD + TAIL + 200
    left_out = int(content.split(b" bytes are left out")[0].split(b"[")[-1].replace(b",", b""))
    assert HEAD + TAIL - CHUNK < total - left_out <= HEAD + TAIL


def test_a_log_of_little_output_is_whole_and_follows_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    log = BoundedLog(path)
    for content in (b"a" * HEAD, b"", b"b" * 10):
        log.write(content)
    log.close()
    assert path.read_bytes() == b"before\n" + b"a" * HEAD + b"b" * 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_log_and_not_the_command() -> None:
    more_than_a_pipe_and_the_head = HEAD + 1_000_000
    with supervise(Path("/dev/full"), f"print('x' * {more_than_a_pipe_and_the_head})") as process:
        assert process.wait(timeout=60) == 0
