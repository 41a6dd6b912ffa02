"""Detections of the network in a tile, and how their small masks become objects of an image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from src.geometry.instances import Instance
from src.geometry.tiles import Tile

MASK_SHIFT = 0.5
"""RoIAlign with ``aligned=False``, which torchvision's Mask R-CNN takes its features and mask targets with, reads a box
half a px too far down and right: a box that starts at an edge of a pixel is sampled from that pixel's centre on."""

SPECK = 0.1  # of the area of a mask's largest piece; smaller pieces are no part of the cell
_CHUNK_PIXELS = 2**18  # detections are placed together up to so many px, which bounds the memory


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections in a tile or an image. Boxes are float32 xyxy in px, a pixel reaching from n to n + 1.

    ``boxes`` (N, 4) hold the objects; ``scores`` (N,) float32 are in [0, 1], ``labels`` (N,) int64 in 1..K; ``masks``
    (N, M, M) float32 are probabilities whose cells fill ``mask_boxes`` (N, 4) evenly. Pixels outside of ``mask_rois``
    (N, 4), which the mask head saw, belong to no object. ``probabilities`` (N, K) float32 are those of the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    mask_boxes: np.ndarray
    mask_rois: np.ndarray
    probabilities: np.ndarray

    def placed(self, left: float, top: float, scales: tuple[float, float]) -> "Detections":
        """Move detections from a tile at ``left, top`` of a scaled image to the px of the image itself.

        ``scales`` are the factors of its height and of its width.
        """
        offset, factor = np.array([left, top, left, top], np.float32), np.array(scales[::-1] * 2, np.float32)
        return self.with_boxes(lambda boxes: (boxes + offset) / factor)

    def with_boxes(self, change: Callable[[np.ndarray], np.ndarray]) -> "Detections":
        """These detections with ``change`` of their boxes, and of those of their masks."""
        boxes, mask_boxes, mask_rois = (change(boxes) for boxes in (self.boxes, self.mask_boxes, self.mask_rois))
        return replace(self, boxes=boxes, mask_boxes=mask_boxes, mask_rois=mask_rois)


def from_network(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    mask_rois: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> Detections:
    """Detections of a tile from the network's output, masks placed as training sampled them (:data:`MASK_SHIFT`).

    ``mask_rois`` are absent where they are the boxes, and ``probabilities`` where nobody asks for them.
    """
    rois = boxes if mask_rois is None else mask_rois
    known = np.zeros((len(boxes), 0), np.float32) if probabilities is None else probabilities
    return Detections(boxes, scores, labels, masks, rois + np.float32(MASK_SHIFT), rois, known)


def to_instances(detections: Detections, frame: Tile) -> list[Instance]:
    """Turn detections in the tile ``frame`` into objects of the image, in the same order, without a full-size mask.

    A pixel belongs to an object where its centre lies in the RoI of the mask and the probability there, bilinear
    between the centres of the mask's cells, exceeds 0.5. Pixels outside of ``frame``, which the network did not see,
    specks beside the object, and detections without a pixel are left out. torchvision's
    own ``paste_masks_in_image`` rounds the box to whole pixels first, which makes small cells too large.
    """
    found: list[Instance | None] = [None] * len(detections.boxes)
    start = np.ceil(detections.mask_rois[:, :2] - 0.5).clip((frame.left, frame.top)).astype(int)
    stop = np.ceil(detections.mask_rois[:, 2:] - 0.5).clip(max=(frame.right, frame.bottom)).astype(int)
    sides = (stop - start).max(axis=1) * (stop > start).all(axis=1)
    for chunk in _chunks(sides):
        _place(detections, chunk, start[chunk], stop[chunk], found)
    return [instance for instance in found if instance is not None]


def _chunks(sides: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of detections of similar size, as many at once as the bound on memory allows; empty ones are left out."""
    order = np.argsort(sides, kind="stable")
    begin = int(np.searchsorted(sides[order], 1))
    while begin < len(order):
        areas = sides[order[begin:]].astype(float) ** 2 * np.arange(1, len(order) - begin + 1)
        end = begin + max(int(np.searchsorted(areas, _CHUNK_PIXELS, side="right")), 1)
        yield order[begin:end]
        begin = end


def _place(
    detections: Detections, chunk: np.ndarray, start: np.ndarray, stop: np.ndarray, found: list[Instance | None]
) -> None:
    """Put the objects of a chunk, whose RoIs hold the pixels ``start`` to ``stop`` (x, y), into ``found``."""
    boxes, masks = detections.mask_boxes[chunk], detections.masks[chunk]
    columns, rows = (_pixel_weights(boxes[:, [k, k + 2]], start[:, k], stop[:, k], masks.shape[-1]) for k in (0, 1))
    inside = without_specks(np.asarray(rows @ masks @ columns.transpose(0, 2, 1) > 0.5))
    tops, bottoms = _extent(np.any(inside, axis=2))
    lefts, rights = _extent(np.any(inside, axis=1))
    corners = (start + np.stack([lefts, tops], axis=1)).tolist()
    columns_of = (detections.labels, detections.scores, detections.probabilities)
    labels, scores, probabilities = (values[chunk].tolist() for values in columns_of)
    for i in np.flatnonzero(tops < bottoms).tolist():
        mask, (left, top) = inside[i, tops[i] : bottoms[i], lefts[i] : rights[i]].copy(), corners[i]
        found[chunk[i]] = Instance(labels[i], scores[i], top, left, mask, tuple(probabilities[i]))


def without_specks(masks: np.ndarray) -> np.ndarray:
    """``(N, h, w)`` bool masks, each without its 8-connected pieces below :data:`SPECK` of its largest one's area."""
    if not masks.size:
        return masks
    count, height, width = masks.shape
    apart = np.zeros((count, height + 1, width), np.uint8)  # one picture of all, an empty row below each
    apart[:, :height] = masks
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(apart.reshape(-1, width), connectivity=8)
    areas, mask = stats[1:, cv2.CC_STAT_AREA], stats[1:, cv2.CC_STAT_TOP] // (height + 1)
    largest = np.zeros(count, np.int64)
    np.maximum.at(largest, mask, areas)
    stays = np.concatenate([[False], areas >= SPECK * largest[mask]])
    return masks if stays[1:].all() else stays[pieces].reshape(apart.shape)[:, :height]


def _extent(any_pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last index + 1 of a True in each row of an ``(N, P)`` array; (0, 0) without any."""
    some = any_pixel.any(axis=1)
    return any_pixel.argmax(axis=1) * some, (any_pixel.shape[1] - any_pixel[:, ::-1].argmax(axis=1)) * some


def _pixel_weights(sides: np.ndarray, start: np.ndarray, stop: np.ndarray, resolution: int) -> np.ndarray:
    """``(N, P, M)`` weights of the mask cells at the centres of pixels ``start[i] + 0..P - 1``; 0 from ``stop`` on."""
    steps = np.arange((stop - start).max())
    cells = ((start[:, None] + steps + 0.5) - sides[:, :1]) * (resolution / _length(sides))
    return _bilinear(cells, resolution) * (steps < (stop - start)[:, None])[..., None]


def resample(masks: np.ndarray, boxes: np.ndarray, new_boxes: np.ndarray) -> np.ndarray:
    """Masks ``(N, M, M)`` that fill ``boxes``, read bilinearly at the cells of ``new_boxes``."""
    centres = (np.arange(masks.shape[-1], dtype=np.float32) + 0.5) / masks.shape[-1]
    columns, rows = (
        _bilinear(
            (new[:, :1] + centres * _length(new) - old[:, :1]) * (masks.shape[-1] / _length(old)), masks.shape[-1]
        )
        for old, new in ((boxes[:, [k, k + 2]], new_boxes[:, [k, k + 2]]) for k in (0, 1))
    )
    return np.asarray(rows @ masks @ columns.transpose(0, 2, 1))


def _length(sides: np.ndarray) -> np.ndarray:
    return np.maximum(sides[:, 1:] - sides[:, :1], 1e-3)


def _bilinear(cells: np.ndarray, resolution: int) -> np.ndarray:
    """``(N, P, M)`` float32 weights of M cells at ``cells`` (N, P), their centres at 0.5, 1.5, …, the ends held."""
    positions = (cells - 0.5).clip(0, resolution - 1).astype(np.float32)
    return np.maximum(1 - np.abs(positions[..., None] - np.arange(resolution, dtype=np.float32)), 0)
