"""Made slides: cells on tissue of islands, written as pyramidal TIFF."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from torch import Tensor, nn

GLASS, STROMA, CELL = (244, 243, 245), (222, 150, 190), (70, 40, 130)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two islands of tissue on glass, with dark ellipses on them that do not touch."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), GLASS, np.uint8)
    for left in (width // 16, width * 9 // 16):
        middle, axes = (left + width * 3 // 16, height // 2), (width * 3 // 16, height * 7 // 16)
        cv2.ellipse(image, middle, axes, 0, 0, 360, STROMA, -1)
    for row in range(20, height - 20, 36):
        for column in range(20, width - 20, 36):
            y, x = row + int(rng.integers(-4, 5)), column + int(rng.integers(-4, 5))
            if (image[y - 12 : y + 13, x - 12 : x + 13] == STROMA).all():
                axes = tuple(int(side) for side in rng.integers(5, 11, 2))
                cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, CELL, -1)
    return image


def write_pyramid(path: Path, image: np.ndarray, levels: int = 3, mpp: float | None = 0.5, **how: object) -> Path:
    """A pyramidal TIFF of tiles, each level half as large as the one before, with its resolution in the tags."""
    known = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None, **known, **how}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(image, subifds=levels - 1, **options)
        for _ in range(levels - 1):
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
            file.write(image, subfiletype=1, **options)
    return path


def write_philips(path: Path, image: np.ndarray, mpp: float) -> Path:
    """A TIFF as Philips' scanners write it, with one level: the resolution stands in XML alone."""
    spacing = f'<Attribute Name="DICOM_PIXEL_SPACING">&quot;{mpp / 1e3}&quot; &quot;{mpp / 1e3}&quot;</Attribute>'
    level = f'<DataObject ObjectType="PixelDataRepresentation">{spacing}</DataObject>'
    levels = f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{level}</Array></Attribute>'
    kind = '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
    scanned = f'<DataObject ObjectType="DPScannedImage">{kind}{spacing}{levels}</DataObject>'
    images = f'<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>{scanned}</Array></Attribute>'
    tifffile.imwrite(
        path, image, tile=(64, 64), photometric="rgb", compression="jpeg", software="Philips DP v1.0", metadata=None,
        description=f'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">{images}</DataObject>',
    )  # fmt: skip
    return path


def break_stored_tile(path: Path, number: int) -> None:
    """Overwrite a stored tile of a TIFF with zeros."""
    with tifffile.TiffFile(path) as file:
        offset, count = (getattr(file.pages.first, name)[number] for name in ("dataoffsets", "databytecounts"))
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)


def write_large(path: Path, side: int = 20_000) -> int:
    """A square slide of glass with three islands of tissue, and the number of its cells.

    The stored tiles of tissue are all the same, compressed once, and those of glass are left out, as scanners do, so
    that the file is small and made at once. A second level, for thumbnails, is a fourth as large.
    """
    stored = 512
    across = -(-side // stored)
    rows, columns = np.mgrid[:across, :across] / across
    islands = [(0.25, 0.25), (0.7, 0.35), (0.5, 0.8)]
    is_tissue = np.any([(rows - y) ** 2 + (columns - x) ** 2 < 0.1**2 for y, x in islands], axis=0)
    tissue = np.full((stored, stored, 3), STROMA, np.uint8)
    for y in range(64, stored, 128):
        for x in range(64, stored, 128):
            cv2.ellipse(tissue, (x, y), (10, 7) if (x + y) % 256 else (7, 10), 0, 0, 360, CELL, -1)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in (1, 4):
            tile = np.ascontiguousarray(
                cv2.resize(tissue, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
            )
            encoded = zlib.compress(tile.tobytes())
            file.write(
                (encoded if shown else b"" for shown in is_tissue.ravel()), shape=(side // factor, side // factor, 3),
                dtype=np.uint8, tile=tile.shape[:2], photometric="rgb", compression="zlib", metadata=None,
                subifds=1 if factor == 1 else 0, subfiletype=int(factor > 1), resolution=(2e4 / factor, 2e4 / factor),
                resolutionunit="CENTIMETER",
            )  # fmt: skip
    return int(is_tissue.sum()) * (stored // 128) ** 2


class DarkFinder(nn.Module):
    """A stand-in for the network: each dark spot of a tile is a cell, with an exact mask; of two classes, by width."""

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        return [self._of_tile(tile.permute(1, 2, 0).numpy()) for tile in tiles]

    @staticmethod
    def _of_tile(tile: np.ndarray) -> dict[str, Tensor]:
        dark = (tile[..., 0] < 140).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
        boxes, masks = np.zeros((count - 1, 4), np.float32), np.zeros((count - 1, 28, 28), np.float32)
        for label in range(1, count):
            left, top, width, height = stats[label, :4]
            side = max(width, height, 1)
            boxes[label - 1] = (left, top, left + width, top + height)
            spot = (labels[top : top + height, left : left + width] == label).astype(np.float32)
            masks[label - 1] = cv2.resize(spot, (28, 28), interpolation=cv2.INTER_AREA) if side else 0
        labels_of = 1 + (boxes[:, 2] - boxes[:, 0] > boxes[:, 3] - boxes[:, 1])
        shares = np.stack([labels_of == 1, labels_of == 2], axis=1).astype(np.float32)
        return {
            "boxes": torch.from_numpy(boxes),
            "scores": torch.full((count - 1,), 0.9),
            "labels": torch.from_numpy(labels_of.astype(np.int64)),
            "masks": torch.from_numpy(masks),
            "mask_rois": torch.from_numpy(boxes),
            "probabilities": torch.from_numpy(shares),
        }
