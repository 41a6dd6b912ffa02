"""Check a data folder: read every file, list all that is wrong, say what the data are like and what they ask for."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from src.common.errors import run
from src.config.command import Parser
from src.data.classes import classes_of_data
from src.data.records import image_folders
from src.inspection.advice import ImageCells, advise
from src.inspection.faults import check
from src.inspection.manifest import NAME, verify, write_manifest
from src.inspection.page import write_html
from src.inspection.summary import class_rows, describe, notes_on


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it. Exit code 1 where something is wrong with the data."""
    flags = _parser().parse_args(arguments)
    folder = Path(flags.folder)
    classes = classes_of_data(flags.classes, folder)

    def progress(paths: list[Path]) -> Iterable[Path]:
        return tqdm(paths, "digest", unit="file", leave=False, disable=None)

    folders = image_folders(folder)
    changed = verify(folder, progress) if flags.verify else []
    bar = tqdm(folders, "check", unit="image", leave=False, disable=None)
    facts, problems = check(bar, len(classes), flags.max_pixels)
    problems += changed
    images = [ImageCells(image.height, image.width, image.boxes) for image in facts]
    advice = advise(images) if any(len(image.categories) for image in facts) else None
    if facts:
        rows, notes = class_rows(facts, classes), notes_on(facts, classes, advice)
        print(describe(rows, notes, advice))
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{folder}: {f'{len(problems)} problems' if problems else 'nothing is wrong'}")
    if flags.write_manifest:
        print(f"wrote {folder / NAME}: {write_manifest(folder, progress)} files")
    if flags.html and facts:
        advised = advice.flags() if advice else "no cells, no advice"
        content = {"rows": rows, "notes": notes, "flags": advised, "problems": problems}
        write_html(Path(flags.html), folder, facts, classes, flags.max_pixels, content)
    if flags.html:
        print(f"wrote {flags.html}" if facts else f"{flags.html}: not written, because no image could be read")
    if problems:
        sys.exit(1)


def _parser() -> Parser:
    example = "python -m src.check data/train --html check.html\n  python -m src.check data/train --write-manifest"
    parser = Parser(__doc__, example, "python -m src.check")
    parser.add_argument("folder", metavar="DIR", help="training folder: <name>/image.tif with class1.tif … classK.tif")
    parser.add_classes("in DIR")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots and a contact sheet, too")
    parser.add_max_pixels()
    manifest = parser.add_mutually_exclusive_group()
    manifest.add_argument("--write-manifest", action="store_true", help="keep every file's digest in DIR/manifest.json")
    manifest.add_argument("--verify", action="store_true", help="compare every file with DIR/manifest.json")
    return parser


if __name__ == "__main__":
    run(main)
