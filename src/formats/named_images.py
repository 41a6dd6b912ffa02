"""Finding the images that a file of labels names, whose folders may be those of another machine."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.common.errors import InputError, counted
from src.formats.imported import Source
from src.formats.places import Places, checked_parts, is_there


def find_images(names: Iterable[str], path: Path, images: Path | None, source: Source) -> dict[str, Path]:
    """The image file of each name that the file ``path`` holds.

    It is looked for below ``images``, or else below the folder of ``path`` and the one above, never outside of these.

    Raises:
        InputError: an image that is not there, or of which there is one file for two names.
    """
    roots = roots_of(path, images)
    found: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    places, elsewhere = Places(), list[Path]()
    for name in names:
        file = find_named(name, path, roots, places)
        if file is None:
            folders = [root for root in roots if root != path.absolute().parent / "images"]
            file = _somewhere_below(checked_parts(name, path)[-1], folders, places, path)
            elsewhere.extend([file] if file else [])
        if file is None:
            raise InputError(f"{path}: names {name}, which is not in {roots[0]} (see --images)")
        owner = owners.setdefault(file, name)
        if owner != name:
            raise InputError(f"{path}: names {owner} and {name}, but there is only {file} for both (see --images)")
        found[name] = file
    if elsewhere:
        source.lines.append(
            f"found in other folders than named: {counted(len(elsewhere), 'image')}, such as {elsewhere[0]}"
        )
    return found


def roots_of(path: Path, images: Path | None) -> list[Path]:
    """The folders below which the images of a file of labels are looked for, the likeliest first."""
    folder = path.absolute().parent
    return [images.absolute()] if images else [folder, folder / "images", folder.parent]


def find_named(name: str, path: Path, roots: Sequence[Path], places: Places) -> Path | None:
    """The image that ``path`` names, by the name and as many of its folders as there are; ``None`` without one."""
    return _by_way_up(name, path.absolute().parent, roots, places) or _by_folders(
        checked_parts(name, path), roots, places
    )


def _by_way_up(name: str, folder: Path, roots: Sequence[Path], places: Places) -> Path | None:
    """The file of a name with ``..``, seen from ``--images`` or the JSON file, where it lies in what may be read."""
    name = name.replace("\\", "/")
    if ".." not in name.split("/"):
        return None
    allowed = [*roots, folder, folder.parent]
    for start in (roots[0], folder):
        place = Path(os.path.normpath(start / name))
        for root in allowed:
            if place != root and place.is_relative_to(root):
                file = places.find(root, place.relative_to(root).parts)
                if file:
                    return file
    return None


def _by_folders(parts: Sequence[str], roots: Sequence[Path], places: Places) -> Path | None:
    """The file of as many of a name's folders as there are, which may be those of another machine."""
    tries = [(root, parts[start:]) for start in range(len(parts)) for root in roots]
    exact = next((file for root, rest in tries if is_there(file := root.joinpath(*rest))), None)
    return exact or next(filter(None, (places.find(root, rest) for root, rest in tries)), None)


def _somewhere_below(name: str, roots: Sequence[Path], places: Places, path: Path) -> Path | None:
    """The only file of a name anywhere below a place, but not in a folder with a list of its own."""
    for root in roots:
        found = [file for file in places.below(root, name) if not _has_other_list(file.parent, path)]
        if len(found) > 1:
            raise InputError(f"{path}: names {name}, of which {found[0]} and {found[1]} may be meant (see --images)")
        if found:
            return found[0]
    return None


def _has_other_list(folder: Path, path: Path) -> bool:
    """Whether a folder holds another JSON file than ``path``, as those of other parts of a data set do."""
    return any(file.suffix.lower() == ".json" and file.absolute() != path.absolute() for file in folder.iterdir())
