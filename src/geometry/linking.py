"""Linking: which detections of different tiles are the same object, and what they become together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from src.geometry.instances import Instance, clip, union
from src.geometry.overlaps import overlapping_pairs, shared_pixels
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tile_detections import Frames, TileDetections, gaps


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs of detections, by index ``(P,)``, that are the same object, strongest first; ``joins_cut`` (P,) are those
    of cut detections that agree, which may join pieces that one tile saw apart."""

    first: np.ndarray
    second: np.ndarray
    joins_cut: np.ndarray

    def select(self, which: np.ndarray) -> "Links":
        """Some of them, in order."""
        return Links(self.first[which], self.second[which], self.joins_cut[which])


def find_links(found: TileDetections, frames: Frames, is_cut: np.ndarray, settings: StitchSettings) -> Links:
    """The links between detections in canonical order: those between whole detections first, then by similarity."""
    first, second = _candidates(found, settings)
    both_cut = is_cut[first] & is_cut[second]
    similarity = _similarity(found, frames, first, second)
    for pair in np.flatnonzero(both_cut & (similarity > 0) & (similarity < settings.agreement_threshold)):
        similarity[pair] = _component_similarity(found, frames, int(first[pair]), int(second[pair]))
    centre = found.boxes[:, :2] + found.boxes[:, 2:]  # twice the centre
    near = np.hypot(*(centre[first] - centre[second]).T) <= 2 * settings.match_distance
    agrees = similarity >= settings.agreement_threshold
    order = np.lexsort((second, first, -similarity, is_cut[first] | is_cut[second]))
    return Links(first, second, both_cut & agrees).select(order[(agrees | (near & (similarity > 0)))[order]])


def _candidates(found: TileDetections, settings: StitchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of comparable detections of different tiles whose boxes overlap, the smaller index first."""
    a, b = overlapping_pairs(found.boxes)
    class_id = np.array([instance.class_id for instance in found.instances])
    comparable = (class_id[a] == class_id[b]) | settings.one_class_per_cell
    kept = comparable & (found.tile[a] != found.tile[b])
    return np.minimum(a, b)[kept], np.maximum(a, b)[kept]


def group(links: Links, tile: np.ndarray) -> list[list[int]]:
    """Join detections link by link; unless both are cut, only where the two groups have no tile in common.

    An object may be in several pieces in one tile (both ends of a horseshoe), so it does not hold for cut ones.

    Returns:
        The indices of each object's detections, ascending.
    """
    group_of = [[index] for index in range(len(tile))]
    tiles_of = [{number} for number in tile.tolist()]
    root = list(range(len(tile)))
    for first, second, joins_cut in zip(
        links.first.tolist(), links.second.tolist(), links.joins_cut.tolist(), strict=True
    ):
        a, b = sorted((root[first], root[second]), key=lambda group: -len(group_of[group]))
        if a == b or not (joins_cut or tiles_of[a].isdisjoint(tiles_of[b])):
            continue
        for index in group_of[b]:
            root[index] = a
        group_of[a] += group_of[b]
        tiles_of[a] |= tiles_of[b]
        group_of[b] = []
    return [sorted(group) for group in group_of if group]


def merge(members: Sequence[Instance], is_cut: Sequence[bool]) -> Instance:
    """The object of linked detections, best score first: the best whole one, or the union where all are cut."""
    if len(members) == 1:
        return members[0]
    whole = [member for member, cut in zip(members, is_cut, strict=True) if not cut]
    merged = whole[0] if whole else union(members)
    probabilities = _mean_probabilities(members)
    return replace(merged, probabilities=probabilities) if probabilities else merged


def _mean_probabilities(instances: Iterable[Instance]) -> tuple[float, ...]:
    """The mean class probabilities of some objects, as far as they are known."""
    known = [instance.probabilities for instance in instances if instance.probabilities]
    return tuple(sum(of_class) / len(known) for of_class in zip(*known, strict=True))


def _similarity(found: TileDetections, frames: Frames, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(P,)`` IoU of the pairs' masks within what both tiles see."""
    shared = shared_pixels(found.instances, first, second)
    area_first = _area_seen(found, first, frames.boxes[found.tile[second]])
    area_second = _area_seen(found, second, frames.boxes[found.tile[first]])
    return shared / np.maximum(area_first + area_second - shared, 1)


def _area_seen(found: TileDetections, which: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """``(P,)`` mask areas of the detections ``which[i]`` within ``frames[i]``."""
    areas = np.array([instance.area for instance in found.instances], np.int64)[which]
    for pair in np.flatnonzero((gaps(found.boxes[which], frames) < 0).any(axis=1)):
        instance, (top, left, bottom, right) = found.instances[which[pair]], frames[pair].tolist()
        rows = slice(max(top - instance.top, 0), max(bottom - instance.top, 0))
        columns = slice(max(left - instance.left, 0), max(right - instance.left, 0))
        areas[pair] = np.count_nonzero(instance.mask[rows, columns])
    return areas


def _component_similarity(found: TileDetections, frames: Frames, first: int, second: int) -> float:
    """The best IoU of a connected part of one mask and one of the other, within what both tiles see.

    Two detections of a winding object need not share all that either sees of it, but agree on the parts they share.
    """
    of_both = frames.boxes[found.tile[[first, second]]]
    top, left = np.maximum(*of_both[:, :2]).tolist()
    bottom, right = np.minimum(*of_both[:, 2:]).tolist()
    parts = [clip(found.instances[index], top, left, bottom, right) for index in (first, second)]
    seen = [part for part in parts if part]
    if len(seen) < 2:
        return 0.0
    hull = union(seen)
    canvas = np.zeros((2, *hull.mask.shape), np.uint8)
    for layer, part in zip(canvas, seen, strict=True):
        layer[part.top - hull.top : part.bottom - hull.top, part.left - hull.left : part.right - hull.left] = part.mask
    (count_a, a), (count_b, b) = (cv2.connectedComponents(layer, connectivity=8) for layer in canvas)
    table = np.bincount((a * count_b + b).ravel(), minlength=count_a * count_b).reshape(count_a, count_b)
    union_areas = table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:] - table[1:, 1:]
    return float((table[1:, 1:] / union_areas).max(initial=0))
