"""The image folders of a data folder, which may lie in folders of their own, such as one for each slide."""

import os
from collections.abc import Sequence
from pathlib import Path

from src.common.errors import InputError
from src.common.values import plain
from src.data.names import folder_names
from src.data.records import OWN_FILES, SAMPLE_HINT, is_known, list_folder

MOST_LEVELS = 4  # of folders from a data folder down to an image folder
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})  # of a data set


def image_folders(data_path: str | Path) -> dict[str, Path]:
    """The image folders of a data folder by the names of their images, sorted.

    An image's name is that of its folder. Where image folders lie in folders of their own, names are made distinct by
    these (see :func:`src.data.names.folder_names`).

    Raises:
        InputError: there are none, or they are those of several data folders.
    """
    names = list_folder(Path(data_path), _missing_data(data_path), os.DirEntry.is_dir)
    if not names:
        raise InputError(f"{data_path}: holds no image folders (<name>/image.tif); {SAMPLE_HINT}")
    return named_folders(Path(data_path), names)


def named_folders(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """The image folders among some folders of ``root`` and below these; a folder without any below is one itself."""
    folders = [folder for name in names for folder in (_image_folders_in(root / name, 1) or [root / name])]
    places = [folder.relative_to(root) for folder in folders]
    refuse_data_folders(root, [place.parent for place in places])
    return dict(sorted(zip(folder_names(places), folders, strict=True)))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without those of the system."""
    return [folder / name for name in list_folder(folder, f"{folder}: no such folder", os.DirEntry.is_dir)]


def refuse_data_folders(root: Path, groups: Sequence[Path]) -> None:
    """Refuse to read several data folders as one: folders below ``root`` that are parts, or have lists of their own."""
    for folder in sorted({root / part for group in groups for part in (group, *group.parents)} - {root}):
        own = sorted(name for name in OWN_FILES if (folder / name).is_file())
        if own or plain(folder.name) in PARTS:
            raise InputError(
                f"{folder}: has no image.tif but folders with images: did you mean {folder} itself? It is a data folder"
                f" by its {own[0] if own else 'name'}, and these are read one at a time"
            )


def _image_folders_in(folder: Path, level: int) -> list[Path]:
    """The folder where it holds an image or a mask, else the image folders below; empty without any."""
    if _is_image_folder(folder):
        return [folder]
    if level == MOST_LEVELS:
        return []
    found = [(child, _image_folders_in(child, level + 1)) for child in subfolders(folder)]
    if not any(below for _, below in found):
        return []
    return [each for child, below in found for each in (below or [child])]  # one without an image is refused later


def _is_image_folder(folder: Path) -> bool:
    if (folder / "image.tif").is_file():  # saves a look at the whole folder, of which there may be many
        return True
    return any(map(is_known, list_folder(folder, f"{folder}: no such folder")))


def _missing_data(data_path: str | Path) -> str:
    return (
        f"{data_path}: no such folder; the homework's data belong at ./hw3-data-release/train/<name>/image.tif with"
        f" class1.tif … beside it, or {SAMPLE_HINT} and name the folder DIR/train"
    )
