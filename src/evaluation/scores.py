"""Score a results file: mask AP at 100 detections and uncapped, per class, panoptic quality and centroid F1."""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.evaluation import average_precision
from src.evaluation.average_precision import ImageObjects
from src.evaluation.centroids import class_f1, detection_f1, pair
from src.evaluation.image_truth import ImageTruth
from src.evaluation.panoptic import agnostic_quality, class_quality, match
from src.evaluation.results import check_results
from src.evaluation.rle import decode_entries
from src.geometry.instances import Instance, resolve_overlaps

CAPS = (("at_100", 100), ("uncapped", math.inf))
AP_KEYS = ("AP", "AP50", "AP75")
PQ_KEYS = ("PQ", "SQ", "RQ")


@contextmanager
def _collecting_later() -> Iterator[None]:
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


@_collecting_later()
def score(
    ground_truth: Sequence[ImageTruth],
    entries: Sequence[dict[str, Any]],
    classes: Sequence[CellClass],
    pq_threshold: float = 0.5,
) -> dict[str, Any]:
    """Score result entries against ground truth; an image without entries counts as one without detections.

    Args:
        ground_truth: every image that counts, at least one.
        entries: result entries (see :func:`src.evaluation.results.result_entries`) of these images.
        classes: the classes 1..K.
        pq_threshold: entries with a lower score are left out of PQ and of centroid F1, and so are those that others
            of a higher score, of any class, cover by more than half.

    Returns:
        ``{"images", "at_100", "uncapped", "pq", "f1"}``. AP is averaged over IoU 0.50:0.95 and over the classes that
        have ground truth; the caps hold for each image and class. ``None`` stands where there is no ground truth.

    Raises:
        InputError: a malformed entry (see :func:`src.evaluation.results.check_results`).
    """
    check_results(entries, [truth.entry for truth in ground_truth], len(classes))
    images = objects_by_image(ground_truth, entries)
    values = average_precision.precision(images, len(classes), [cap for _, cap in CAPS])
    families = {name: _ap_family(values[..., m]) for m, (name, _) in enumerate(CAPS)}
    found = _confident(images, pq_threshold)
    return {
        "images": len(ground_truth),
        **families,
        "pq": {"threshold": pq_threshold, **_panoptic(ground_truth, found, len(classes))},
        "f1": {"threshold": pq_threshold, **_centroid_f1(ground_truth, found, len(classes))},
    }


@_collecting_later()
def precision(ground_truth: Sequence[ImageTruth], entries: Sequence[dict[str, Any]], class_count: int) -> np.ndarray:
    """Precision ``(T, R, K, M)`` over 10 IoU thresholds, 101 recalls, classes and caps; -1 without ground truth."""
    images = objects_by_image(ground_truth, entries)
    return average_precision.precision(images, class_count, [cap for _, cap in CAPS])


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


def _ap_family(precision: np.ndarray) -> dict[str, Any]:
    """AP, AP50 and AP75, over classes and per class, of precision ``(T, R, K)``."""
    per_class = {}
    for k in range(precision.shape[2]):
        of_class = precision[:, :, k]
        known = bool((of_class > -1).any())
        values = (of_class.mean(), of_class[0].mean(), of_class[5].mean())  # IoU 0.50:0.95, 0.50 and 0.75
        per_class[str(k + 1)] = {
            key: float(value) if known else None for key, value in zip(AP_KEYS, values, strict=True)
        }
    means = {key: _mean([family[key] for family in per_class.values()]) for key in AP_KEYS}
    return {**means, "per_class": per_class}


def format_score(value: float | None) -> str:
    """A score as text; ``-`` where there is no ground truth."""
    return "-" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _confident(images: Sequence[ImageObjects], threshold: float) -> dict[int, list[Instance]]:
    """The confident objects of each image without those that others cover: PQ and F1 are defined without overlaps."""
    found = {}
    for image in images:
        confident = [one for one in image.found if one is not None and one.score >= threshold]
        found[image.truth.id] = resolve_overlaps(confident, image.truth.height, image.truth.width)
    return found


def _panoptic(
    ground_truth: Sequence[ImageTruth], found: Mapping[int, Sequence[Instance]], class_count: int
) -> dict[str, Any]:
    images = [match(truth, found.get(truth.id, [])) for truth in ground_truth]
    per_class = {str(number): class_quality(images, number) for number in range(1, class_count + 1)}
    return {"agnostic": agnostic_quality(images), "per_class": per_class}


def _centroid_f1(
    ground_truth: Sequence[ImageTruth], found: Mapping[int, Sequence[Instance]], class_count: int
) -> dict[str, Any]:
    images = [pair(truth.instances, found.get(truth.id, []), truth.ignored) for truth in ground_truth]
    per_class = {str(number): class_f1(images, number) for number in range(1, class_count + 1)}
    return {"detection": detection_f1(images), "per_class": per_class}
