"""A digest of what a data folder shows, by which two copies of a data set are compared."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from src.data.masks import read_mask
from src.data.records import read_record


def pixel_digest(folders: Mapping[str, Path], class_count: int, intensity: str = "full") -> str:
    """SHA-256, in hexadecimal, of the decoded images and masks of image folders, whatever their files' encoding.

    Hashed are, in order, each image's name, its image as uint8 RGB, and by class the mask's number and its ids, which
    are counted from 1 on; before each array comes its shape.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, folder in folders.items():
        record = read_record(folder, class_count, name=name)
        digest.update(f"{record.name}\n".encode())
        _add(digest, record.read(intensity))
        for class_id, path in record.masks.items():
            digest.update(f"class {class_id}\n".encode())
            _add(digest, read_mask(path).astype("<i4"))
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", array: np.ndarray) -> None:
    digest.update(f"{array.shape}\n".encode())
    digest.update(array.tobytes())
