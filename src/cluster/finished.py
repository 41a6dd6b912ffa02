"""What tells that a slide is finished, with the same settings: a receipt in the slide's folder of outputs.

``inference.py`` knows this, too, but takes seconds to start. The receipt lies in the folder, so that one who writes the
folder anew removes it. Where it is absent, or of other settings, ``inference.py`` decides.
"""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.cluster.tasks import SlideTask
from src.common.errors import InputError
from src.common.files import file_digest, read_json, write_json
from src.config.flags import flatten
from src.config.settings import InferenceConfig
from src.formats.slide_folder import SUMMARY
from src.slides.finding import files_of

RECEIPT = "receipt.json"
PLACES = ("test_dir", "output")  # settings that are no settings of the cells


def digests_of(prediction: InferenceConfig, recipe: str | None = None) -> dict[str, str]:
    """The files that flags of ``inference.py`` name, with digests of what they hold; that of a folder is empty.

    Raises:
        InputError: one cannot be read.
    """
    tissue = [] if prediction.tissue in ("auto", "all") else [prediction.tissue]
    paths = [*([recipe] if recipe else []), *prediction.ckpt, *tissue]
    return {path: "" if Path(path).is_dir() else _digest(path) for path in paths}


def settings_digest(prediction: InferenceConfig, digests: Mapping[str, str]) -> str:
    """A digest of the settings of ``inference.py``, in which files count by what they hold (:func:`digests_of`)."""
    settings = {key: value for key, value in flatten(prediction).items() if key not in PLACES}
    settings["ckpt"] = [digests[path] for path in prediction.ckpt]
    settings["tissue"] = digests.get(prediction.tissue, prediction.tissue)
    return _of(settings)


def with_digest(task: SlideTask, settings: str) -> SlideTask:
    """The task with the digest of its slide and the settings.

    Raises:
        OSError: the slide is not there, is empty, or is a folder of something else.
    """
    versions = _versions(files_of(Path(task.slide)))
    if not versions:
        raise OSError(errno.EISDIR, "a folder without DICOM files is no slide")
    if not any(size for _, size, _ in versions):
        raise OSError(errno.ENODATA, "the file is empty")
    versions += _versions([Path(task.tissue)] if task.tissue else [])
    return replace(task, digest=_of([task.slide, versions, settings]))


def write_receipt(task: SlideTask, seconds: float) -> None:
    """Note that the task is finished, and how long its process ran."""
    write_json(Path(task.folder) / RECEIPT, {"digest": task.digest, "seconds": round(seconds, 1)})


def finished_seconds(task: SlideTask) -> float | None:
    """How long the process of a task ran that is finished; ``None`` for one that is not, or with other settings."""
    receipt = _read(Path(task.folder) / RECEIPT)
    is_same = receipt.get("digest") == task.digest and (Path(task.folder) / SUMMARY).is_file()
    return float(receipt.get("seconds", 0)) if is_same else None


def read_summary(folder: str) -> dict[str, Any]:
    """What ``inference.py`` says of a slide; empty where there is nothing that can be read."""
    return _read(Path(folder) / SUMMARY)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def _digest(path: str) -> str:
    try:
        return file_digest(Path(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _versions(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """The name of each file, its size in bytes, and when it was changed."""
    return [(path.name, about.st_size, about.st_mtime_ns) for path in paths if (about := path.stat())]


def _of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
