"""Check a data folder: read every file, list all that is wrong, describe the data and suggest flags for training.

python -m src.check data/train --html check.html
python -m src.check data/train --write-manifest
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, counted, run_command
from src.common.limits import DEFAULT_MAX_PIXELS
from src.common.progress import ProgressBar
from src.config.command import parse
from src.config.flags import inherited, option
from src.config.settings import ImageSettings, MachineSettings
from src.data.classes import classes_of_data
from src.data.folders import image_folders
from src.inspection.advice import ImageCells, advise
from src.inspection.facts import classes_in
from src.inspection.faults import check
from src.inspection.manifest import NAME, verify, write_manifest
from src.inspection.page import write_html
from src.inspection.pixels import pixel_digest
from src.inspection.summary import class_rows, describe, notes_on


@dataclass(frozen=True)
class CheckConfig:
    """The check."""

    folder: str = option(
        "", "training folder: <name>/image.tif with class1.tif … classK.tif", name="DIR", required=True
    )
    classes: str | None = option(None, "JSON of classes; absent: that in DIR, else the homework's", metavar="FILE")
    html: str | None = option(None, "write a page with plots and a contact sheet, too", metavar="FILE")
    intensity: str = inherited(ImageSettings, "intensity", "full")
    split_pieces: bool = inherited(ImageSettings, "split_pieces", False)
    max_pixels: int = inherited(MachineSettings, "max_pixels", DEFAULT_MAX_PIXELS)
    write_manifest: bool = option(False, f"keep every file's digest in DIR/{NAME}")
    digest: bool = option(False, "print a digest of the decoded images and masks, whatever their files' encoding")
    verify: bool = option(False, f"compare every file with DIR/{NAME}")


def check_flags(config: CheckConfig) -> None:
    """Refuse flags that contradict each other."""
    if config.write_manifest and config.verify:
        raise InputError("--verify: not allowed with --write-manifest")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Exit code 1 where something is wrong with the data."""
    flags = parse(CheckConfig, __doc__, check_flags, arguments)
    folder = Path(flags.folder)
    classes = classes_of_data(flags.classes, folder)

    folders = image_folders(folder)
    changed = verify(folder) if flags.verify else []
    facts, problems = check(ProgressBar(folders.items(), "check"), len(classes), flags.intensity, flags.split_pieces)
    problems += changed
    shown = classes_in(facts, classes)
    images = [ImageCells(image.height, image.width, image.boxes) for image in facts]
    advice = advise(images) if any(len(image.class_ids) for image in facts) else None
    if facts:
        rows, notes = class_rows(facts, shown), notes_on(facts, shown, advice)
        print(describe(rows, notes, advice))
    for problem in problems:
        print("problem: " + problem.replace("\n", "\\n"))  # file names may hold any character
    print(f"{folder}: {counted(len(problems), 'problem') if problems else 'no problems found'}")
    if flags.digest and not problems:
        print(f"pixels: {pixel_digest(folders, len(classes), flags.intensity)}")
    if flags.write_manifest:
        print(f"wrote {folder / NAME}: {counted(write_manifest(folder), 'file')}")
    if flags.html and facts:
        advised = advice.flags() if advice else "no cells, no advice"
        content = {"rows": rows, "notes": notes, "flags": advised, "problems": problems}
        write_html(Path(flags.html), folder, facts, shown, content, flags.intensity, flags.split_pieces)
    if flags.html:
        print(f"wrote {flags.html}" if facts else f"{flags.html}: not written, because no image could be read")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
