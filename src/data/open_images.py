"""Prepared images of many records, of which few are open at a time."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.cache import ImageCache
from src.data.prepared import PreparedImage
from src.data.records import Record

MOST_MAPPED = 24  # images; each holds two file descriptors, of which a process may have 256 in all on macOS
MOST_DECODED = 8  # images that the cache has no room for, which lie in memory
_MARK_EVERY_S = 60.0


@dataclass
class _Open:
    image: PreparedImage
    entry: Path | None  # of the cache; None for an image that lies in memory
    marked: float  # when it was last marked as used, on time.monotonic


class OpenImages:
    """The prepared images of records by index; only the latest stay open, so that no limit on open files is reached."""

    def __init__(self, records: Sequence[Record], cache: ImageCache) -> None:
        self.records, self.cache = records, cache
        self._open: OrderedDict[int, _Open] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned worker process, without the open images: the worker opens them itself."""
        return {**vars(self), "_open": OrderedDict()}

    def __getitem__(self, index: int) -> PreparedImage:
        """The prepared image of ``records[index]``, which is decoded where it is not in the cache."""
        found = self._open.get(index)
        if found is None:
            found = self._open[index] = self._load(index)
            self._close_others(found)
        self._open.move_to_end(index)
        if found.entry and time.monotonic() - found.marked > _MARK_EVERY_S:
            self.cache.mark_used(found.entry)
            found.marked = time.monotonic()
        return found.image

    def _load(self, index: int) -> _Open:
        record = self.records[index]
        image = self.cache.get(record)
        is_mapped = isinstance(image.image, np.memmap)
        entry = self.cache.entry(record.files) if is_mapped else None
        return _Open(image, entry, time.monotonic())

    def _close_others(self, latest: _Open) -> None:
        """Close the image that was not used for the longest time, of those that are held as ``latest`` is."""
        is_mapped = latest.entry is not None
        alike = [index for index, other in self._open.items() if (other.entry is not None) == is_mapped]
        if len(alike) > (MOST_MAPPED if is_mapped else MOST_DECODED):
            del self._open[alike[0]]
