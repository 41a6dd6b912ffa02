"""The most pixels of an image or mask that are decoded, in this process.

It is set once, where flags are read, and handed to worker processes when they start: the one value that is global,
because every reader of images needs it and nothing else on the way to them.
"""

from src.common.errors import InputError

DEFAULT_MAX_PIXELS = 100_000_000  # a file of 436 kB can decode to 400 MB
_max_pixels = DEFAULT_MAX_PIXELS


def max_pixels() -> int:
    """The limit, height times width."""
    return _max_pixels


def set_max_pixels(number: int) -> None:
    """Change the limit for all that this process reads from now on."""
    global _max_pixels
    _max_pixels = number


def check_pixels(what: object, height: int, width: int) -> None:
    """Refuse an image that is larger than the limit, before memory is used for it.

    Raises:
        InputError: naming ``what``, the file or the image in a file.
    """
    if height * width > _max_pixels:
        raise InputError(
            f"{what}: is {height} x {width} px; more than {_max_pixels} px are not read (see --max-pixels)"
        )
