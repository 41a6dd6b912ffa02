"""Faults in a data folder, file by file."""

from collections.abc import Iterable
from pathlib import Path

from src.common.errors import InputError
from src.common.files import is_system_file
from src.data.masks import read_mask
from src.data.pictures import QUARTER_TURNS, exif_orientation, read_picture
from src.data.prepared import prepare
from src.data.records import IMAGE_NAME, MASK_NAME, find_masks, is_known, read_record
from src.inspection.facts import CellFacts, facts_of


def check(
    folders: Iterable[tuple[str, Path]], class_count: int, intensity: str = "full", split_pieces: bool = False
) -> tuple[list[CellFacts], list[str]]:
    """Decode every image, given by name and folder, with its masks: facts about usable images, and a line per fault."""
    facts: list[CellFacts] = []
    problems: list[str] = []
    for name, folder in folders:
        try:
            record = read_record(folder, class_count, name=name)
            facts.append(facts_of(record, prepare(record, intensity, 1.0, split_pieces)))
        except InputError as error:
            faults = faults_of_files(folder, class_count, intensity)
            problems += faults if str(error) in faults else [*faults, str(error)]
        problems += [f"{path}: is not read; expected image.tif, class1.tif, …" for path in unexpected_files(folder)]
    return facts, problems


def faults_of_files(folder: Path, class_count: int, intensity: str) -> list[str]:
    """What is wrong with each file of an image's folder, taken by itself; of masks also against a sound image."""
    faults, sizes = [], list[tuple[int, ...]]()
    for path in sorted(folder.iterdir(), key=lambda path: (not IMAGE_NAME.fullmatch(path.name), path.name)):
        try:
            if IMAGE_NAME.fullmatch(path.name):
                size = read_picture(path, intensity).shape[:2]
                sizes = [size, size[::-1]] if exif_orientation(path) in QUARTER_TURNS else [size]
            elif MASK_NAME.fullmatch(path.name):
                find_masks(folder, [path.name], class_count)
                found = read_mask(path).shape
                if sizes and found not in sizes:
                    height, width = sizes[0]
                    faults.append(f"{path}: is {found[0]} x {found[1]} px, but its image is {height} x {width} px")
        except InputError as error:
            faults.append(str(error))
    return faults


def unexpected_files(folder: Path) -> list[Path]:
    """Files of an image's folder that nothing reads, such as a mask of a mistyped name."""
    return [path for path in sorted(folder.iterdir()) if not is_system_file(path.name) and not is_known(path.name)]
