"""What is said about files with a tag of orientation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from src.common.errors import counted
from src.data.pictures import UPRIGHT


class Turnable(Protocol):
    """An image with a path, of which is known whether a tag asks viewers to turn it."""

    @property
    def image(self) -> Path:
        """The path of the image."""

    @property
    def is_turned(self) -> bool:
        """Whether its tag asks viewers to turn it."""

    @property
    def orientation(self) -> int:
        """The EXIF tag by which it is turned when it is read."""

    @property
    def turned_file(self) -> Path | None:
        """A file whose tag is not followed, if any."""


def turned_warnings(images: Iterable[Turnable]) -> list[str]:
    """Lines about files with a tag of orientation: pictures that are turned by it, and files that are not."""
    turned = [image for image in images if image.is_turned]
    followed = [image.image for image in turned if image.orientation != UPRIGHT]
    others = [path for image in turned if (path := image.turned_file)]
    lines = [turned_warning(others[0], len(others) - 1)] if others else []
    if followed:
        lines.append(
            f"turned by the EXIF tag, as viewers show them: {counted(len(followed), 'picture')}, such as {followed[0]}"
        )
    return lines


def turned_warning(first: Path, others: int) -> str:
    """A warning about files with a tag of orientation: one of them, and how many others there are."""
    return (
        f"warning: {first} {f'and {others} more have' if others else 'has'} a tag of orientation;"
        " pixels are read as they are stored, so masks and results lie as these do"
    )
