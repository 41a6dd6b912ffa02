"""Which process predicts a slide, and which files and tiles its outputs were made from."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from src.common.errors import InputError
from src.common.files import NO_LOCKS, lock, writing
from src.geometry.tiles import Tile
from src.slides.finding import files_of

HEAD = 1 << 20  # bytes at either end of a file by which it is known again


@contextmanager
def claimed(place: Path, taken: str = "another process is predicting this slide") -> Iterator[None]:
    """Keep other processes from claiming this place, such as a slide's folder of outputs, within the block.

    The lock ends with the process, however that ends; the lock file of a killed one stays until the next run. File
    systems without locks do without.

    Raises:
        InputError: another process has claimed it, which ``taken`` says, or the place cannot be written.
    """
    path = place.with_name(f".{place.name}.lock")
    with writing(place):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_file(path, f"{place}: {taken}"):
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows, where an open file stays
                path.unlink()


def _locked_file(path: Path, taken: str) -> IO[str]:
    while True:
        with writing(path):
            file = path.open("a")
        try:
            lock(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise InputError(taken) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # of a process that has just ended, and has removed the file


def identity(slide: Path) -> list[Any]:
    """A slide's name, size in bytes, and the digest of the two ends of its files: they are too large to read."""
    digest, size = hashlib.sha256(), 0
    for path in files_of(slide):
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name} {length} ".encode(errors="surrogateescape"))
            digest.update(file.read(HEAD))
            file.seek(max(length - HEAD, 0))
            digest.update(file.read(HEAD))
        size += length
    return [os.fsencode(slide.name).decode(errors="replace"), size, digest.hexdigest()]


def digest_of(tiles: Sequence[Tile]) -> str:
    """A digest of the places of tiles."""
    numbers = ((tile.top, tile.left, tile.height, tile.width) for tile in tiles)
    return hashlib.sha256(repr(list(numbers)).encode()).hexdigest()
