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

Tiles may come one by one (:class:`Stitcher`): an object leaves as soon as no later tile can change it, and the objects
are the same in any order of the tiles, or with all tiles at once. Ties are broken by what the detections are and where
they lie. :mod:`src.geometry.chains` bounds how far one object, or a chain of them, can reach.

Suppression also applies to pairs of the same tile: what box suppression leaves there are mostly parts of a cell within
the cell. Touching cells that overlap by a few px stay below both thresholds, except the very smallest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.geometry.chains import bounded_parts, whole_parts
from src.geometry.instances import Instance
from src.geometry.linking import find_links, group, merge
from src.geometry.overlaps import overlapping_pairs
from src.geometry.stitch_settings import StitchSettings
from src.geometry.suppression import Objects, by_precedence, find_suppressions, suppress
from src.geometry.suppression import concatenate as concatenate_objects
from src.geometry.tile_detections import (
    Frames,
    TileDetections,
    boxes_of,
    canonical,
    concatenate,
    is_cut,
    owned_elsewhere,
)
from src.geometry.tiles import Tile

AS_USUAL = StitchSettings()


def stitch(
    tiles: Sequence[Tile],
    detections: Sequence[Sequence[Instance]],
    height: int,
    width: int,
    settings: StitchSettings = AS_USUAL,
) -> list[Instance]:
    """Make the objects of a ``height × width`` image from what was detected in its tiles.

    Objects of different classes do not affect each other unless ``settings`` ask for one class per cell. Time and
    memory grow with the number of detections, not with the image.

    Args:
        tiles: Where the tiles lie, in any order, in px of the image. They may repeat, and a tile of the
            whole image may be among them.
        detections: ``detections[i]`` are those made in ``tiles[i]``, inside of it, in px of the image.
        height: Rows of the image.
        width: Columns of the image.
        settings: When detections of two tiles are the same object.

    Returns:
        The objects, highest score first.

    Raises:
        ValueError: unless there is one list of detections for each tile.
    """
    found = [TileDetections.of(tile, some) for tile, (_, some) in enumerate(zip(tiles, detections, strict=True))]
    if not any(map(len, found)):
        return []
    objects = Stitcher(tiles, height, width, settings).advance(concatenate(found), height)
    return sorted(objects, key=lambda one: (-one.score, one.class_id, one.top, one.left, one.bottom, one.right))


@dataclass(frozen=True, eq=False)
class StitchState:
    """What a :class:`Stitcher` keeps behind the rows of tiles ``0 … next_row - 1``."""

    next_row: int
    pending: TileDetections
    """Detections that later tiles may link to."""
    waiting: Objects
    """Objects that overlap such detections."""


class Stitcher:
    """Stitching while tiles come, in any order, each once; memory is bounded by the detections of a few rows of tiles.

    Tiles are taken up by rows, from the top: objects leave in an order that does not depend on that of the tiles. The
    other arguments are those of :func:`stitch`.
    """

    def __init__(self, tiles: Sequence[Tile], height: int, width: int, settings: StitchSettings = AS_USUAL) -> None:
        self._frames, self._height, self._settings = Frames.of(tiles, height, width), height, settings
        self._pending, self._waiting = TileDetections.of(0, []), Objects.none()
        self._tops, row, missing = np.unique(self._frames.boxes[:, 0], return_inverse=True, return_counts=True)
        self._row = row.ravel()
        self._missing = missing.tolist()  # tiles of each row that have not come yet
        self._arrived: dict[int, list[TileDetections]] = {row: [] for row in range(len(missing))}
        self._next_row = 0

    @property
    def state(self) -> StitchState:
        """What it takes to go on from here, but for tiles of rows that are not complete."""
        return StitchState(self._next_row, self._pending, self._waiting)

    def go_on_from(self, state: StitchState) -> list[int]:
        """Take the state of another stitcher with the same arguments; the tiles that are still to come."""
        self._next_row, self._pending, self._waiting = state.next_row, state.pending, state.waiting
        return np.flatnonzero(self._row >= state.next_row).tolist()

    @property
    def waiting(self) -> int:
        """How many detections and objects are kept, of rows of tiles that are complete."""
        return len(self._pending) + len(self._waiting.instances)

    def add(self, tile: int, detections: Sequence[Instance]) -> list[Instance]:
        """Take the detections of ``tiles[tile]``, and give the objects that no tile that is missing can change."""
        row = int(self._row[tile])
        self._arrived[row].append(TileDetections.of(tile, detections))
        self._missing[row] -= 1
        objects = []
        while self._next_row < len(self._missing) and not self._missing[self._next_row]:
            arrived = self._arrived.pop(self._next_row)
            self._next_row += 1
            is_last = self._next_row == len(self._missing)
            objects += self.advance(concatenate(arrived), self._height if is_last else int(self._tops[self._next_row]))
        return objects

    def advance(self, new: TileDetections, frontier: int) -> list[Instance]:
        """Take detections, after which no others reach above the row ``frontier``; the objects that are final."""
        new = new.select(np.flatnonzero(~owned_elsewhere(new, self._frames, self._settings.edge_margin)))
        objects = self._merged(canonical(concatenate([self._pending, new]), self._frames), frontier)
        return self._unique(by_precedence(concatenate_objects([self._waiting, objects])))

    def _merged(self, found: TileDetections, frontier: int) -> Objects:
        """Objects of the detections that nothing below the frontier can link to; the others stay pending."""
        cut = is_cut(found, self._frames, self._settings.edge_margin)
        links = find_links(found, self._frames, cut, self._settings)
        parts = bounded_parts(links.first, links.second, found.boxes[:, :2], found.in_chain, self._settings.band)
        is_ready = whole_parts(parts.part, found.boxes[:, 2] <= frontier)
        self._pending = replace(found, in_chain=parts.in_chain).select(np.flatnonzero(~is_ready))
        groups = group(links.select(np.flatnonzero(parts.counts & is_ready[links.first])), found.tile)
        groups = [members for members in groups if is_ready[members[0]]]
        first = np.array([members[0] for members in groups], np.int64)
        return Objects(
            [merge([found.instances[index] for index in members], cut[members].tolist()) for members in groups],
            np.array([cut[members].all() for members in groups], bool),
            np.stack([self._frames.rank[found.tile[first]], found.number[first]], axis=1),
            np.zeros(len(groups), bool),
        )

    def _unique(self, objects: Objects) -> list[Instance]:
        """The objects that stay, of those that overlap no pending detection; the others wait."""
        first, second = find_suppressions(objects, self._settings)
        boxes = boxes_of(objects.instances)
        parts = bounded_parts(first, second, boxes[:, :2], objects.in_chain, self._settings.band)
        is_ready = whole_parts(parts.part, ~_overlap_any(boxes, self._pending.boxes))
        kept = suppress(first[parts.counts], second[parts.counts], len(boxes))
        self._waiting = replace(objects, in_chain=parts.in_chain).select(np.flatnonzero(~is_ready))
        return [objects.instances[index] for index in np.flatnonzero(kept & is_ready).tolist()]


def _overlap_any(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``(N,)`` bool: which boxes share a pixel with one of the others."""
    first, second = overlapping_pairs(np.concatenate([boxes, others]))
    overlaps = np.zeros(len(boxes) + len(others), bool)
    across = (first < len(boxes)) != (second < len(boxes))
    overlaps[first[across]] = overlaps[second[across]] = True
    return overlaps[: len(boxes)]
