"""What all writers share."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.geometry.instances import Instance


@dataclass(frozen=True)
class ExportSettings:
    """How results are written.

    Detections below ``min_score`` are left out; ``score_source`` says in words where that score comes from, and is
    empty for a flag. ``mpp`` is the µm per px of the images; without it there are no measurements in µm. With ``gzip``
    files of text are compressed.
    """

    min_score: float
    score_source: str = ""
    mpp: float | None = None
    gzip: bool = False


Classes = Mapping[int, CellClass]
# Writes an image with its cells, and returns of how many cells it left out a part.
Write = Callable[[ImageId, Iterable[Instance]], int]
# While it is open, images are written into a folder.
Writer = Callable[[Path, Classes, ExportSettings], AbstractContextManager[Write]]
