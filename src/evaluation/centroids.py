"""F1 of detection and of each class by centroids, as the HoVer-Net paper defines them.

Graham et al., "HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue histology images",
Medical Image Analysis 2019: true and found centroids are paired one to one within 12 px at 40x.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from src.evaluation.average_precision import covered_shares
from src.geometry.instances import Instance

RADIUS = 12.0  # px at 40x
BATCH = 5000  # pairs that are solved at once, or more where they are connected


@dataclass(frozen=True)
class Pairing:
    """The classes of one image's objects: both sides of each pair ``(P,)``, and those left alone on either side."""

    true_class: np.ndarray
    found_class: np.ndarray
    false_negatives: np.ndarray
    false_positives: np.ndarray


def centroid(instance: Instance) -> tuple[float, float]:
    """Mean row and column of an object's pixels, in px of the image, pixel centres being integers."""
    rows, columns = instance.mask.sum(axis=1), instance.mask.sum(axis=0)
    area = rows.sum()
    return (
        instance.top + float(rows @ np.arange(len(rows)) / area),
        instance.left + float(columns @ np.arange(len(columns)) / area),
    )


def pair(
    truths: Sequence[Instance], found: Sequence[Instance], ignored: Sequence[Instance] = (), radius: float = RADIUS
) -> Pairing:
    """Pair as many centroids as can be within ``radius`` px of each other, at the least sum of distances.

    A found object without a pair is left out where its centroid lies in a region of ``ignored``.
    """
    true_place, found_place = (np.array([centroid(i) for i in side]).reshape(-1, 2) for side in (truths, found))
    true_class, found_class = (np.array([i.class_id for i in side], np.int64) for side in (truths, found))
    true_index, found_index = _assign(true_place, found_place, radius)
    alone = np.setdiff1d(np.arange(len(found)), found_index)
    return Pairing(
        true_class[true_index],
        found_class[found_index],
        np.delete(true_class, true_index),
        found_class[alone[~_lie_in(found_place[alone], found_class[alone], ignored)]],
    )


def _lie_in(places: np.ndarray, class_ids: np.ndarray, regions: Sequence[Instance]) -> np.ndarray:
    """``(D,)`` bool: which of the places (row, column) of objects a region holds, of the object's class or of any."""
    pixels = np.rint(places).astype(int).tolist()
    pixel = np.ones((1, 1), bool)
    dots = [Instance(k, 1.0, row, column, pixel) for k, (row, column) in zip(class_ids.tolist(), pixels, strict=True)]
    return covered_shares(dots, regions) > 0


def _assign(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the paired rows of ``(N, 2)`` and ``(M, 2)`` places.

    Only places within the radius can be paired, so groups of places that such steps do not connect are solved apart, a
    batch at a time. Memory grows with the pairs within the radius.
    """
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    near = (
        cKDTree(a).sparse_distance_matrix(cKDTree(b), radius, output_type="coo_matrix") if len(a) and len(b) else None
    )
    if near is None or not near.nnz:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    graph = coo_matrix((np.ones(near.nnz), (near.row, near.col + len(a))), shape=(len(a) + len(b),) * 2)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[near.row], kind="stable")
    bounds = np.flatnonzero(np.diff(group[near.row][order])) + 1
    bounds = bounds[np.diff(bounds // BATCH, prepend=0) > 0]
    matched = np.concatenate([
        _match(near.row[edges], near.col[edges], near.data[edges], radius) for edges in np.split(order, bounds)
    ])  # fmt: skip
    return matched[:, 0], matched[:, 1]


def _match(row: np.ndarray, column: np.ndarray, distance: np.ndarray, radius: float) -> np.ndarray:
    """``(P, 2)`` rows and columns of as many of the given pairs as can be, at the least sum of distances.

    The solver pairs every row. So each row gets a column of its own, which costs more than all pairs together.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    own = np.arange(len(rows))
    cost = np.append(distance, np.full(len(rows), radius * (min(len(rows), len(columns)) + 1)))
    cost += 1  # the same for every row, so that no pair costs nothing, which would mean that there is none
    places = (np.append(row, own), np.append(column, len(columns) + own))
    graph = csr_matrix((cost, places), shape=(len(rows), len(columns) + len(rows)))
    chosen_row, chosen_column = min_weight_full_bipartite_matching(graph)
    is_pair = chosen_column < len(columns)
    return np.column_stack((rows[chosen_row[is_pair]], columns[chosen_column[is_pair]]))


def detection_f1(images: Iterable[Pairing]) -> float | None:
    """F1 of finding objects, whatever their class, over all images; ``None`` where there are none on either side."""
    images = list(images)
    pairs = sum(len(image.true_class) for image in images)
    alone = sum(len(image.false_negatives) + len(image.false_positives) for image in images)
    return 2 * pairs / (2 * pairs + alone) if pairs + alone else None


def class_f1(images: Sequence[Pairing], class_id: int) -> float | None:
    """F1 of one class over all images; ``None`` without ground truth.

    ``2 TP / (2 TP + 2 FP_class + 2 FN_class + FP_detection + FN_detection)``: a pair of the wrong class weighs twice
    as much as a missed object or a false positive.
    """
    right = wrong = alone = truths = 0
    for image in images:
        is_true, is_found = image.true_class == class_id, image.found_class == class_id
        right += int((is_true & is_found).sum())
        wrong += int((is_true ^ is_found).sum())
        missed = int((image.false_negatives == class_id).sum())
        alone += missed + int((image.false_positives == class_id).sum())
        truths += int(is_true.sum()) + missed
    return 2 * right / (2 * right + 2 * wrong + alone) if truths else None
