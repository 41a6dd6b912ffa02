"""Suppression: of objects that overlap after merging, which stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.geometry.instances import Instance
from src.geometry.overlaps import overlapping_pairs, shared_pixels
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tile_detections import boxes_of


@dataclass(frozen=True, eq=False)
class Objects:
    """N merged objects: whether each stems from cut detections alone (N,), the rank of its first detection's tile and
    its number there (N, 2), which break ties, and whether it is in a chain of suppressions (N,) (:mod:`chains`)."""

    instances: list[Instance]
    is_cut: np.ndarray
    origin: np.ndarray
    in_chain: np.ndarray

    @classmethod
    def none(cls) -> "Objects":
        """No objects."""
        return cls([], np.zeros(0, bool), np.zeros((0, 2), np.int64), np.zeros(0, bool))

    def select(self, which: np.ndarray) -> "Objects":
        """Some of them, by index."""
        chosen = [self.instances[index] for index in which.tolist()]
        return Objects(chosen, self.is_cut[which], self.origin[which], self.in_chain[which])


def concatenate(parts: Sequence[Objects]) -> Objects:
    """The objects of all parts."""
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("is_cut", "origin", "in_chain"))
    return Objects([one for part in parts for one in part.instances], *columns)


def by_precedence(objects: Objects) -> Objects:
    """The objects in the order in which they suppress others: whole ones by score, then cut ones by area.

    So a fragment, whatever its score, never suppresses the whole object, and of two cut objects the one stays of which
    more was seen.
    """
    boxes = boxes_of(objects.instances)
    score, area, class_id = (
        np.array([getattr(one, name) for one in objects.instances]) for name in ("score", "area", "class_id")
    )
    merit = np.where(objects.is_cut, area, score)
    keys = (*objects.origin.T[::-1], *boxes.T[::-1], class_id, -merit, objects.is_cut)
    return objects.select(np.lexsort(keys))


def find_suppressions(objects: Objects, settings: StitchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Pairs ``(first, second)`` of objects, in order of precedence: where the first stays, the second falls.

    A cut object falls where a kept one covers enough of it, but not for a small one that it covers.
    """
    boxes = boxes_of(objects.instances)
    area, class_id = (np.array([getattr(one, name) for one in objects.instances]) for name in ("area", "class_id"))
    a, b = overlapping_pairs(boxes)
    first, second = np.minimum(a, b), np.maximum(a, b)
    least = min(settings.iou_threshold, settings.containment_threshold, settings.agreement_threshold)
    bound = _box_intersection(boxes[first], boxes[second])
    comparable = (class_id[first] == class_id[second]) | settings.one_class_per_cell
    possible = comparable & (bound >= least * np.minimum(area[first], area[second]))
    first, second = first[possible], second[possible]
    shared = shared_pixels(objects.instances, first, second)
    iou = shared / (area[first] + area[second] - shared)
    is_cut = objects.is_cut[second]
    least_area = np.where(is_cut, area[second], np.minimum(area[first], area[second]))
    enough = np.where(is_cut, settings.agreement_threshold, settings.containment_threshold)
    falls = (iou >= settings.iou_threshold) | (shared / least_area >= enough)
    return first[falls], second[falls]


def suppress(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """``(count,)`` bool: which objects stay, of the pairs that :func:`find_suppressions` gives."""
    kept = np.ones(count, bool)
    for pair in np.argsort(second, kind="stable"):
        kept[second[pair]] &= not kept[first[pair]]
    return kept


def _box_intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(P,)`` areas shared by overlapping boxes."""
    return (np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])).prod(axis=1)
