"""Score a results file: AP, panoptic quality, AJI and Dice, F1 by IoU and F1 by centroids, overall and of each class.

Figures are made of what each image adds to them (see :mod:`src.evaluation.measured`), for any choice of images, such as
those of a resample (see :mod:`src.evaluation.bootstrap`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.evaluation import average_precision
from src.evaluation.average_precision import average_precisions
from src.evaluation.centroids import RADIUS, class_f1, detection_f1
from src.evaluation.f1_by_iou import LIMITS, PairCounts, f1_by_iou
from src.evaluation.image_truth import ImageTruth
from src.evaluation.measured import CAPS, Measured, ScoreSettings, collecting_later, measure, objects_by_image
from src.evaluation.overlap_scores import OverlapScores
from src.evaluation.panoptic import PanopticCounts, agnostic_quality, class_quality, mean_image_quality
from src.evaluation.weighted import mean_of_known, mean_over_images

AP_KEYS = ("AP", "AP50", "AP75")
PQ_KEYS = ("PQ", "SQ", "RQ")
MAIN_FIGURES = {  # what a comparison shows → where it is among the figures
    "AP": ("uncapped", "AP"),
    "AP50": ("uncapped", "AP50"),
    "AP75": ("uncapped", "AP75"),
    "AP50 at 100 detections": ("at_100", "AP50"),
    "PQ": ("pq", "agnostic", "PQ"),
    "mPQ": ("pq", "mPQ"),
    "mPQ+": ("pq", "mPQ+"),
    "AJI": ("overlap", "AJI"),
    "AJI+": ("overlap", "AJI+"),
    "Dice": ("overlap", "Dice"),
    "F1 at IoU 0.5": ("by_iou", "F1", "0.50"),
    "F1 at IoU 0.75": ("by_iou", "F1", "0.75"),
    "F1, mean over IoU": ("by_iou", "F1", "mean"),
    "accuracy at IoU 0.5": ("by_iou", "accuracy", "0.50"),
    "accuracy at IoU 0.75": ("by_iou", "accuracy", "0.75"),
    "accuracy, mean over IoU": ("by_iou", "accuracy", "mean"),
    "F1 by centroids": ("f1", "detection"),
}
IOU_KEYS = (*(f"{limit:.2f}" for limit in LIMITS), "mean")


def score(
    ground_truth: Sequence[ImageTruth],
    entries: Sequence[dict[str, Any]],
    classes: Sequence[CellClass],
    min_score: float = 0.5,
    radius: float = RADIUS,
) -> dict[str, Any]:
    """Score result entries against ground truth; an image without entries counts as one without detections.

    Args:
        ground_truth: every image that counts, at least one.
        entries: result entries (see :func:`src.evaluation.results.result_entries`) of these images.
        classes: the classes 1..K.
        min_score: entries with a lower score are left out of all figures but AP, and so are those that others of a
            higher score, of any class, cover by more than half.
        radius: px within which centroids are paired.

    Returns:
        ``{"images", "at_100", "uncapped", "pq", "overlap", "by_iou", "f1"}``. AP is averaged over IoU 0.50:0.95 and
        over the classes that have ground truth; the caps hold for each image and class. ``None`` stands where there is
        no ground truth.

    Raises:
        InputError: a malformed entry (see :func:`src.evaluation.results.check_results`).
    """
    return scores_of(measure(ground_truth, entries, classes, ScoreSettings(min_score, radius)))


def scores_of(measured: Measured) -> dict[str, Any]:
    """The scores of all images; see :func:`score`."""
    plain = plain_figures(measured)
    threshold = {"threshold": measured.settings.min_score}
    return {
        "images": len(measured.names),
        **{name: plain[name] for name, _ in CAPS},
        "pq": {**threshold, **plain["pq"]},
        "overlap": {**threshold, **plain["overlap"]},
        "by_iou": {**threshold, **plain["by_iou"]},
        "f1": {**threshold, "radius": measured.settings.radius, **plain["f1"]},
    }


def plain_figures(measured: Measured) -> dict[str, Any]:
    """Every figure of all images, nested as in :func:`figures`; ``None`` where it is not defined."""
    return map_figures(_value, figures(measured, np.ones((1, len(measured.names)))))


def figures(measured: Measured, weights: np.ndarray) -> dict[str, Any]:
    """Every figure if the images count as often as the rows of ``weights`` (N, I) say.

    Returns:
        Nested as the scores of :func:`score` are, each figure ``(N,)`` float64; NaN where it is not defined.
    """
    families = {
        name: _ap_family([average_precisions(of_caps[m], weights) for of_caps in measured.ranked])
        for m, (name, _) in enumerate(CAPS)
    }
    return {
        **families,
        "pq": _panoptic(measured.panoptic, weights),
        "overlap": _overlap(measured.overlaps, weights),
        "by_iou": _by_iou(measured.by_iou, weights),
        "f1": {
            "detection": detection_f1(measured.centroids, weights),
            "per_class": _by_class(class_f1(measured.centroids, weights)),
        },
    }


def map_figures(function: Callable[..., Any], *nested: Any) -> Any:
    """What ``function`` makes of each figure of one set of nested figures, or of those at one place in several."""
    first = nested[0]
    if not isinstance(first, Mapping):
        return function(*nested)
    return {key: map_figures(function, *(one[key] for one in nested)) for key in first}


def figure_at(nested: Mapping[str, Any], place: Sequence[str]) -> Any:
    """The figure at a place such as those of :data:`MAIN_FIGURES`."""
    for key in place:
        nested = nested[key]
    return nested


def _value(figure: np.ndarray) -> float | None:
    return None if np.isnan(figure[0]) else float(figure[0])


@collecting_later()
def precision(ground_truth: Sequence[ImageTruth], entries: Sequence[dict[str, Any]], class_count: int) -> np.ndarray:
    """Precision ``(T, R, K, M)`` over 10 IoU thresholds, 101 recalls, classes and caps; -1 without ground truth."""
    images = objects_by_image(ground_truth, entries)
    return average_precision.precision(images, class_count, [cap for _, cap in CAPS])


def format_score(value: float | None) -> str:
    """A score as text; ``-`` where there is no ground truth."""
    return "-" if value is None else f"{value:.3f}"


def _by_class(values: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of ``(N, K)`` figures by class id."""
    return {str(number): column for number, column in enumerate(values.T, start=1)}


def _ap_family(of_classes: Sequence[np.ndarray]) -> dict[str, Any]:
    """AP, AP50 and AP75, over classes and per class, of the three figures ``(N, 3)`` of each class."""
    values = np.stack(of_classes, axis=-1)
    per_class = {str(number): dict(zip(AP_KEYS, one.T, strict=True)) for number, one in enumerate(of_classes, start=1)}
    return {**dict(zip(AP_KEYS, mean_of_known(values).T, strict=True)), "per_class": per_class}


def _panoptic(counts: PanopticCounts, weights: np.ndarray) -> dict[str, Any]:
    quality = class_quality(counts, weights)
    columns = {key: _by_class(quality[key]) for key in PQ_KEYS}
    return {
        "agnostic": agnostic_quality(counts, weights),
        "per_class": {number: {key: columns[key][number] for key in PQ_KEYS} for number in columns["PQ"]},
        "mPQ": mean_image_quality(counts, weights),
        "mPQ+": mean_of_known(quality["PQ"]),
    }


def _overlap(images: Sequence[OverlapScores], weights: np.ndarray) -> dict[str, np.ndarray]:
    columns = {"AJI": "aji", "AJI+": "aji_plus", "Dice": "dice"}
    return {
        key: mean_over_images(np.array([getattr(image, name) for image in images]), weights)
        for key, name in columns.items()
    }


def _by_iou(counts: PairCounts, weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: dict(zip(IOU_KEYS, [*values.T, values.mean(axis=1)], strict=True))
        for name, values in f1_by_iou(counts, weights).items()
    }
