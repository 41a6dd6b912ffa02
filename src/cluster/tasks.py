"""The slides of a list, and the folder of outputs of each: the slides' folders are mirrored below one."""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.common.errors import InputError, counted
from src.common.files import read_json, read_text, write_json
from src.data.id_map import refuse_repeats
from src.slides.finding import find_all_regions, find_slides, slide_name, why_no_slide

RECORD = "cohort.json"  # in --out: below which folder the slides lie, and an id by which workers know the folder


@dataclass(frozen=True)
class SlideTask:
    """A slide and the folder that it becomes, both absolute.

    ``digest`` stands for the slide and all settings; ``tissue`` is the file of its regions, where each slide has one.
    """

    slide: str
    folder: str
    digest: str = ""
    tissue: str = ""


@dataclass(frozen=True)
class Cohort:
    """The folder of all outputs, the id that its record holds, and the slides."""

    out: Path
    id: str
    tasks: Sequence[SlideTask]


def read_slides(listed: Path, slide_pixels: int) -> list[Path]:
    """The slides of a folder, or of a text file with a path a line, where lines that begin with # are comments.

    Relative paths count from the current folder. Slides of a list need not be there.

    Raises:
        InputError: no such file or folder, no slides, one that is listed twice, or something else than a slide.
    """
    found = list(map(absolute, find_slides(listed, slide_pixels))) if listed.is_dir() else _listed(listed)
    if not found:
        raise InputError(f"--slides {listed}: holds no slides")
    refuse_repeats(found, f"--slides {listed}: slide")
    return found


def absolute(path: str | Path) -> Path:
    """A path from the root, without ``..``; links stay, because workers see the same ones."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() follows links


def _listed(listed: Path) -> list[Path]:
    paths = {number: absolute(line) for number, line in _lines(listed).items()}
    wrong = {number: reason for number, path in paths.items() if (reason := why_no_slide(path))}
    for number, reason in wrong.items():
        others = f"; so it is with {counted(len(wrong) - 1, 'other line')}" if len(wrong) > 1 else ""
        raise InputError(f"--slides {listed}, line {number}: {paths[number]} {reason}{others}")
    return list(paths.values())


def _lines(listed: Path) -> dict[int, str]:
    """The lines that hold paths, by their numbers."""
    try:
        lines = [line.strip() for line in read_text(listed).split("\n")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--slides {listed}: cannot be read ({reason})") from error
    return {number: line for number, line in enumerate(lines, start=1) if line and not line.startswith("#")}


def plan(slides: Sequence[Path], out: Path, regions: Path | None = None) -> Cohort:
    """Give each slide the folder that lies below ``out`` as the slide does below the folder that all share.

    The folder that the slides share is recorded in ``out``, so that a longer list does not move what is finished.
    ``regions`` is a folder in which the GeoJSON files of the slides lie likewise.

    Raises:
        InputError: two slides would share a folder, a slide lies outside of the folder that ``out`` has recorded, or
            one has no GeoJSON file.
    """
    out = absolute(out)
    record = _record(out, _shared_folder(slides))
    root, tasks = Path(record["root"]), []
    for slide in slides:
        if not slide.is_relative_to(root):
            raise InputError(
                f"--out {out}: is for slides in {root}, as its {RECORD} says; {slide} is not there; name another folder"
            )
        tasks.append(SlideTask(str(slide), str(out / slide_name(slide, root))))
    _refuse_collisions(tasks)
    if regions:
        names = [Path(task.folder).relative_to(out).as_posix() for task in tasks]
        files = find_all_regions(regions, names)
        tasks = [replace(task, tissue=str(absolute(path))) for task, path in zip(tasks, files, strict=True)]
    if not (out / RECORD).exists():
        write_json(out / RECORD, record)
    return Cohort(out, record["id"], tasks)


def log_of(folder: str | Path) -> Path:
    """The log of the processes that predict a slide, beside its folder."""
    return Path(f"{folder}.log")


def _refuse_collisions(tasks: Sequence[SlideTask]) -> None:
    """Refuse slides of which one would overwrite what another becomes, or its log."""
    taken: dict[str, SlideTask] = {}
    for task in tasks:
        for path in (task.folder, str(log_of(task.folder))):
            other = taken.setdefault(path.casefold(), task)  # some disks do not tell cases apart
            if other != task:
                raise InputError(f"{task.slide} and {other.slide}: would both become {path}; rename one of them")
    for task in tasks:
        for parent in Path(task.folder).parents:
            other = taken.get(str(parent).casefold(), task)
            if other != task:
                raise InputError(f"{task.slide}: would be written into the folder of {other.slide}; rename one of them")


def _shared_folder(slides: Sequence[Path]) -> str:
    try:
        return os.path.commonpath([path.parent for path in slides])
    except ValueError as error:  # Windows alone
        raise InputError(f"{slides[0]}: lies on another drive than other slides of the list") from error


def _record(out: Path, root: str) -> dict[str, Any]:
    """The record of ``out``, which is there already or is to be written."""
    path = out / RECORD
    if not path.exists():
        return {"root": root, "id": uuid.uuid4().hex}
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("root", "id")):
        raise InputError(f"{path}: is not a record of src.cohort")
    return record
