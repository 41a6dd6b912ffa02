"""One image, decoded and scaled, with the label map of its objects."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from src.data.classes import ANY_CLASS, UNKNOWN_CLASS
from src.data.masks import CellPixels, cell_pixels, count_in_pieces, read_cells
from src.data.records import Record
from src.data.scaling import scale_cells
from src.geometry.instances import extents


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """One image, decoded and scaled, with its objects.

    ``image`` is ``(H, W, 3)`` uint8 in the order of the file. ``label_map`` is ``(H, W, L)``, uint16 or int32: object
    ids 1..N, 0 for background, unique over all layers. Objects that overlap lie in different layers, and L is as small
    as that allows, so that time and memory do not grow with the number of classes. Regions to ignore are among the
    objects, with class id ``ANY_CLASS``, and cells of ``UNKNOWN_CLASS``. ``class_ids``, ``layers`` and ``areas`` are
    ``(N + 1,)`` int64 and ``boxes`` ``(N + 1, 4)`` int64 (xyxy in px, max exclusive), indexed by object id; entry 0
    stands for the background. An object that scaling made vanish has area 0. ``checksums`` (F,) uint32 are the CRC-32
    of the image's file and of those of its masks, by class, and of its regions to ignore.
    """

    image: np.ndarray
    label_map: np.ndarray
    class_ids: np.ndarray
    layers: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    checksums: np.ndarray

    @property
    def is_cell(self) -> np.ndarray:
        """``(N + 1,)`` bool: which objects are cells that scaling left, and not regions to ignore or background."""
        return (self.areas > 0) & (self.class_ids > ANY_CLASS)

    def class_counts(self, class_count: int | None = None) -> np.ndarray:
        """``(K,)`` number of objects of each class 1..K; ``class_count`` is K, if absent the highest that occurs."""
        known = self.class_ids[self.class_ids < UNKNOWN_CLASS]
        return np.bincount(known[1:], minlength=2 if class_count is None else class_count + 1)[1:]


def prepare(record: Record, intensity: str, scale: float, split_pieces: bool = False) -> PreparedImage:
    """Decode a record's image and masks and scale them; with ``split_pieces`` each piece of a cell is a cell."""
    image = scale_image(record.read(intensity), scale)
    cells = {class_id: _scale_cells(read_cells(path, split_pieces), scale) for class_id, path in record.masks.items()}
    if record.ambiguous:
        regions = read_cells(record.ambiguous)
        cells[ANY_CLASS] = _scale_cells(regions, scale)  # last, in layers of their own where needed
    label_map, class_ids, layers = stack_layers(cells, image.shape[:2])
    areas, boxes = extents(label_map.transpose(2, 0, 1), len(class_ids) - 1)
    files = [record.image, *record.masks.values(), *([record.ambiguous] if record.ambiguous else [])]
    checksums = np.array([zlib.crc32(path.read_bytes()) for path in files], np.uint32)
    return PreparedImage(image, label_map, class_ids, layers, areas, boxes, checksums)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """The size of a ``height × width`` image after scaling, in whole px, so that each side has a factor of its own."""
    return max(round(height * scale), 1), max(round(width * scale), 1)


def scale_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize an ``(H, W, 3)`` uint8 image by a factor, with area averaging where it shrinks."""
    if scale == 1:
        return image
    height, width = scaled_size(image.shape[0], image.shape[1], scale)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _scale_cells(cells: CellPixels, scale: float) -> CellPixels:
    return cells if scale == 1 else scale_cells(cells, scaled_size(*cells.shape, scale))


def stack_layers(cells: Mapping[int, CellPixels], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint the cells of all classes into as few layers as their overlaps allow.

    Args:
        cells: class id → its cells, all in an image of ``shape``.

    Returns:
        Label map ``(H, W, L)``, and the class and the layer ``(N + 1,)`` of each object, as in :class:`PreparedImage`.
    """
    counts = {class_id: int(of_class.ids.max(initial=0)) for class_id, of_class in cells.items()}
    narrow = np.uint16 if sum(counts.values()) <= np.iinfo(np.uint16).max else np.int32
    class_ids, layer_of = [0], [np.zeros(1, np.int64)]
    layers: list[np.ndarray] = [np.zeros(math.prod(shape), narrow)]
    for class_id, count in counts.items():
        places, ids, depth = cells[class_id].places, cells[class_id].ids, 0
        depths = np.zeros(count + 1, np.int64)
        while len(places):
            if depth == len(layers):
                layers.append(np.zeros_like(layers[0]))
            blocked = np.zeros(count + 1, bool)
            blocked[ids[layers[depth][places] > 0]] = True
            waiting = blocked[ids]
            layers[depth][places[~waiting]] = ids[~waiting] + (len(class_ids) - 1)
            places, ids, depth = places[waiting], ids[waiting], depth + 1
            depths[blocked] = depth
        class_ids += [class_id] * count
        layer_of.append(depths[1:])
    label_map = np.stack(layers, axis=-1).reshape(*shape, len(layers))
    return label_map, np.array(class_ids), np.concatenate(layer_of)


def cells_in_pieces(prepared: PreparedImage) -> int:
    """The number of objects that lie in several pieces."""
    layers = np.moveaxis(prepared.label_map, 2, 0)
    if (prepared.class_ids[1:] == ANY_CLASS).any():
        layers = np.where((prepared.class_ids > ANY_CLASS)[layers], layers, 0)
    return sum(count_in_pieces(cell_pixels(layer)) for layer in layers)


def pieces_warnings(in_pieces: int, cells: int) -> list[str]:
    """A warning where cells lie in several pieces, as they do in masks of 0 and 255 or of one id per class."""
    if not in_pieces:
        return []
    return [
        f"warning: {in_pieces:,} of {cells:,} cells lie in several pieces, as in a mask without an id per cell;"
        " --split-pieces makes each piece a cell"
    ]
