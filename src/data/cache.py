"""A cache on disk of decoded images and label maps, as memory maps that all worker processes share.

Every file is decoded once. An entry is keyed by the identity of its files (path, size, time of change) and by what was
done to them, so a changed file is decoded again. Where the disk is full, images are decoded each time they are used.
"""

import hashlib
import math
import os
import shutil
import sys
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.data.prepared import PreparedImage, prepare
from src.data.records import Record

_VERSION = 3  # of the files below; raise it when their content changes
_STORING = threading.Lock()  # of the module, since a cache must pickle


def default_folder() -> Path:
    """The user's cache folder (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiled-mask-rcnn"


@dataclass
class ImageCache:
    """A folder of prepared images that grows to ``max_gb`` gigabytes. Threads and processes may share it.

    The folder is measured only now and then, so each process may exceed the limit by a hundredth of it.
    """

    folder: Path
    max_gb: float
    intensity: str
    scale: float
    decoded: int = field(default=0, init=False)  # images, since the cache was opened
    _full: bool = field(default=False, init=False)
    _measured: int = field(default=0, init=False)  # bytes in the folder when it was measured last
    _stored: float = field(default=math.inf, init=False)  # bytes that this process has added since

    def get(self, record: Record) -> PreparedImage:
        """A record's prepared image as memory maps; it is decoded first where it is not in the cache."""
        entry = self.folder / self._key(record)
        if not entry.is_dir():
            prepared = prepare(record, self.intensity, self.scale)
            with _STORING:
                self.decoded += 1
                is_stored = self._store(entry, prepared)
            if not is_stored:
                return prepared
        return PreparedImage(
            *(np.load(_file(entry, name), mmap_mode="r") for name in ("image", "label_map")),
            *(np.load(_file(entry, name)) for name in ("class_ids", "layers", "areas", "boxes", "checksums")),
        )

    def _key(self, record: Record) -> str:
        digest = hashlib.sha256(f"{_VERSION} {self.intensity} {self.scale!r}".encode())
        for class_id, path in [(0, record.image), *sorted(record.masks.items())]:
            state = path.stat()
            digest.update(f"{class_id} {path.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:32]

    def _store(self, entry: Path, prepared: PreparedImage) -> bool:
        """Write an entry beside its place and move it there; warn once where there is no room."""
        size = prepared.image.nbytes + prepared.label_map.nbytes
        if self._full or not self._has_room(size):
            self._give_up(f"--cache-gb {self.max_gb:g} is used up")
            return False
        temporary = self.folder / f".{entry.name}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir(parents=True)
            for name, array in vars(prepared).items():
                np.save(_file(temporary, name), array)
            temporary.replace(entry)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if entry.is_dir():  # another process was faster
                return True
            self._give_up(str(error))
            return False
        return True

    def _has_room(self, size: int) -> bool:
        """Whether ``size`` more bytes keep the folder in its limit; measuring it for each image would cost too much."""
        limit = self.max_gb * 1e9
        if self._stored + size > limit / 100:
            self._measured, self._stored = folder_bytes(self.folder), 0
        self._stored += size
        return self._measured + self._stored <= limit

    def _give_up(self, reason: str) -> None:
        if not self._full and self.max_gb > 0:
            print(f"cache {self.folder}: {reason}; further images are decoded each time they are used", file=sys.stderr)
        self._full = True


def _file(entry: Path, name: str) -> Path:
    """The file of one of a prepared image's arrays; caches of earlier versions hold class ids as categories."""
    return entry / f"{'categories' if name == 'class_ids' else name}.npy"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a cache folder; files that another process removes meanwhile are skipped."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total
