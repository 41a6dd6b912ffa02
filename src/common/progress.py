"""How far a long task has come: a bar on a terminal, else a line every half minute, so that a log file shows it too."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

from tqdm import tqdm

from src.common.errors import counted

Item = TypeVar("Item")
SECONDS_PER_LINE = 30.0


class ProgressBar(Generic[Item]):
    """Iterate over ``items`` and show how many are done; with ``hidden`` nothing is shown.

    Args:
        items: what to iterate over; the total is shown where ``len`` is known.
        label: what is done with them, like ``read images``.
        unit: what one of them is.
        hidden: for processes other than the first.
    """

    def __init__(self, items: Iterable[Item], label: str, unit: str = "image", hidden: bool = False) -> None:
        self._items, self._label, self._unit, self._hidden = items, label, unit, hidden
        self._total = len(items) if isinstance(items, Sized) else None
        self._bar = tqdm(items, label, unit=unit, leave=False, disable=hidden or not sys.stderr.isatty())
        self._figures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Item]:
        if not self._bar.disable:
            yield from self._bar
            return
        started = last = time.monotonic()
        for done, item in enumerate(self._items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= SECONDS_PER_LINE and not self._hidden:
                print(self._line(done, now - started), flush=True)
                last = now

    def show(self, **figures: str) -> None:
        """Show figures behind the number of items: of the latest step, for example.

        ``left`` is the time left, where that is not what the items so far suggest.
        """
        self._figures = figures
        self._bar.set_postfix(figures)

    def _line(self, done: int, seconds: float) -> str:
        total = self._total
        share = f"{done} of {counted(total, self._unit)} ({done / total:.0%})" if total else counted(done, self._unit)
        figures = dict(self._figures)
        if total:
            figures.setdefault("left", format_seconds(seconds / done * (total - done)))
        return f"{self._label}: {share}" + "".join(f", {name} {value}" for name, value in figures.items())


def say(text: str) -> None:
    """Print a line without tearing a progress bar."""
    tqdm.write(text)


def format_seconds(seconds: float) -> str:
    """``[H:]MM:SS``."""
    return str(tqdm.format_interval(seconds))
