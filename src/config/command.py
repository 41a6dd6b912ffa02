"""The command line of every command: one-line errors, nearest names, an example in the help."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from src.common.errors import InputError, nearest
from src.common.limits import MAX_PIXELS

MAX_PIXELS_HELP = "files of more px (height times width) are refused before memory is used"


def score_of(text: str) -> float:
    """A score on a command line."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")


def seed_of(text: str) -> int:
    """A seed on a command line."""
    with suppress(ValueError):
        if (value := int(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are :class:`InputError`, with the nearest name for a mistyped flag."""

    def __init__(self, description: str | None, example: str, prog: str | None = None, **more: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **more,
        )

    def add_classes(self, place: str = "beside the results") -> None:
        """``--classes``, as most commands have it."""
        text = f"JSON of class ids, names and colors (default: that {place}, else the homework's)"
        self.add_argument("--classes", metavar="FILE", help=text)

    def add_max_pixels(self) -> None:
        """``--max-pixels``, of every command that reads images or masks."""
        text = f"{MAX_PIXELS_HELP} (default: {MAX_PIXELS})"
        self.add_argument("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=text)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for whatever it does not accept."""
        raise InputError(message)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As in argparse; a mistyped flag is named before one that is missing."""
        words = sys.argv[1:] if args is None else list(args)
        known = [name for action in self._actions for name in action.option_strings]
        for word in itertools.takewhile(lambda word: word != "--", words):
            if word.startswith("--") and word.split("=")[0] not in known:
                raise InputError(f"unknown flag {word}{nearest(word.split('=')[0], known)}")
        return super().parse_args(words, namespace)
