"""How the program says that its input is wrong: one line, exit code 2."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input from the user. The message is one line that names the file or the flag and the reason."""


def run(main: Callable[[], None]) -> None:
    """Call a command's ``main``; an :class:`InputError` becomes one line on stderr and exit code 2."""
    try:
        main()
    except InputError as error:
        sys.exit(_complain(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(error: InputError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
