"""Detections of many tiles as columns, and which of them another tile sees better."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from src.geometry.instances import Instance
from src.geometry.overlaps import overlapping_pairs, ranges
from src.geometry.tiles import Tile


@dataclass(frozen=True, eq=False)
class Frames:
    """Where T tiles of an image lie: int rows ``top, left, bottom, right``, and which edges are inner edges (T, 4).

    ``rank`` (T,) sorts the tiles by place, so that nothing depends on the order in which they are listed. The tiles
    that overlap tile t are ``neighbours[starts[t] : starts[t + 1]]``.
    """

    boxes: np.ndarray
    inner: np.ndarray
    rank: np.ndarray
    neighbours: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, tiles: Sequence[Tile], height: int, width: int) -> "Frames":
        """The frames of the tiles of a ``height × width`` image."""
        boxes = boxes_of(tiles)
        rank = np.empty(len(tiles), np.int64)
        rank[np.lexsort(boxes.T[::-1])] = np.arange(len(tiles))
        first, second = overlapping_pairs(boxes)
        tile, neighbour = np.concatenate([first, second]), np.concatenate([second, first])
        counts = np.bincount(tile, minlength=len(tiles))
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(boxes, boxes != (0, 0, height, width), rank, neighbour[np.argsort(tile, kind="stable")], starts)

    def room(self, boxes: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """``(N, 4)`` distances in px from ``boxes[i]`` to the inner edges of ``tiles[i]``; other edges are far."""
        return np.where(self.inner[tiles], gaps(boxes, self.boxes[tiles]), np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class TileDetections:
    """N detections, which lie in their tiles: their boxes ``(N, 4)`` int64, tiles, and places among those of the tile.

    ``in_chain`` (N,) marks those that belong to a chain that is too long to be kept together (:mod:`chains`).
    """

    instances: list[Instance]
    boxes: np.ndarray
    tile: np.ndarray
    number: np.ndarray
    in_chain: np.ndarray

    @classmethod
    def of(cls, tile: int, instances: Sequence[Instance]) -> "TileDetections":
        """Those of one tile."""
        count = len(instances)
        return cls(list(instances), boxes_of(instances), np.full(count, tile), np.arange(count), np.zeros(count, bool))

    def __len__(self) -> int:
        return len(self.instances)

    def select(self, which: np.ndarray) -> "TileDetections":
        """Some of them, by index."""
        chosen = [self.instances[index] for index in which.tolist()]
        return TileDetections(chosen, self.boxes[which], self.tile[which], self.number[which], self.in_chain[which])


def concatenate(parts: Sequence[TileDetections]) -> TileDetections:
    """The detections of all parts."""
    columns = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "tile", "number", "in_chain")
    )
    return TileDetections([one for part in parts for one in part.instances], *columns)


def canonical(found: TileDetections, frames: Frames) -> TileDetections:
    """The detections in an order that is their own, best score first: ties never depend on the order of arrival."""
    score, class_id = (np.array([getattr(one, name) for one in found.instances]) for name in ("score", "class_id"))
    keys = (found.number, frames.rank[found.tile], *found.boxes.T[::-1], class_id, -score)
    return found.select(np.lexsort(keys))


def boxes_of(rectangles: Iterable[Tile | Instance]) -> np.ndarray:
    """``(N, 4)`` int64 rows ``top, left, bottom, right``."""
    rows = [(rectangle.top, rectangle.left, rectangle.bottom, rectangle.right) for rectangle in rectangles]
    return np.array(rows, np.int64).reshape(-1, 4)


def gaps(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """``(N, 4)`` distances in px from each box to the four edges of its frame, negative where it sticks out."""
    return (boxes - frames) * (1, 1, -1, -1)


def is_cut(found: TileDetections, frames: Frames, margin: int) -> np.ndarray:
    """``(N,)`` bool: whether each detection comes near an inner edge of its own tile."""
    return np.any(frames.room(found.boxes, found.tile) <= margin, axis=1)


def owned_elsewhere(found: TileDetections, frames: Frames, margin: int) -> np.ndarray:
    """``(N,)`` bool: cut detections of which another tile sees the same and more.

    That tile holds the box, reaches further beyond it where it is cut, and comes nearer to it nowhere within three
    margins. Two detections of an object, each off by up to a margin, thus never give way to each other: the other's
    box is within two margins of this one, so that its own cut edges are none of those that this tile sees past.
    """
    chosen, other = _neighbouring_tiles(found, frames, np.flatnonzero(is_cut(found, frames, margin)))
    here, there = frames.room(found.boxes[chosen], found.tile[chosen]), frames.room(found.boxes[chosen], other)
    holds = np.all(gaps(found.boxes[chosen], frames.boxes[other]) >= 0, axis=1)
    sees_more = np.any((here <= margin) & (there > here), axis=1)
    sees_less = np.any((there <= 3 * margin) & (there < here), axis=1)
    owned = np.zeros(len(found), bool)
    owned[chosen[holds & sees_more & ~sees_less]] = True
    return owned


def _neighbouring_tiles(found: TileDetections, frames: Frames, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each chosen detection with each tile that overlaps its own."""
    starts = frames.starts[found.tile[chosen]]
    counts = frames.starts[found.tile[chosen] + 1] - starts
    return np.repeat(chosen, counts), frames.neighbours[ranges(starts, counts)]
