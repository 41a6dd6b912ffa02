"""Ctrl-C and SIGTERM: a training that receives one ends its step, saves and stops."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """Hears SIGINT and SIGTERM. ``signal`` is the first that came, 0 before; a second Ctrl-C ends the process at once.

    Not so under torchrun: it passes a Ctrl-C on to processes that have heard it from the terminal.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._leaving, self._message = False, ""

    @property
    def exit_code(self) -> int:
        """What a process exits with that a signal ended: 130 for Ctrl-C, 143 for SIGTERM; 0 where none came."""
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals until the end of the block, then give them back to who heard them before."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def leaving(self, message: str = "") -> Iterator[None]:
        """For work of which nothing is kept: a signal that has come or comes ends the process within the block.

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
    """For a loader's worker: Ctrl-C is for the main process to answer, SIGTERM ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
