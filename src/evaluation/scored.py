"""Results with the ground truth that they are scored against, both in the ids of this program's classes."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import companion
from src.data.classes import CellClass, load_classes
from src.data.id_map import read_id_map
from src.evaluation.categories import Category, FileIds, match_classes
from src.evaluation.ground_truth import TruthSettings, read_ground_truth
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import check_results, read_results, sizes_of


@dataclass(frozen=True)
class ScoredFiles:
    """The files of a score: the results, the ground truth, the id map and the classes that a flag names."""

    pred: str
    gt: str
    id_map: Path | None = None
    classes_flag: str | None = None


def read_scored(
    files: ScoredFiles, classes: Sequence[CellClass], settings: TruthSettings, names: Collection[str] | None = None
) -> tuple[list[ImageTruth], list[dict[str, Any]]]:
    """The images that are to be scored, of ``names`` alone if given, and their result entries, which are checked.

    Raises:
        InputError: a file is damaged or malformed, or one does not fit the other.
    """
    entries = read_results(files.pred)
    truth = read_ground_truth(files.gt, len(classes), files.id_map, names, settings, sizes_of(entries))
    if not files.classes_flag:
        truth = replace(truth, images=with_classes_of_folder(truth.images, Path(files.gt), classes))
    entries, note = in_class_ids(entries, truth.file_ids, classes, files)
    if note:
        print(note, file=sys.stderr)
    known = read_id_map(files.id_map) if files.id_map else [image.entry for image in truth.images]
    check_results(entries, known, len(classes), files.pred)
    scored = {image.id for image in truth.images}  # a part of a split may be fewer images than the id map has
    return truth.images, [entry for entry in entries if entry["image_id"] in scored]


def with_classes_of_folder(
    images: Sequence[ImageTruth], folder: Path, classes: Sequence[CellClass]
) -> list[ImageTruth]:
    """Images whose cells have the ids of ``classes`` by the names that the folder's own ``classes.json`` gives them.

    Raises:
        InputError: the folder's cells are of a class that is none of these.
    """
    path = folder / "classes.json"
    own = load_classes(path) if folder.is_dir() and path.is_file() else tuple(classes)
    if [cell_class.name for cell_class in own] == [cell_class.name for cell_class in classes]:
        return list(images)
    used = {cell.class_id for image in images for cell in image.instances}
    categories = [Category(cell_class.id, cell_class.name, "") for cell_class in own]
    numbers, note = match_classes(categories, used, classes, path)
    if note:
        print(note, file=sys.stderr)
    return [
        replace(image, instances=[replace(cell, class_id=numbers[cell.class_id]) for cell in image.instances])
        for image in images
    ]


def in_class_ids(
    entries: list[dict[str, Any]], file_ids: FileIds, classes: Sequence[CellClass], files: ScoredFiles
) -> tuple[list[dict[str, Any]], str]:
    """Result entries with class ids for category ids, and a line where these are not known to be class ids.

    Results made for a COCO file have its category ids, by the format's definition. This program's have class ids, and
    an id map or classes lie beside them. Results whose classes a flag gives have class ids if all their ids can be.

    Raises:
        InputError: the ids are those of the file, and one of them is of a category that is no class.
    """
    used = {entry["category_id"] for entry in entries if type(entry.get("category_id")) is int}
    are_classes = used <= set(range(1, len(classes) + 1))
    if not file_ids.names or all(file_ids.numbers.get(number) == number for number in used):
        return entries, ""
    if not used <= file_ids.names.keys():
        if not are_classes:
            _refuse_strange(entries, file_ids, classes, files)
        return entries, ""
    is_own = any(companion(files.pred, what).is_file() for what in ("classes", "id-map"))
    if are_classes and is_own:
        return entries, ""
    matches = _matches(used, file_ids, classes)
    if are_classes and files.classes_flag:
        return entries, (
            f"{files.pred}: category ids were taken as those of --classes {files.classes_flag}, though {files.gt} has"
            f" others ({matches}); with classes.json beside the results instead of the flag they are the latter's"
        )
    for index, entry in enumerate(entries):
        number = entry.get("category_id")
        if type(number) is int and number not in file_ids.numbers:
            raise InputError(
                f"{files.pred}: entry {index}: category_id {number} is {file_ids.names[number]} in {files.gt}, which is"
                " none of the classes (see --classes)"
            )
    changed = [
        {**entry, "category_id": file_ids.numbers[number]} if type(number := entry.get("category_id")) is int else entry
        for entry in entries
    ]
    hint = "; where they are those of the classes, name these with --classes" if are_classes else ""
    return changed, f"{files.pred}: category ids were taken as those of {files.gt}: {matches}{hint}"


def _refuse_strange(
    entries: Sequence[dict[str, Any]], file_ids: FileIds, classes: Sequence[CellClass], files: ScoredFiles
) -> None:
    """Refuse ids that are neither all class ids nor all category ids, by the first that is no category id."""
    for index, entry in enumerate(entries):
        number = entry.get("category_id")
        if type(number) is int and number not in file_ids.names:
            ids = ", ".join(map(str, sorted(file_ids.names)))
            raise InputError(
                f"{files.pred}: entry {index}: category_id {number} is not among the ids {ids} of {files.gt}, and"
                f" others are not in 1..{len(classes)}, as class ids are (see --classes)"
            )


def _matches(used: set[int], file_ids: FileIds, classes: Sequence[CellClass]) -> str:
    """Which category of the file is which class, in words."""
    names: Mapping[int, str] = {cell_class.id: f"{cell_class.id} {cell_class.name}" for cell_class in classes}
    return ", ".join(f"{number} is {names.get(file_ids.numbers.get(number, 0), 'none')}" for number in sorted(used))
