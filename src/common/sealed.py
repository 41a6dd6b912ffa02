"""A digest that travels inside a zip file, as its comment, so that any later change to any byte shows.

Other programs read such a file as before: to them the comment means nothing.
"""

import hashlib
import os
from pathlib import Path

DIGEST_LENGTH = 64  # hexadecimal digits of SHA-256
_CHUNK = 1 << 20


def seal(path: Path) -> None:
    """Add the digest to a zip file that has no comment yet."""
    with path.open("rb+") as file:
        file.seek(-2, os.SEEK_END)  # a zip file ends with the length of its comment
        if file.read() != b"\0\0":
            raise ValueError(f"{path} is no zip file without a comment")
        file.seek(-2, os.SEEK_END)
        file.write(DIGEST_LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def is_intact(path: Path) -> bool:
    """Whether a file is sealed and every byte of it is as it was then."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGEST_LENGTH
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.hexdigest().encode()
