"""The process between a worker and a command: it keeps the command's output in a log, and ends the command in time.

python supervisor.py LOG COMMAND …

The command and all processes that it starts are killed when the standard input of this process is closed, as happens
when a worker ends, however it does, or when nothing was printed for an hour. So no process goes on writing what another
worker has been given. Only the standard library is imported: the file is run as it lies, not as a module.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO

HEAD, TAIL = 1 << 19, 1 << 19  # bytes of the output that are kept, of its beginning and of its end
CHUNK = 1 << 14
SILENCE = float(os.environ.get("COHORT_SILENCE", 3600))  # seconds without output after which a command counts as hung


class BoundedLog:
    """Appends the first ``HEAD`` bytes of some output to a file, and at the end the last ``TAIL`` bytes of the rest.

    What a full disk does not hold is lost: the output must be read all the same, or the command would wait forever.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._room, self._kept, self._left_out = HEAD, 0, 0  # bytes
        self._rest: deque[bytes] = deque()
        self.last_written = time.monotonic()

    def write(self, content: bytes) -> None:
        """Take some more output."""
        self.last_written = time.monotonic()
        self._append(content[: self._room])
        rest, self._room = content[self._room :], max(0, self._room - len(content))
        if rest:
            self._rest.append(rest)
            self._kept += len(rest)
        while self._kept > TAIL:
            left_out = len(self._rest.popleft())
            self._kept, self._left_out = self._kept - left_out, self._left_out + left_out

    def close(self, last_line: str = "") -> None:
        """Write the end of the output, and a last line."""
        if self._left_out:
            self._append(f"\n[{self._left_out:,} bytes are left out here]\n".encode())
        self._append(b"".join(self._rest))
        if last_line:
            self._append(f"\n{last_line}\n".encode())
        self._file.close()

    def _append(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self._file.write(content)


class Supervised:
    """A command that runs, with its output going to a log."""

    def __init__(self, command: list[str], log: BoundedLog) -> None:
        self._log = log
        self._killed_because = ""
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def kill(self, because: str = "") -> None:
        """Kill the command and whatever it has started."""
        self._killed_because = self._killed_because or because
        with contextlib.suppress(OSError):  # nothing is left of them
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def wait(self) -> int:
        """Wait for the end; the exit code, and why it is not 0 as the last line of the log."""
        copying = threading.Thread(target=self._copy, args=(self._process.stdout,))
        copying.start()
        for watch in (self._watch_input, self._watch_silence):
            threading.Thread(target=watch, daemon=True).start()
        code = self._process.wait()
        self.kill()  # processes that it has left behind hold the pipe open
        copying.join()
        self._log.close(self._killed_because or _signal(code))
        return 128 - code if code < 0 else code

    def _copy(self, output: IO[bytes]) -> None:
        while content := os.read(output.fileno(), CHUNK):
            self._log.write(content)

    def _watch_input(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        self.kill("stopped, because its worker has ended or the slide is not wanted any more")

    def _watch_silence(self) -> None:
        while time.monotonic() - self._log.last_written < SILENCE:
            time.sleep(min(1.0, SILENCE / 4))
        self.kill(f"stopped, because it has printed nothing for {SILENCE / 60:g} minutes")


def _signal(code: int) -> str:
    if code >= 0:
        return ""
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def main() -> int:
    """Run the command; its exit code, or 128 and the number of the signal that ended it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, metavar="LOG", help="file to which the output is appended")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments")
    given = parser.parse_args()
    supervised = Supervised(given.command, BoundedLog(given.log))
    signal.signal(signal.SIGTERM, lambda *_: supervised.kill("stopped by SIGTERM"))
    return supervised.wait()


if __name__ == "__main__":
    sys.exit(main())
