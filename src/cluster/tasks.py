"""The slides of a list, and the folder of outputs of each: the slides' folders are mirrored below one."""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import read_json, read_text, write_json
from src.data.id_map import refuse_repeats
from src.slides.finding import find_slides, slide_name

RECORD = "cohort.json"  # in --out: below which folder the slides lie, and an id by which workers know the folder


@dataclass(frozen=True)
class SlideTask:
    """A slide and the folder that it becomes, both absolute; ``digest`` stands for the slide and all settings."""

    slide: str
    folder: str
    digest: str = ""


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
        InputError: no such file or folder, no slides, or one that is listed twice.
    """
    if listed.is_dir():
        found = [absolute(path) for path in find_slides(listed, slide_pixels)]
    else:
        found = [absolute(line) for line in _lines(listed)]
    if not found:
        raise InputError(f"--slides {listed}: holds no slides")
    refuse_repeats(found, f"--slides {listed}: slide")
    return found


def absolute(path: str | Path) -> Path:
    """A path from the root, without ``..``; links stay, because workers see the same ones."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() follows links


def _lines(listed: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(listed).split("\n")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--slides {listed}: cannot be read ({reason})") from error
    return [line for line in lines if line and not line.startswith("#")]


def plan(slides: Sequence[Path], out: Path) -> Cohort:
    """Give each slide the folder that lies below ``out`` as the slide does below the folder that all share.

    The folder that the slides share is recorded in ``out``, so that a longer list does not move what is finished.

    Raises:
        InputError: two slides would share a folder, or a slide lies outside of the folder that ``out`` has recorded.
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
