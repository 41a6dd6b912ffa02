"""Made slides of any size, and stand-ins for the network that find their cells."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
import torch
from torch import Tensor, nn

BLOCK = 512  # px of a stored tile
PERIOD = 2048  # px after which the tissue repeats itself
MPP = 0.25
CELLS_PER_MM2 = 5000
GLASS, STROMA = (244, 243, 245), (222, 150, 190)
CELL = ((70, 40, 130), (100, 30, 90))  # by class
DARK = 165  # of red: stroma has more, cells have less
LEVELS = 4  # each a quarter as wide as the one before
QUALITY = 80
MASK = 28
LEAST_SPOT = 12


@dataclass(frozen=True)
class MadeSlide:
    """A slide to be made: ``height`` and ``width`` in px, and islands of tissue, which take ``share`` of its area.

    Islands repeat every ``period`` px along both axes, so that slides of the same width and different heights have the
    same columns of tissue.
    """

    height: int
    width: int
    period: int
    share: float = 0.32

    def tissue(self) -> np.ndarray:
        """Which blocks of px show tissue, ``(rows, columns)`` bool: ellipses, cut at the edges of blocks."""
        rows, columns = -(-self.height // BLOCK), -(-self.width // BLOCK)
        down = (np.arange(rows)[:, None] * BLOCK % self.period) / self.period - 0.5
        across = (np.arange(columns) * BLOCK % self.period) / self.period - 0.5
        return np.asarray(np.hypot(down, across) < np.sqrt(self.share / np.pi))

    @property
    def tissue_mm2(self) -> float:
        """The area of the tissue in mm²."""
        return float(self.tissue().sum() * (BLOCK * MPP / 1000) ** 2)


def texture(seed: int = 0) -> np.ndarray:
    """Tissue with cells of 5 to 9 µm that do not touch, ``(PERIOD, PERIOD, 3)`` uint8; its edges fit together."""
    rng = np.random.default_rng(seed)
    picture = np.full((PERIOD, PERIOD, 3), STROMA, np.int16)
    count = round(CELLS_PER_MM2 * (PERIOD * MPP / 1000) ** 2)
    side = int(np.ceil(np.sqrt(count)))
    spacing = PERIOD / side
    for number in rng.permutation(side**2)[:count]:
        place = (np.array(divmod(int(number), side)) + 0.5) * spacing + rng.uniform(-4, 4, 2)
        shape, color = np.zeros((56, 56), np.uint8), CELL[int(rng.integers(2))]
        axes = tuple(float(axis) for axis in rng.uniform(16, 34, 2))
        cv2.ellipse(shape, ((27.5, 27.5), axes, float(rng.uniform(0, 180))), 1, -1)
        top, left = (int(middle) - 28 for middle in place)
        rows, columns = (np.flatnonzero(shape.any(axis=axis)) for axis in (1, 0))
        inside = shape[np.ix_(rows, columns)].astype(bool)
        window = np.ix_((top + rows) % PERIOD, (left + columns) % PERIOD)
        picture[window] = np.where(inside[..., None], color, picture[window])
    noise = cv2.GaussianBlur(rng.normal(0, 24, picture.shape).astype(np.float32), (0, 0), 1.5)
    return np.asarray((picture + noise).clip(0, 255).astype(np.uint8))


def write_slide(path: Path, made: MadeSlide) -> None:
    """Write a pyramidal JPEG BigTIFF, a stored tile at a time."""
    tissue, picture = made.tissue(), texture()
    how: dict[str, Any] = {
        "tile": (BLOCK, BLOCK), "photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg", "metadata": None,
        "dtype": np.uint8, "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(LEVELS):
            down = 4**level
            small = cv2.resize(picture, None, fx=1 / down, fy=1 / down, interpolation=cv2.INTER_AREA)
            shape = (-(-made.height // down), -(-made.width // down), 3)
            lower: dict[str, Any] = {"subfiletype": 1} if level else {"subifds": LEVELS - 1}
            tiles = StoredTiles(shape, tissue, small, BLOCK // down)
            file.write(iter(tiles), shape=shape, resolution=(1e4 / MPP / down, 1e4 / MPP / down), **lower, **how)


@dataclass(frozen=True)
class StoredTiles:
    """The stored tiles of a level of ``shape``, compressed, on which a block of ``tissue`` takes ``block`` px."""

    shape: tuple[int, ...]
    tissue: np.ndarray
    picture: np.ndarray
    block: int
    _compressed: dict[tuple[int, int, bytes], bytes] = field(default_factory=dict)

    def __iter__(self) -> Iterator[bytes]:
        for top in range(0, self.shape[0], BLOCK):
            for left in range(0, self.shape[1], BLOCK):
                yield self._tile(top, left)

    def _tile(self, top: int, left: int) -> bytes:
        """A tile; most look like another one."""
        per_tile = BLOCK // self.block
        blocks = np.zeros((per_tile, per_tile), bool)
        row, column = top // self.block, left // self.block
        part = self.tissue[row : row + per_tile, column : column + per_tile]
        blocks[: part.shape[0], : part.shape[1]] = part
        side = len(self.picture)
        key = (top % side, left % side, blocks.tobytes()) if part.any() else (0, 0, b"")
        if key not in self._compressed:
            rows, columns = (np.arange(start, start + BLOCK) % side for start in key[:2])
            mask = blocks.repeat(self.block, axis=0).repeat(self.block, axis=1)[..., None]
            pixels = np.where(mask, self.picture[np.ix_(rows, columns)], np.array(GLASS, np.uint8))
            self._compressed[key] = bytes(
                imagecodecs.jpeg8_encode(
                    pixels, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420"
                )
            )
        return self._compressed[key]


class Finder(nn.Module):
    """A stand-in for the network, whose answer does not depend on the batch: each dark spot of a tile is a cell.

    ``seconds`` of a thread's CPU time that it took so far are kept, to be told from those of everything else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        """Detections of each of ``(B, 3, h, w)`` uint8 tiles, as the network gives them."""
        start = time.thread_time()
        found = [_spots(tile.permute(1, 2, 0).numpy()) for tile in tiles]
        self.seconds += time.thread_time() - start
        return found


def _spots(tile: np.ndarray) -> dict[str, Tensor]:
    dark = (tile[..., 0] < DARK).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8, ltype=cv2.CV_16U)
    chosen = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= LEAST_SPOT)[1:]
    masks = np.zeros((len(chosen), MASK, MASK), np.float32)
    blue = np.zeros(len(chosen), bool)
    for index, label in enumerate(chosen):
        left, top, width, height = stats[label, :4].tolist()
        spot = labels[top : top + height, left : left + width] == label
        masks[index] = cv2.resize(spot.astype(np.float32), (MASK, MASK), interpolation=cv2.INTER_LINEAR)
        blue[index] = tile[top + height // 2, left + width // 2, 1] > 35
    corner = stats[chosen, :2].astype(np.float32)
    boxes = torch.from_numpy(np.hstack([corner, corner + stats[chosen, 2:4]]).astype(np.float32))
    return {
        "boxes": boxes,
        "scores": torch.full((len(chosen),), 0.9),
        "labels": torch.from_numpy(2 - blue.astype(np.int64)),
        "masks": torch.from_numpy(masks),
        "mask_rois": boxes,
        "probabilities": torch.from_numpy(np.stack([blue, ~blue], axis=1) * np.float32(0.8) + np.float32(0.1)),
    }
