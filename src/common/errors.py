"""Errors of input: one line on stderr and exit code 2."""

import difflib
import io
import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


class InputError(Exception):
    """Bad input from the user. The message is one line that names the file or the flag and the reason."""


def one_line(reason: object) -> str:
    """The text of an error on one line of bearable length."""
    words = " ".join(str(reason).split()) or type(reason).__name__
    return words if len(words) <= 160 else f"{words[:157]}..."


def nearest(word: Any, known: Iterable[str]) -> str:
    """``"; did you mean …?"`` where a known name is close to a mistyped word, else an empty text."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def nearest_path(path: str | Path) -> str:
    """As :func:`nearest`, for a path, among the files beside it; empty where the path exists."""
    folder = Path(path).parent
    if Path(path).exists():
        return ""
    try:
        return nearest(path, [str(folder / sibling.name) for sibling in folder.iterdir()])
    except OSError:
        return ""


def some(names: Collection[str], most: int = 3) -> str:
    """The first names in alphabetical order, with an ellipsis where there are more."""
    shown = sorted(names)[:most]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def counted(number: int, what: str) -> str:
    """A number with a noun, like ``1 image``, ``2 images`` and ``3 batches``."""
    ending = "es" if what.endswith(("ch", "sh", "s", "x")) else "s"
    return f"{number:,} {what}" + ("" if number == 1 else ending)


def run_command(main: Callable[[], Value]) -> Value:
    """Call a command's ``main``; an :class:`InputError` becomes one line on stderr and exit code 2."""
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # where a terminal's encoding lacks a character, as on Windows, print another
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return main()
    except InputError as error:
        sys.exit(_complain(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _complain(error: InputError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
