"""A cache on disk of decoded images and label maps, as memory maps that all worker processes share.

Every file is decoded once. An entry is keyed by the identity of its files (path, size, time of change) and by what was
done to them, so a changed file is decoded again. Where the disk is full or the folder cannot be written, images are
decoded each time they are used. Beside the entries lies one file of facts per data folder, so that a training that
starts opens no image; facts stay known where an entry had to make room.
"""

import hashlib
import math
import os
import shutil
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.data.image_facts import ImageFacts, facts_of, load_facts, save_facts
from src.data.prepared import PreparedImage, prepare
from src.data.records import ImageFiles, Record

_VERSION = 4  # of the files below; raise it when their content changes
_STORING = threading.Lock()  # of the module, since a cache must pickle
_IN_USE_S = 600.0  # an entry that was used this recently is never removed: another run may have it open
_SPARE = 0.05  # of the limit: room that is made at once, so that the folder is not searched for each image


def default_folder() -> Path:
    """The user's cache folder (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "tiled-mask-rcnn"


@dataclass
class ImageCache:
    """A folder of prepared images of up to ``max_gb`` gigabytes. Threads and processes may share it.

    Where it is full, entries that were not used for the longest time are removed, but none that this run has used and
    none that another may have open. The folder is measured only now and then, so each process may exceed the limit by a
    hundredth of it.
    """

    folder: Path
    max_gb: float
    intensity: str
    scale: float
    split_pieces: bool = False  # each piece of a cell is a cell of its own
    decoded: int = field(default=0, init=False)  # images, since the cache was opened
    opened: float = field(default_factory=time.time, init=False)  # when, in seconds since the epoch
    _full: bool = field(default=False, init=False)
    _measured: int = field(default=0, init=False)  # bytes in the folder when it was measured last
    _stored: float = field(default=math.inf, init=False)  # bytes that this process has added since

    def get(self, record: Record) -> PreparedImage:
        """A record's prepared image as memory maps; it is decoded first where it is not in the cache."""
        entry = self.entry(record.files)
        found = self.load(entry)
        if found is not None:
            return found
        prepared = prepare(record, self.intensity, self.scale, self.split_pieces)
        with _STORING:
            self.decoded += 1
            is_stored = self._store(entry, prepared)
        return (self.load(entry) if is_stored else None) or prepared

    def load(self, entry: Path) -> PreparedImage | None:
        """The prepared image of an entry as memory maps; ``None`` where it is not in the cache."""
        try:
            maps = (np.load(_file(entry, name), mmap_mode="r") for name in ("image", "label_map"))
            arrays = (np.load(_file(entry, name)) for name in ("class_ids", "layers", "areas", "boxes", "checksums"))
            prepared = PreparedImage(*maps, *arrays)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self.mark_used(entry)
        return prepared

    def mark_used(self, entry: Path) -> None:
        """Note that an entry is in use, by its time of change."""
        with suppress(OSError):  # of a folder that may only be read, or that another run has removed
            os.utime(entry)

    def facts(self, record: Record) -> ImageFacts:
        """The facts about a record's image, which is decoded where it is not in the cache."""
        return facts_of(self.entry(record.files).name, record, self.get(record))

    def load_facts(self, data_path: Path) -> ImageFacts:
        """What the cache knows of the images of a data folder; some may have changed or gone since."""
        path = self._facts_file(data_path)
        self.mark_used(path)
        return load_facts(path)

    def save_facts(self, data_path: Path, facts: ImageFacts) -> None:
        """Keep facts about the images of a data folder, in place of those that were kept before."""
        if self.max_gb > 0:
            with suppress(InputError):  # without them the next run computes them again
                save_facts(self._facts_file(data_path), facts)

    def _key_start(self) -> str:
        """What each key begins with: the version, and how files are read."""
        return f"{_VERSION} {self.intensity} {self.scale!r}{' pieces' if self.split_pieces else ''}"

    def _facts_file(self, data_path: Path) -> Path:
        name = hashlib.sha256(f"{self._key_start()} {data_path.resolve()}".encode()).hexdigest()
        return self.folder / f"{name[:32]}.npz"

    def entry(self, files: ImageFiles) -> Path:
        """The folder that an image has in the cache, whether or not it is there."""
        digest = hashlib.sha256(self._key_start().encode())
        folder, real_folder = str(files.folder), _real_folder(files.folder)
        regions = [("ambiguous", files.ambiguous)] if files.ambiguous else []
        for class_id, name in [(0, files.image_name), *files.mask_names.items(), *regions]:
            real, state = f"{real_folder}{os.sep}{name}", os.lstat(f"{folder}{os.sep}{name}")
            if stat.S_ISLNK(state.st_mode):
                path = files.folder / name
                real, state = str(path.resolve()), path.stat()
            digest.update(f"{class_id} {real} {state.st_size} {state.st_mtime_ns}\n".encode())
        return self.folder / digest.hexdigest()[:32]

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
        """Whether ``size`` more bytes keep the folder in its limit, if need be without entries of other runs."""
        limit = self.max_gb * 1e9
        if self._stored + size > limit / 100:  # to measure the folder for each image would take too long
            self._measured, self._stored = folder_bytes(self.folder), 0
        if self._measured + self._stored + size > limit:
            unused_since = min(time.time() - _IN_USE_S, self.opened)
            removed = remove_unused(self.folder, unused_since, int(size + _SPARE * limit))
            self._measured -= removed
        self._stored += size
        return self._measured + self._stored <= limit

    def _give_up(self, reason: str) -> None:
        if not self._full and self.max_gb > 0:
            print(f"cache {self.folder}: {reason}; further images are decoded each time they are used", file=sys.stderr)
        self._full = True


def _real_folder(folder: Path) -> str:
    """An image folder without symbolic links in its path; the folder around it, which many share, is looked up once."""
    if folder.is_symlink() or folder.name in ("", ".."):
        return str(folder.resolve())
    return f"{_resolved(folder.parent.absolute())}{os.sep}{folder.name}"


@lru_cache(maxsize=1024)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _file(entry: Path, name: str) -> Path:
    """The file of one of a prepared image's arrays; caches of earlier versions hold class ids as categories."""
    return entry / f"{'categories' if name == 'class_ids' else name}.npy"


def remove_unused(folder: Path, unused_since: float, wanted: int) -> int:
    """Remove entries of a cache folder that were not used since a time, the longest unused first.

    Args:
        folder: the cache.
        unused_since: seconds since the epoch; entries used later stay.
        wanted: bytes after which no more are removed.

    Returns:
        The bytes that were removed.
    """
    removed = 0
    for used, entry in sorted(_entries(folder)):
        if used >= unused_since or removed >= wanted:
            break
        hidden = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:8]}")
        with suppress(OSError):  # another process removes it, too, or the folder may only be read
            entry.rename(hidden)  # at once, so that no process finds half an entry
            if hidden.is_dir():
                size = folder_bytes(hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            else:
                size = hidden.stat().st_size
                hidden.unlink()
            removed += size
    return removed


def _entries(folder: Path) -> Iterator[tuple[float, Path]]:
    """When each entry of a cache folder, its file of facts, or the rest of a killed process was used last."""
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(OSError):
                yield path.stat().st_mtime, path


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a cache folder; files that another process removes meanwhile are skipped."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    if file.is_dir(follow_symlinks=False):
                        folders.append(file.path)
                    else:
                        total += file.stat().st_size
    return total
