"""Score a results file: mask AP at 100 detections and uncapped, per class, panoptic quality and centroid F1."""

import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.evaluation.centroids import class_f1, detection_f1, pair
from src.evaluation.ground_truth import ImageTruth
from src.evaluation.panoptic import agnostic_quality, class_quality, match
from src.evaluation.results import cells_by_image, check_results
from src.evaluation.rle import encode
from src.geometry.instances import Instance, resolve_overlaps

BACKENDS = ("faster-coco-eval", "pycocotools")
CAPS = (("at_100", 100), ("uncapped", 10_000))
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
    backend: str = BACKENDS[0],
) -> dict[str, Any]:
    """Score result entries against ground truth; an image without entries counts as one without detections.

    Args:
        ground_truth: every image that counts, at least one.
        entries: result entries (see :func:`src.evaluation.results.result_entries`) of these images.
        classes: the classes 1..K.
        pq_threshold: entries with a lower score are left out of PQ and of centroid F1, and so are those that others
            of a higher score, of any class, cover by more than half.
        backend: the evaluator of AP, one of ``BACKENDS``; they agree to 1e-9.

    Returns:
        ``{"images", "at_100", "uncapped", "pq", "f1"}``. AP is averaged over IoU 0.50:0.95 and over the classes that
        have ground truth; the caps hold for each image and class. ``None`` stands where there is no ground truth.

    Raises:
        InputError: a malformed entry (see :func:`src.evaluation.results.check_results`).
    """
    check_results(entries, [truth.entry for truth in ground_truth], len(classes))
    values = precision(ground_truth, entries, len(classes), backend)
    families = {name: _ap_family(values[..., m]) for m, (name, _) in enumerate(CAPS)}
    found = _confident(ground_truth, entries, pq_threshold)
    return {
        "images": len(ground_truth),
        **families,
        "pq": {"threshold": pq_threshold, **_panoptic(ground_truth, found, len(classes))},
        "f1": {"threshold": pq_threshold, **_centroid_f1(ground_truth, found, len(classes))},
    }


@_collecting_later()
def precision(
    ground_truth: Sequence[ImageTruth], entries: Sequence[dict[str, Any]], class_count: int, backend: str
) -> np.ndarray:
    """Precision ``(T, R, K, M)`` over 10 IoU thresholds, 101 recalls, classes and caps; -1 without ground truth."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend}")
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    truth_entries = [
        {"image_id": truth.id, "category_id": instance.class_id, "segmentation": segmentation}
        for truth in ground_truth
        for instance, segmentation in zip(
            truth.instances, encode(truth.instances, truth.height, truth.width), strict=True
        )
    ]
    with redirect_stdout(io.StringIO()):
        truths, detections = COCO(), COCO()
        for coco, annotations in ((truths, truth_entries), (detections, entries)):
            coco.dataset = _dataset(ground_truth, annotations, class_count)
            coco.createIndex()
        evaluation = COCOeval(truths, detections, "segm")
        evaluation.params.maxDets = [cap for _, cap in CAPS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # Not from `stats`, whose first figure is AP at 100 whatever the caps are.
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, :]


def _dataset(
    ground_truth: Sequence[ImageTruth], annotations: Sequence[dict[str, Any]], class_count: int
) -> dict[str, Any]:
    """A COCO dataset; annotations are copied, because the evaluators write into them, and images are numbered from 1,
    because they cannot take every id."""
    numbers = {truth.id: number for number, truth in enumerate(ground_truth, start=1)}
    # No size range is evaluated, but the evaluators want an area and a box.
    required = {"iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
    return {
        "images": [{"id": numbers[truth.id], "height": truth.height, "width": truth.width} for truth in ground_truth],
        "categories": [{"id": number, "name": str(number)} for number in range(1, class_count + 1)],
        "annotations": [
            {**item, **required, "id": number, "image_id": numbers[item["image_id"]]}
            for number, item in enumerate(annotations, start=1)
        ],
    }


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


def _confident(
    ground_truth: Sequence[ImageTruth], entries: Sequence[dict[str, Any]], threshold: float
) -> dict[int, list[Instance]]:
    """The confident objects of each image without those that others cover: PQ and F1 are defined without overlaps."""
    found = cells_by_image([entry for entry in entries if entry["score"] >= threshold])
    return {truth.id: resolve_overlaps(found[truth.id], truth.height, truth.width) for truth in ground_truth}


def _panoptic(
    ground_truth: Sequence[ImageTruth], found: Mapping[int, Sequence[Instance]], class_count: int
) -> dict[str, Any]:
    images = [match(truth, found.get(truth.id, [])) for truth in ground_truth]
    per_class = {str(number): class_quality(images, number) for number in range(1, class_count + 1)}
    return {"agnostic": agnostic_quality(images), "per_class": per_class}


def _centroid_f1(
    ground_truth: Sequence[ImageTruth], found: Mapping[int, Sequence[Instance]], class_count: int
) -> dict[str, Any]:
    images = [pair(truth.instances, found.get(truth.id, [])) for truth in ground_truth]
    per_class = {str(number): class_f1(images, number) for number in range(1, class_count + 1)}
    return {"detection": detection_f1(images), "per_class": per_class}
