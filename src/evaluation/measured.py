"""What each image adds to the scores of a results file, measured once, whichever images are then counted."""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.data.names import plain_names
from src.evaluation.average_precision import ImageObjects, Ranked, rank
from src.evaluation.centroids import RADIUS, CentroidCounts, count_pairs, pair
from src.evaluation.f1_by_iou import PairCounts, count_by_iou
from src.evaluation.image_truth import ImageTruth
from src.evaluation.label_overlaps import label_overlaps
from src.evaluation.overlap_scores import OverlapScores, overlap_scores
from src.evaluation.panoptic import PanopticCounts, count_matches, match
from src.evaluation.results import check_results
from src.evaluation.rle import decode_entries
from src.geometry.instances import Instance, confident

CAPS = (("at_100", 100), ("uncapped", math.inf))


@dataclass(frozen=True)
class ScoreSettings:
    """What counts: see :func:`score`."""

    min_score: float = 0.5
    radius: float = RADIUS


@dataclass(frozen=True, eq=False)
class Measured:
    """What each of I images adds to the scores.

    ``names`` are plain names of the images (see :mod:`src.data.names`), in the order of the rows of all tables, which
    is that of their ids. ``ranked`` holds what was found of each class, for each of :data:`CAPS`.
    """

    names: Sequence[str]
    settings: ScoreSettings
    ranked: Sequence[Sequence[Ranked]]
    panoptic: PanopticCounts
    overlaps: Sequence[OverlapScores]
    by_iou: PairCounts
    centroids: CentroidCounts


@contextmanager
def collecting_later() -> Iterator[None]:
    """Pause Python's search for cyclic garbage, which an evaluation's many small objects slow down.

    There is none to find, and the search takes up to as long as the evaluation itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collecting_later()
def measure(
    ground_truth: Sequence[ImageTruth],
    entries: Sequence[dict[str, Any]],
    classes: Sequence[CellClass],
    settings: ScoreSettings = ScoreSettings(),
) -> Measured:
    """Measure what each image adds to the scores; arguments and errors are those of :func:`score`."""
    check_results(entries, [truth.entry for truth in ground_truth], len(classes))
    images = objects_by_image(ground_truth, entries)
    truths = [image.truth for image in images]
    found = [_counted(image, settings.min_score) for image in images]
    overlaps = [label_overlaps(truth, cells) for truth, cells in zip(truths, found, strict=True)]
    pairings = [
        pair(truth.instances, cells, truth.ignored, settings.radius) for truth, cells in zip(truths, found, strict=True)
    ]
    return Measured(
        plain_names([truth.file_name for truth in truths]),
        settings,
        rank(images, len(classes), [cap for _, cap in CAPS]),
        count_matches([match(one) for one in overlaps], len(classes)),
        [overlap_scores(one) for one in overlaps],
        count_by_iou(overlaps),
        count_pairs(pairings, len(classes)),
    )


def objects_by_image(ground_truth: Sequence[ImageTruth], entries: Sequence[dict[str, Any]]) -> list[ImageObjects]:
    """The true objects and the detections of each image, by image id, which breaks ties between equal scores."""
    found: dict[int, list[Instance | None]] = {truth.id: [] for truth in ground_truth}
    keys: dict[int, list[tuple[int, float]]] = {truth.id: [] for truth in ground_truth}
    for entry, instance in zip(entries, decode_entries(entries), strict=True):
        found[entry["image_id"]].append(instance)
        keys[entry["image_id"]].append((entry["category_id"], entry["score"]))
    images = []
    for truth in sorted(ground_truth, key=lambda truth: truth.id):
        class_ids, scores = np.array(keys[truth.id], np.float64).reshape(-1, 2).T
        images.append(ImageObjects(truth, found[truth.id], class_ids.astype(np.int64), scores))
    return images


def _counted(image: ImageObjects, min_score: float) -> list[Instance]:
    """The confident objects of an image without those that others cover: PQ and others are defined without overlaps."""
    found = [one for one in image.found if one is not None]
    return confident(found, min_score, image.truth.height, image.truth.width)
