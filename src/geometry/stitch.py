"""Stitching: detections in overlapping tiles become the objects of the whole image, each once.

An edge of a tile that is no edge of the image is an *inner edge*. A tile detection whose box comes within
``edge_margin`` px of one is *cut*, any other is *whole*. In order:

1. **Ownership.** A cut detection is dropped where another tile holds its box and sees past an edge that cuts it,
   whether or not anything was detected there.
2. **Linking.** Detections of one class in different tiles are linked where their masks agree in the part of the image
   that both tiles see. A whole detection links to at most one of any other tile, which saw two objects if it has two.
3. **Merging.** Linked detections become one object: the whole one with the highest score, or, where all are cut, their
   union. Its class probabilities are the mean of theirs.
4. **Suppression.** Objects that still overlap are made unique by greedy mask suppression within each class.

Where detections are exact (the visible parts of disjoint, 8-connected objects) and tiles overlap by at least 1 px, the
objects come back exactly. Any two neighbouring pixels of an object lie in some tile together. Ownership drops a
detection only for one that covers it, and such a chain ends, because each is larger than the one before or has more
room around it. So the detections that are left join all pixels of the object, and those that share pixels agree
wherever both tiles see. Without overlap (0 px) no tile sees what lies across its edge, and cut objects stay in pieces.

Suppression also applies to pairs of the same tile: what box suppression leaves there are mostly parts of a cell within
the cell. Touching cells that overlap by a few px stay below both thresholds, except the very smallest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from src.geometry.instances import Instance, clip, union
from src.geometry.overlaps import overlapping_pairs, ranges, shared_pixels
from src.geometry.tiles import Tile


@dataclass(frozen=True)
class StitchSettings:
    """When detections of two tiles are the same object. Thresholds are in [0, 1]."""

    iou_threshold: float = 0.5
    """Suppression: an object is dropped where its mask IoU with a kept one reaches this."""
    containment_threshold: float = 0.8
    """Suppression: ... or where the shared part of the smaller of the two masks reaches this."""
    agreement_threshold: float = 0.4
    """Linking: mask IoU, within what both tiles see, from which two detections are one object. Also the part of a cut
    object that a kept one must cover to suppress it."""
    match_distance: float = 6.5
    """Linking: largest distance in px of box centres at which detections that share a pixel, each the only match of the
    other, are one object all the same: two detections of a small cell, each a little off, overlap little."""
    one_class_per_cell: bool = False
    """Link and suppress across classes: an object has the class of its best detection, and no second one."""
    edge_margin: int = 4
    """Distance in px from an inner edge up to which a box counts as cut; also how far a detection may be off."""


@dataclass(frozen=True, eq=False)
class _TileDetections:
    """Detections of all tiles as columns; boxes and frames (of the tiles) are int rows ``top, left, bottom, right``."""

    instances: list[Instance]
    boxes: np.ndarray
    tile: np.ndarray
    frames: np.ndarray
    inner: np.ndarray

    def room(self, which: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """``(N, 4)`` distances in px from the box of ``which[i]`` to the inner edges of ``tiles[i]``, others far."""
        return np.where(self.inner[tiles], _gaps(self.boxes[which], self.frames[tiles]), np.iinfo(np.int64).max)

    def is_cut(self, margin: int) -> np.ndarray:
        """``(N,)`` bool: whether each detection comes near an inner edge of its own tile."""
        return np.any(self.room(np.arange(len(self.tile)), self.tile) <= margin, axis=1)

    def select(self, which: np.ndarray) -> "_TileDetections":
        """Some of the tile detections, by index."""
        chosen = [self.instances[index] for index in which]
        return _TileDetections(chosen, self.boxes[which], self.tile[which], self.frames, self.inner)


def stitch(
    tiles: Sequence[Tile],
    detections: Sequence[Sequence[Instance]],
    height: int,
    width: int,
    settings: StitchSettings = StitchSettings(),
) -> list[Instance]:
    """Make the objects of a ``height × width`` image from what was detected in its tiles.

    Objects of different classes do not affect each other unless ``settings`` ask for one class per cell. Time and
    memory grow with the number of detections, not with the image.

    Args:
        tiles: Where the tiles lie, in any order, in px of the image. They may repeat, and a tile of the
            whole image may be among them.
        detections: ``detections[i]`` are those made in ``tiles[i]``, in px of the image.
        height: Rows of the image.
        width: Columns of the image.
        settings: When detections of two tiles are the same object.

    Returns:
        The objects, highest score first.

    Raises:
        ValueError: unless there is one list of detections for each tile.
    """
    instances = [instance for of_tile in detections for instance in of_tile]
    tile = np.repeat(np.arange(len(tiles)), [len(of_tile) for _, of_tile in zip(tiles, detections, strict=True)])
    if not instances:
        return []
    frames = _boxes(tiles)
    found = _TileDetections(instances, _boxes(instances), tile, frames, frames != (0, 0, height, width))
    found = found.select(np.flatnonzero(~_owned_elsewhere(found, settings.edge_margin)))
    is_cut = found.is_cut(settings.edge_margin)
    objects, objects_cut = _merge(found.instances, is_cut, _link(found, is_cut, settings))
    return sorted(_suppress(objects, objects_cut, settings), key=lambda instance: -instance.score)


def _boxes(rectangles: Iterable[Tile | Instance]) -> np.ndarray:
    rows = [(rectangle.top, rectangle.left, rectangle.bottom, rectangle.right) for rectangle in rectangles]
    return np.array(rows, np.int64).reshape(-1, 4)


def _gaps(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """``(N, 4)`` distances in px from each box to the four edges of its frame, negative where it sticks out."""
    return (boxes - frames) * (1, 1, -1, -1)


def _owned_elsewhere(found: _TileDetections, margin: int) -> np.ndarray:
    """``(N,)`` bool: cut detections of which another tile sees the same and more.

    That tile holds the box, reaches further beyond it where it is cut, and comes nearer to it nowhere within three
    margins. Two detections of an object, each off by up to a margin, thus never give way to each other: the other's
    box is within two margins of this one, so that its own cut edges are none of those that this tile sees past.
    """
    chosen, other = _neighbouring_tiles(found, np.flatnonzero(found.is_cut(margin)))
    here, there = found.room(chosen, found.tile[chosen]), found.room(chosen, other)
    holds = np.all(_gaps(found.boxes[chosen], found.frames[other]) >= 0, axis=1)
    sees_more = np.any((here <= margin) & (there > here), axis=1)
    sees_less = np.any((there <= 3 * margin) & (there < here), axis=1)
    owned = np.zeros(len(found.tile), bool)
    owned[chosen[holds & sees_more & ~sees_less]] = True
    return owned


def _neighbouring_tiles(found: _TileDetections, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each chosen detection with each tile that overlaps its own."""
    first, second = overlapping_pairs(found.frames)
    tile, neighbour = np.concatenate([first, second]), np.concatenate([second, first])
    neighbour = neighbour[np.argsort(tile, kind="stable")]
    counts = np.bincount(tile, minlength=len(found.frames))
    starts = np.cumsum(counts) - counts
    per_detection = counts[found.tile[chosen]]
    return np.repeat(chosen, per_detection), neighbour[ranges(starts[found.tile[chosen]], per_detection)]


def _link(found: _TileDetections, is_cut: np.ndarray, settings: StitchSettings) -> list[list[int]]:
    """Group the detections of each object, strongest links first, those between whole detections before all others."""
    first, second = overlapping_pairs(found.boxes)
    class_id = np.array([instance.class_id for instance in found.instances])
    comparable = (class_id[first] == class_id[second]) | settings.one_class_per_cell
    candidates = comparable & (found.tile[first] != found.tile[second])
    first, second = first[candidates], second[candidates]
    both_cut = is_cut[first] & is_cut[second]
    similarity = _similarity(found, first, second)
    for pair in np.flatnonzero(both_cut & (similarity > 0) & (similarity < settings.agreement_threshold)):
        similarity[pair] = _component_similarity(found, int(first[pair]), int(second[pair]))
    centre = found.boxes[:, :2] + found.boxes[:, 2:]  # twice the centre
    near = np.hypot(*(centre[first] - centre[second]).T) <= 2 * settings.match_distance
    agrees = similarity >= settings.agreement_threshold
    linked = agrees | (near & (similarity > 0))
    order = np.lexsort((-similarity, is_cut[first] | is_cut[second]))
    order = order[linked[order]]
    pairs = zip(first[order].tolist(), second[order].tolist(), (both_cut & agrees)[order].tolist(), strict=True)
    return _groups(pairs, found.tile.tolist())


def _groups(pairs: Iterable[tuple[int, int, bool]], tile: list[int]) -> list[list[int]]:
    """Join detections pair by pair; unless both are cut, only where the two groups have no tile in common.

    An object may be in several pieces in one tile (both ends of a horseshoe), so it does not hold for cut ones.
    """
    group_of = [[index] for index in range(len(tile))]
    tiles_of = [{number} for number in tile]
    root = list(range(len(tile)))
    for first, second, both_cut in pairs:
        a, b = sorted((root[first], root[second]), key=lambda group: -len(group_of[group]))
        if a == b or not (both_cut or tiles_of[a].isdisjoint(tiles_of[b])):
            continue
        for index in group_of[b]:
            root[index] = a
        group_of[a] += group_of[b]
        tiles_of[a] |= tiles_of[b]
        group_of[b] = []
    return [group for group in group_of if group]


def _similarity(found: _TileDetections, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(P,)`` IoU of the pairs' masks within what both tiles see."""
    shared = shared_pixels(found.instances, first, second)
    area_first = _area_seen(found, first, found.frames[found.tile[second]])
    area_second = _area_seen(found, second, found.frames[found.tile[first]])
    return shared / np.maximum(area_first + area_second - shared, 1)


def _area_seen(found: _TileDetections, which: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """``(P,)`` mask areas of the detections ``which[i]`` within ``frames[i]``."""
    areas = np.array([instance.area for instance in found.instances], np.int64)[which]
    for pair in np.flatnonzero((_gaps(found.boxes[which], frames) < 0).any(axis=1)):
        instance, (top, left, bottom, right) = found.instances[which[pair]], frames[pair].tolist()
        rows = slice(max(top - instance.top, 0), max(bottom - instance.top, 0))
        columns = slice(max(left - instance.left, 0), max(right - instance.left, 0))
        areas[pair] = np.count_nonzero(instance.mask[rows, columns])
    return areas


def _component_similarity(found: _TileDetections, first: int, second: int) -> float:
    """The best IoU of a connected part of one mask and one of the other, within what both tiles see.

    Two detections of a winding object need not share all that either sees of it, but agree on the parts they share.
    """
    top, left = np.maximum(*found.frames[found.tile[[first, second]], :2]).tolist()
    bottom, right = np.minimum(*found.frames[found.tile[[first, second]], 2:]).tolist()
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


def _merge(
    instances: Sequence[Instance], is_cut: np.ndarray, groups: Iterable[Sequence[int]]
) -> tuple[list[Instance], np.ndarray]:
    """One object per group, and whether it stems from cut tile detections only."""
    objects, objects_cut = [], []
    for group in groups:
        best_first = sorted((instances[index] for index in group), key=lambda instance: -instance.score)
        whole = [instances[index] for index in group if not is_cut[index]]
        merged = max(whole, key=lambda instance: instance.score) if whole else union(best_first)
        probabilities = _mean_probabilities(best_first)
        objects.append(replace(merged, probabilities=probabilities) if probabilities else merged)
        objects_cut.append(not whole)
    return objects, np.array(objects_cut, bool)


def _mean_probabilities(instances: Sequence[Instance]) -> tuple[float, ...]:
    """The mean class probabilities of some objects, as far as they are known."""
    known = [instance.probabilities for instance in instances if instance.probabilities]
    return tuple(sum(of_class) / len(known) for of_class in zip(*known, strict=True))


def _suppress(objects: Sequence[Instance], is_cut: np.ndarray, settings: StitchSettings) -> list[Instance]:
    """Greedy suppression by mask within each class: whole objects by score, then cut ones by area.

    So a fragment, whatever its score, never suppresses the whole object, and of two cut objects the one stays of which
    more was seen. A cut object falls where a kept one covers enough of it, but not for a small one that it covers.
    """
    boxes = _boxes(objects)
    score, area, class_id = (
        np.array([getattr(one, name) for one in objects]) for name in ("score", "area", "class_id")
    )
    rank = np.argsort(np.lexsort((np.where(is_cut, -area, -score), is_cut)))
    first, second = overlapping_pairs(boxes)
    swap = rank[first] > rank[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    least = min(settings.iou_threshold, settings.containment_threshold, settings.agreement_threshold)
    bound = _box_intersection(boxes[first], boxes[second])
    comparable = (class_id[first] == class_id[second]) | settings.one_class_per_cell
    possible = comparable & (bound >= least * np.minimum(area[first], area[second]))
    first, second = first[possible], second[possible]
    shared = shared_pixels(objects, first, second)
    iou = shared / (area[first] + area[second] - shared)
    least_area = np.where(is_cut[second], area[second], np.minimum(area[first], area[second]))
    enough = np.where(is_cut[second], settings.agreement_threshold, settings.containment_threshold)
    falls = (iou >= settings.iou_threshold) | (shared / least_area >= enough)
    kept = np.ones(len(objects), bool)
    for pair in np.flatnonzero(falls)[np.argsort(rank[second[falls]], kind="stable")]:
        kept[second[pair]] &= not kept[first[pair]]
    return [instance for instance, stays in zip(objects, kept, strict=True) if stays]


def _box_intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(P,)`` areas shared by overlapping boxes."""
    return (np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])).prod(axis=1)
