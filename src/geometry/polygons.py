"""Masks from polygons, and polygons from masks.

Formats differ in where a pixel lies. In regions drawn on slides (:func:`fill`) its centre is at whole numbers; in the
polygons of COCO and in ours (:func:`fill_as_coco`, :func:`outlines`) its corners are.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from src.geometry.instances import Instance, tight

FAR = 1e6  # px; corners are clipped to it, so that nothing overflows
Ring = np.ndarray  # (N, 2) corners, x and y, the first not repeated


def fill(corners: Ring, class_id: int, height: int, width: int) -> Instance | None:
    """The pixels of a ``height × width`` image whose centres lie in a polygon or on its edge; ``None`` without any.

    ``corners`` (N, 2) float, x and y, where the centre of the first pixel is at (0, 0).
    """
    from skimage.draw import polygon  # slow to import

    corners = corners.clip(-FAR, FAR)
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    if left >= right or top >= bottom:
        return None
    mask = np.zeros((bottom - top, right - left), bool)
    mask[polygon(corners[:, 1] - top, corners[:, 0] - left, mask.shape)] = True
    return tight(class_id, 1.0, int(top), int(left), mask)


def fill_as_coco(polygons: Sequence[Sequence[float]], height: int, width: int) -> str:
    """The union of polygons as COCO's tools draw it, as a compressed RLE of a ``height × width`` image.

    Each polygon is ``[x1, y1, x2, y2, …]`` in px, where the first pixel reaches from (0, 0) to (1, 1): for the rings of
    :func:`outlines` that is exact. COCO's C code takes memory by the length of the edges and does not check it, so
    polygons must not reach far beyond the image.
    """
    from pycocotools import mask as coco_mask

    counts = coco_mask.merge(coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width))["counts"]
    return str(counts.decode("ascii"))


def outlines(instance: Instance) -> list[list[Ring]]:
    """The exact polygons of an object along the edges of its pixels: per piece its outer ring, then its holes.

    Corners are whole numbers of the image, where the first pixel reaches from (0, 0) to (1, 1). Pieces that touch at a
    corner alone are pieces of their own.
    """
    polygons = []
    for piece, corner in _pieces(instance.mask, np.array([instance.left, instance.top])):
        whole = cv2.fillPoly(np.zeros(piece.shape, np.uint8), [_outer_pixels(piece)], 1).astype(bool)
        holes = [_edges(hole) + place for hole, place in _pieces(whole & ~piece, corner)]
        polygons.append([_edges(piece) + corner, *holes])
    return polygons


def _pieces(mask: np.ndarray, corner: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The 4-connected parts of a mask, each cropped, with its corner (x, y); the mask's own corner is ``corner``."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    for label, (left, top, width, height, _) in enumerate(boxes[1:count], start=1):
        yield labels[top : top + height, left : left + width] == label, corner + np.array([left, top])


def _outer_pixels(piece: np.ndarray) -> np.ndarray:
    return cv2.findContours(piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]


def _edges(piece: np.ndarray) -> Ring:
    """Outer ring of one piece along its pixels' edges, from the outermost pixels of the piece at twice its size."""
    doubled = piece.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = (contours[0][:, 0] + 1) // 2
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    return corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]  # corners on a straight edge are left out
