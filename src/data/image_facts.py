"""Facts about a prepared image that a training needs before it starts, small enough to keep for all images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.data.prepared import PreparedImage
from src.data.records import Record
from src.data.stain import red_contrast, stain_features


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts about one image.

    ``size`` is the (H, W) of the file and ``prepared_size`` that after --scale, in px; ``label_bytes`` is the size of
    one pixel of the label map. ``class_ids`` (N,) int32 are of all objects, ``boxes`` (M, 4) int32 (xyxy in px after
    --scale, max exclusive) of those that scaling left. ``contrast`` and ``stain`` are as :func:`red_contrast` and
    :func:`stain_features` give them; ``checksum`` is that of the image with its masks, in hexadecimal.
    """

    size: tuple[int, int]
    prepared_size: tuple[int, int]
    label_bytes: int
    class_ids: np.ndarray
    boxes: np.ndarray
    contrast: float | None
    stain: np.ndarray
    checksum: str

    def class_counts(self, class_count: int) -> np.ndarray:
        """``(K,)`` number of objects of each class 1..K; ``class_count`` is K."""
        return np.bincount(self.class_ids, minlength=class_count + 1)[1:]

    def box_areas(self) -> np.ndarray:
        """``(M,)`` int64 areas of the boxes in px."""
        return np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1, dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """All facts as JSON, from which :func:`facts_from_json` restores them exactly."""
        arrays = {name: getattr(self, name).tolist() for name in ("class_ids", "boxes", "stain")}
        return {**vars(self), "size": list(self.size), "prepared_size": list(self.prepared_size), **arrays}


def facts_of(record: Record, prepared: PreparedImage) -> ImageFacts:
    """The facts about a prepared image."""
    kept = prepared.areas > 0
    return ImageFacts(
        size=(record.height, record.width),
        prepared_size=(prepared.image.shape[0], prepared.image.shape[1]),
        label_bytes=prepared.label_map.itemsize * prepared.label_map.shape[2],
        class_ids=prepared.class_ids[1:].astype(np.int32),
        boxes=prepared.boxes[kept].astype(np.int32),
        contrast=red_contrast(prepared.image),
        stain=stain_features(prepared.image),
        checksum="".join(f"{value:08x}" for value in prepared.checksums),
    )


def facts_from_json(values: Mapping[str, Any]) -> ImageFacts:
    """The inverse of :meth:`ImageFacts.to_json`.

    Raises:
        LookupError, TypeError, ValueError: the values are not those of an image.
    """
    return ImageFacts(
        size=(int(values["size"][0]), int(values["size"][1])),
        prepared_size=(int(values["prepared_size"][0]), int(values["prepared_size"][1])),
        label_bytes=int(values["label_bytes"]),
        class_ids=np.array(values["class_ids"], np.int32),
        boxes=np.array(values["boxes"], np.int32).reshape(-1, 4),
        contrast=values["contrast"],
        stain=np.array(values["stain"], np.float64),
        checksum=str(values["checksum"]),
    )
