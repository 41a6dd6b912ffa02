"""Where files lie: names that differ in case or Unicode form between list and disk, and names for images."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from src.common.errors import InputError
from src.common.files import is_system_file
from src.common.values import plain
from src.data.id_map import check_component
from src.data.names import ENDINGS, MASK_FOLDERS, parts_of

PICTURES = re.compile(rf"\.{ENDINGS}$", re.IGNORECASE)
LAYOUT = MASK_FOLDERS | {"images"}  # folders that tell what a file is, not of which image
MOST_ENTRIES = 500_000  # of the folders below a place that are searched for a name

Key = tuple[str, ...]


class Places:
    """Finds files below folders. Each folder is listed once, where a file is not there by the exact name."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._below: dict[Path, dict[str, list[Path]]] = {}

    def find(self, root: Path, parts: Sequence[str]) -> Path | None:
        """The file or folder ``parts`` below ``root``, by exact names or else the one of like names; else ``None``."""
        exact = root.joinpath(*parts)
        if is_there(exact):
            return exact
        found = root
        for part in parts:
            place = found / part
            like = [place] if is_there(place) else self._listing(found).get(plain(part), [])
            if len(like) != 1:
                return None
            found = like[0]
        return found

    def below(self, root: Path, name: str) -> list[Path]:
        """All files of a like name anywhere below ``root``; system files and folders that are links are left out."""
        if root not in self._below:
            self._below[root] = _files_below(root)
        return self._below[root].get(plain(name), [])

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listings:
            entries = sorted(folder.iterdir()) if is_there(folder) and folder.is_dir() else []
            self._listings[folder] = _by_plain_name(entries)
        return self._listings[folder]


def _files_below(root: Path) -> dict[str, list[Path]]:
    files: list[Path] = []
    seen = 0
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        seen += len(folders) + len(names)
        if seen > MOST_ENTRIES:  # a place of that size, such as a home folder, is not meant
            return {}
        files += [Path(place, name) for name in sorted(names) if not is_system_file(name)]
    return _by_plain_name(files)


def _by_plain_name(paths: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(plain(path.name), []).append(path)
    return found


def is_there(path: Path) -> bool:
    """Whether the file exists; ``False`` also for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def checked_parts(name: str, path: Path) -> tuple[str, ...]:
    """The :func:`parts_of` a ``file_name`` that ``path`` holds.

    Raises:
        InputError: a part that is not a plain file name.
    """
    parts = parts_of(name)
    for part in parts or [name]:
        check_component(part, path)
    return parts


def key_of(folder: Path, path: Path, stem: str) -> Key:
    """What an image and its labels below ``folder`` have in common: the folders but for ``images``, …, and the stem."""
    folders = path.relative_to(folder).parts[:-1]
    return (*(part for part in folders if plain(part) not in LAYOUT), stem)


def keyed(files: Iterable[tuple[Key, Path]], what: str) -> dict[Key, Path]:
    """Files by their keys.

    Raises:
        InputError: two of one key; the second is a second ``what``.
    """
    found: dict[Key, Path] = {}
    for key, path in files:
        if found.setdefault(key, path) != path:
            raise InputError(f"{path}: is a second {what} of {key[-1]} beside {found[key]}")
    return found


def pair(images: Mapping[Key, Path], labels: Mapping[Key, Path], by_stem: bool = True) -> dict[Key, Path]:
    """The labels of each image: of the same key, else of a like one (in case and Unicode form), else of a like stem.

    Where several fit, none is taken, and no labels serve two images. Without ``by_stem`` folders must be alike.
    """
    found: dict[Key, Path] = {}
    forms: tuple[Callable[[Key], Key], ...] = (lambda key: key, lambda key: (*map(plain, key),), _plain_stem)
    for form in forms if by_stem else forms[:2]:
        waiting = _by_form((key for key in images if key not in found), form)
        used = set(found.values())
        choices = _by_form((key for key, path in labels.items() if path not in used), form)
        for like, keys in waiting.items():
            if len(keys) == len(choices.get(like, ())) == 1:
                found[keys[0]] = labels[choices[like][0]]
    return found


def _plain_stem(key: Key) -> Key:
    return (plain(key[-1]),)


def _by_form(keys: Iterable[Key], form: Callable[[Key], Key]) -> dict[Key, list[Key]]:
    found: dict[Key, list[Key]] = {}
    for key in keys:
        found.setdefault(form(key), []).append(key)
    return found
