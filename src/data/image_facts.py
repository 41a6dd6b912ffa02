"""Facts about prepared images that a training needs before it starts, small enough to keep for all images."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from src.common.files import replacing
from src.data.classes import UNKNOWN_CLASS
from src.data.prepared import PreparedImage, cells_in_pieces
from src.data.records import Record
from src.data.stain import STAIN_FEATURES, red_contrast, stain_features


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts about N images; every array has a row per image, only ``boxes`` has one per object, image by image.

    ``entries`` (N,) are the names of the images' cache entries. ``sizes`` (N, 2) int64 are the (H, W) of the files and
    ``prepared_sizes`` those after --scale, in px; ``label_bytes`` (N,) is the size of one pixel of the label map.
    ``class_counts`` (N, K) are the numbers of objects of classes 1 to the highest that occurs, ``unknown_counts`` (N,)
    those of unknown class. ``box_counts`` (N,) and
    ``boxes`` (M, 4) int32 (xyxy in px after --scale, max exclusive) are of the objects that scaling left.
    ``levels`` (N,) uint8 are the :func:`used_levels` of an image (all for a file of 8 bits), ``in_pieces`` (N,) the
    number of its objects that lie in several pieces, ``is_turned`` (N,) bool whether a tag of its files asks viewers to
    turn it. ``contrasts`` (N,) and ``stains`` (N, D) float64 are as :func:`red_contrast` (NaN for None) and
    :func:`stain_features` give them;
    ``checksums`` (N,) are those of the image with its masks, in hexadecimal.
    """

    entries: np.ndarray
    sizes: np.ndarray
    prepared_sizes: np.ndarray
    label_bytes: np.ndarray
    class_counts: np.ndarray
    unknown_counts: np.ndarray
    box_counts: np.ndarray
    boxes: np.ndarray
    levels: np.ndarray
    in_pieces: np.ndarray
    is_turned: np.ndarray
    contrasts: np.ndarray
    stains: np.ndarray
    checksums: np.ndarray

    def __len__(self) -> int:
        return len(self.entries)

    def counts_of(self, class_count: int) -> np.ndarray:
        """``(N, K)`` number of objects of each class 1..K; ``class_count`` is K."""
        return _widen(self.class_counts, class_count)[:, :class_count]

    def cell_size(self) -> float:
        """The median of sqrt(box area) in px."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1, dtype=np.int64)
        return float(np.median(np.sqrt(areas)))

    def take(self, rows: Sequence[int] | np.ndarray) -> "ImageFacts":
        """The facts about some of the images, in the order of ``rows``."""
        rows = np.asarray(rows, np.int64)
        counts = self.box_counts[rows]
        starts = (np.cumsum(self.box_counts) - self.box_counts)[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "boxes"}
        return ImageFacts(**chosen, boxes=self.boxes[np.repeat(starts, counts) + within])


def facts_of(entry: str, record: Record, prepared: PreparedImage) -> ImageFacts:
    """The facts about one image, whose cache entry has the name ``entry``."""
    boxes = prepared.boxes[prepared.is_cell].astype(np.int32)
    contrast = red_contrast(prepared.image)
    return ImageFacts(
        entries=np.array([entry]),
        sizes=np.array([(record.height, record.width)]),
        prepared_sizes=np.array([prepared.image.shape[:2]]),
        label_bytes=np.array([prepared.label_map.itemsize * prepared.label_map.shape[2]]),
        class_counts=prepared.class_counts()[None],
        unknown_counts=np.array([np.count_nonzero(prepared.class_ids == UNKNOWN_CLASS)]),
        box_counts=np.array([len(boxes)]),
        boxes=boxes,
        levels=np.array([record.levels_of(prepared.image)], np.uint8),
        in_pieces=np.array([cells_in_pieces(prepared)]),
        is_turned=np.array([record.is_turned]),
        contrasts=np.array([np.nan if contrast is None else contrast]),
        stains=stain_features(prepared.image)[None],
        checksums=np.array(["".join(f"{value:08x}" for value in prepared.checksums)]),
    )


def concatenate_facts(parts: Sequence[ImageFacts]) -> ImageFacts:
    """The facts about the images of all ``parts``, of which there is at least one."""
    classes = max(part.class_counts.shape[1] for part in parts)
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(ImageFacts)}
    columns["class_counts"] = [_widen(counts, classes) for counts in columns["class_counts"]]
    return ImageFacts(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def save_facts(path: Path, facts: ImageFacts) -> None:
    """Write facts into one file, atomically; an :class:`InputError` where it cannot be written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(facts))


def load_facts(path: Path) -> ImageFacts:
    """The facts of a file; those about no images where there is none, or one that is damaged or of another version."""
    try:
        with path.open("rb") as file, np.load(file) as columns:
            return ImageFacts(**columns)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return _NO_FACTS


def _widen(counts: np.ndarray, class_count: int) -> np.ndarray:
    """``(N, K)`` counts with columns of zeros up to ``class_count``."""
    missing = max(class_count - counts.shape[1], 0)
    return np.pad(counts, ((0, 0), (0, missing)))


_NO_FACTS = ImageFacts(
    entries=np.zeros(0, str),
    sizes=np.zeros((0, 2), np.int64),
    prepared_sizes=np.zeros((0, 2), np.int64),
    label_bytes=np.zeros(0, np.int64),
    class_counts=np.zeros((0, 1), np.int64),
    unknown_counts=np.zeros(0, np.int64),
    box_counts=np.zeros(0, np.int64),
    boxes=np.zeros((0, 4), np.int32),
    levels=np.zeros(0, np.uint8),
    in_pieces=np.zeros(0, np.int64),
    is_turned=np.zeros(0, bool),
    contrasts=np.zeros(0),
    stains=np.zeros((0, STAIN_FEATURES)),
    checksums=np.zeros(0, str),
)
