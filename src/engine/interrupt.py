"""Ctrl-C and SIGTERM: a training that receives one ends its step, saves and stops."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """Records SIGINT and SIGTERM. ``signal`` is the first one received, 0 before; a second Ctrl-C exits at once.

    Under torchrun it does not: torchrun forwards a Ctrl-C to processes that already got it from the terminal.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._leaving, self._message = False, ""

    @property
    def exit_code(self) -> int:
        """The exit code after a signal: 130 for Ctrl-C, 143 for SIGTERM; 0 without one."""
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record signals within the block, then restore the handlers of before."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def leaving(self, message: str = "") -> Iterator[None]:
        """For work that leaves nothing to save: a signal received before or within the block ends the process at once.

        ``message`` is printed then, and the exit code is :attr:`exit_code`.
        """
        self._leaving, self._message = True, message
        try:
            if self.signal:
                self._leave()
            yield
        finally:
            self._leaving, self._message = False, ""

    def _leave(self) -> NoReturn:
        if self._message:
            print(self._message, flush=True)
        sys.exit(self.exit_code)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and "RANK" not in os.environ:
            os._exit(128 + number)
        self.signal = self.signal or number
        if self._leaving:
            self._leave()


def ignore_sigint() -> None:
    """For a loader's worker: ignore Ctrl-C, which the main process handles, and let SIGTERM end the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
