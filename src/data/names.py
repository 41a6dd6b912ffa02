"""Names of images, which lists and disks may write with another ending, or in another case or Unicode form."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from src.common.errors import InputError, nearest
from src.common.values import plain

IMAGE_SUFFIX = re.compile(r"\.(tiff?|png|jpe?g|bmp|webp|gif|jp2|svs)$", re.IGNORECASE)
OME_SUFFIX = re.compile(r"\.ome$", re.IGNORECASE)


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    return IMAGE_SUFFIX.sub("", name)


def plain_names(file_names: Sequence[str]) -> list[str]:
    """A plain name for each image: its own without the ending, or with its folders where that is not unique."""
    paths = [_path(name) for name in file_names]
    stems = Counter(stem(path.name) for path in paths)
    return [
        stem(path.name) if stems[stem(path.name)] == 1 else _joined(name)
        for name, path in zip(file_names, paths, strict=True)
    ]


class ImageNames:
    """The names of some images, among which an image is looked for.

    An equal name fits best, then one that is equal without the ending, then one that differs in case or Unicode form
    alone.
    """

    def __init__(self, names: Iterable[str], file_names: Iterable[str] = ()) -> None:
        """Take the names, and of files in folders also the ``file_names`` with these, in the same order."""
        self._names, files = list(names), list(file_names)
        self._steps: list[tuple[Callable[[str], str], dict[str, list[int]]]] = [
            (str, _index(files)),
            (str, _index(self._names)),
            (stem, _index(self._names)),
            (stem, _index(map(stem, self._names))),
            (_like, _index(map(_like, self._names))),
            (_like, _index(_like(_joined(name)) for name in files)),
        ]

    def find(self, name: str, source: object) -> int | None:
        """The place of an image; ``None`` without one. A name that fits two is an error, which names ``source``."""
        for form, places_of in self._steps:
            places = places_of.get(form(name), [])
            if len(places) > 1:
                first, second = (self._names[place] for place in places[:2])
                raise InputError(f"{source}: {name} fits two images, {first} and {second}")
            if places:
                return places[0]
        return None

    def find_all(self, names: Iterable[str], source: object, missing: str) -> list[int]:
        """The place of each image; an error where one is ``missing``, as it says, or where two names are of one."""
        owners: dict[int, str] = {}
        for name in names:
            place = self.find(name, source)
            if place is None:
                raise InputError(f"{source}: {missing} {name}{nearest(name, sorted(self._names))}")
            if owners.setdefault(place, name) != name:
                raise InputError(f"{source}: {owners[place]} and {name} both name {self._names[place]}")
        return list(owners)


def _index(names: Iterable[str]) -> dict[str, list[int]]:
    places = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    return dict(places)


def _like(name: str) -> str:
    """A name in the form in which all that people take for the same are equal."""
    return plain(OME_SUFFIX.sub("", stem(name)))


def _path(file_name: str) -> PurePosixPath:
    return PurePosixPath(file_name.replace("\\", "/"))


def _joined(file_name: str) -> str:
    """The name of a file with those of its folders before it."""
    path = _path(file_name)
    return "_".join([*(part for part in path.parts[:-1] if part != "/"), stem(path.name)])
