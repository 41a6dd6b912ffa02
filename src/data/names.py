"""Names of images, which lists and disks may write with another ending, or in another case or Unicode form."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from src.common.errors import InputError, nearest
from src.common.values import plain

PICTURE_ENDINGS = r"(?:png|jpe?g|bmp|webp)"  # of images that are no TIFF
ENDINGS = rf"(?:tiff?|{PICTURE_ENDINGS})"  # of all images and masks that are read
MASK_FOLDERS = frozenset({"masks", "labels"})  # names of folders that tell what their files are
IMAGE_SUFFIX = re.compile(r"\.(tiff?|png|jpe?g|bmp|webp|gif|jp2|svs)$", re.IGNORECASE)
OME_SUFFIX = re.compile(r"\.ome$", re.IGNORECASE)


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    return IMAGE_SUFFIX.sub("", name)


def plain_names(file_names: Sequence[str]) -> list[str]:
    """A plain name for each image of a list, as :func:`distinct_names` makes them."""
    return distinct_names([PurePath(*parts_of(name)) for name in file_names])


def distinct_names(paths: Sequence[PurePath]) -> list[str]:
    """A plain name for each image, none like another: its own without the ending where that is unique.

    Else its folders become part of it, then its ending, and at last a number, in the order of ``paths``.
    """
    return _distinct(
        [stem(path.name) for path in paths], [[f(path) for path in paths] for f in (_with_folders, _with_ending)]
    )


def folder_names(folders: Sequence[PurePath]) -> list[str]:
    """As :func:`distinct_names`, for images that are folders, whose names have no ending.

    Folders that all lie in one keep their names, whatever these are.
    """
    if all(len(folder.parts) == 1 for folder in folders):
        return [folder.name for folder in folders]
    return _distinct(
        [folder.name for folder in folders], [["_".join([*_parents(folder), folder.name]) for folder in folders]]
    )


def _distinct(names: list[str], longer: Sequence[Sequence[str]]) -> list[str]:
    """``names`` made distinct by one of the lists of ``longer`` names, or else by a number."""
    taken = {name for name, count in Counter(map(plain, names)).items() if count == 1}
    waiting = [index for index, name in enumerate(names) if plain(name) not in taken]
    for of_all in longer:
        for index in waiting:
            names[index] = of_all[index]
        counts = Counter(plain(names[index]) for index in waiting)
        is_free = {name for name, count in counts.items() if count == 1 and name not in taken}
        waiting = [index for index in waiting if plain(names[index]) not in is_free]
        taken |= is_free
    for index in waiting:
        number, name = 1, names[index]
        while plain(names[index]) in taken:
            number += 1
            names[index] = f"{name}_{number}"
        taken.add(plain(names[index]))
    return names


def _with_folders(path: PurePath) -> str:
    return "_".join([*_parents(path), stem(path.name)])


def _parents(path: PurePath) -> list[str]:
    return [part.replace(":", "") for part in path.parts[:-1] if part.strip("/\\.")]


def _with_ending(path: PurePath) -> str:
    return _with_folders(path) + "_" * bool(path.suffix) + path.suffix[1:]


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


def parts_of(file_name: str) -> tuple[str, ...]:
    """The folders and the name of a file, with either slash, without a drive.

    ``..`` leads up as far as the name itself goes down; what leads up beyond that is left out.
    """
    normal = posixpath.normpath(re.sub(r"^[a-zA-Z]:", "", file_name).replace("\\", "/"))
    return tuple(part for part in normal.split("/") if part not in ("", ".", ".."))


def _joined(file_name: str) -> str:
    """The name of a file with those of its folders before it."""
    return _with_folders(PurePath(*parts_of(file_name)))
