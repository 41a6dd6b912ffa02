"""Tiles of training images with their targets. The one place that augments."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would open a network connection at import

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from engine.interrupt import deaf_to_ctrl_c
from src.cache import ImageCache, PreparedImage
from src.errors import InputError
from src.instances import extents
from src.records import Record
from src.settings import AugmentSettings, TileSettings
from src.tiles import FILL, Tile, pad_to, tile_grid

cv2.setNumThreads(0)  # a tile is too small to share out, and a worker forked beside OpenCV's threads would hang

Key = tuple[int, int]  # epoch, index of the tile
Item = tuple[np.ndarray, dict[str, np.ndarray], str]
OBJECT_KEYS = ("boxes", "labels", "layers", "ids")


class TileDataset(Dataset[Item]):
    """Augmented tiles of the images of ``records``.

    An item is asked for by ``(epoch, index)``, and what it is is a pure function of that and ``seed``: no worker has a
    state of its own, and a resumed run sees the same data.
    """

    def __init__(
        self,
        records: Sequence[Record],
        cache: ImageCache,
        tiles: TileSettings,
        augment: AugmentSettings,
        swap_channels: bool,
        seed: int,
    ) -> None:
        self.records = records
        self.cache = cache
        self.settings = tiles
        self.augment = augment
        self.swap_channels = swap_channels
        self.seed = seed
        self._opened: dict[int, PreparedImage] = {}
        self.tiles = self._choose_tiles()

    def __len__(self) -> int:
        return len(self.tiles)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process is sent where it is not forked: it opens the images itself, none is copied."""
        return {**vars(self), "_opened": {}}

    def __getitem__(self, key: Key) -> Item:
        """The tile ``(S, S, 3)`` uint8 RGB, its target (see :func:`tile_target`) and its name for messages."""
        epoch, index = key
        record, tile = self.tiles[index]
        prepared = self._open(record)
        image, label_map = self._crop(prepared, tile)
        transform = augmentation(self.augment)
        transform.set_random_seed(int(np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)[0]))
        augmented = transform(image=image, mask=label_map)
        target = tile_target(augmented["mask"], prepared, self.settings.min_visible)
        return augmented["image"], target, f"{self.records[record].name} at row {tile.top}, column {tile.left}"

    def _crop(self, prepared: PreparedImage, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """A tile's image and label map, padded on the right and below to the full tile size."""
        window = np.s_[tile.top : tile.bottom, tile.left : tile.right]
        image = prepared.image[window][..., ::-1] if self.swap_channels else prepared.image[window]
        size = self.settings.tile_size
        return pad_to(image, size), pad_to(prepared.label_map[window], size, value=0)

    def _open(self, record: int) -> PreparedImage:
        """Memory maps are cheap to keep; images that the cache had no room for are not, and few of them stay."""
        if record not in self._opened:
            prepared = self.cache.get(self.records[record])
            if not isinstance(prepared.image, np.memmap) and len(self._opened) >= 8:
                self._opened.pop(next(iter(self._opened)))
            self._opened[record] = prepared
        return self._opened[record]

    def _choose_tiles(self) -> tuple[tuple[int, Tile], ...]:
        """All tiles with cells, and ``empty_fraction`` as many without, drawn at random."""
        full: list[tuple[int, Tile]] = []
        empty: list[tuple[int, Tile]] = []
        for record in range(len(self.records)):
            prepared = self._open(record)
            height, width = prepared.image.shape[:2]
            for tile in tile_grid(height, width, self.settings.tile_size, self.settings.overlap):
                (full if self._has_cells(prepared, tile) else empty).append((record, tile))
        kept = min(len(empty), round(self.settings.empty_fraction * len(full)))
        order = np.random.default_rng(self.seed).permutation(len(empty))[:kept]
        return (*full, *(empty[i] for i in sorted(order)))

    def _has_cells(self, prepared: PreparedImage, tile: Tile) -> bool:
        """Whether a tile shows enough of an object; only where it holds none as a whole are its pixels counted."""
        boxes = prepared.boxes[prepared.areas > 0]
        inside = (boxes[:, :2] >= (tile.left, tile.top)) & (boxes[:, 2:] <= (tile.right, tile.bottom))
        if inside.all(axis=1).any():
            return True
        window = prepared.label_map[tile.top : tile.bottom, tile.left : tile.right]
        shown = np.bincount(window[window > 0], minlength=len(prepared.areas))
        return bool(is_visible(shown, prepared.areas, self.settings.min_visible).any())


def is_visible(shown: np.ndarray, whole: np.ndarray, min_visible: float) -> np.ndarray:
    """Whether of each object, by its pixels, at least the share ``min_visible`` of the whole is shown."""
    return (shown > 0) & (shown >= min_visible * whole)


def tile_target(label_map: np.ndarray, prepared: PreparedImage, min_visible: float) -> dict[str, np.ndarray]:
    """What a tile teaches, without a mask per cell.

    A cell that the tile's edge (or the augmentation) cuts is a target from its visible share up; below it is
    background. A change of size by the augmentation moves that limit by as much.

    Args:
        label_map: ``(h, w, L)`` integer ids of the image's objects, cut out and warped.

    Returns:
        ``boxes`` (N, 4) float32 xyxy in tile px, max exclusive; ``labels`` (N,) int64 in 1..K; ``label_map`` (L, h, w)
        as given, and ``layers`` and ``ids`` (N,) int64: where in it each object is painted.
    """
    layers = np.ascontiguousarray(label_map.transpose(2, 0, 1))
    shown, boxes = extents(layers, len(prepared.areas) - 1)
    ids = np.flatnonzero(is_visible(shown, prepared.areas, min_visible))
    return {
        "boxes": boxes[ids].astype(np.float32),
        "labels": prepared.categories[ids],
        "label_map": layers,
        "layers": prepared.layers[ids],
        "ids": ids,
    }


class SquareSymmetry(A.DualTransform):
    """One of the eight flips and quarter turns of a square, as ``A.D4``, but through OpenCV, which copies faster."""

    def get_params(self) -> dict[str, int]:
        """Draw which one: bit 0 swaps rows and columns, bits 1 and 2 then flip the rows and the columns."""
        return {"element": self.py_random.randrange(8)}

    def apply(self, img: np.ndarray, element: int, **params: object) -> np.ndarray:
        """Turn an ``(S, S)`` or ``(S, S, C)`` array."""
        turned = cv2.transpose(img) if element & 1 else img
        if element & 6:
            turned = cv2.flip(turned, {2: 0, 4: 1, 6: -1}[element & 6])
        return turned.reshape(img.shape)

    def apply_to_mask(self, mask: np.ndarray, element: int, **params: object) -> np.ndarray:
        """As the image."""
        return self.apply(mask, element)


class RgbAffine(A.Affine):
    """``A.Affine``; OpenCV 5 warps four channels in half the time it takes for three, to the same values."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Warp an ``(S, S, 3)`` image beside an empty fourth channel."""
        return cv2.cvtColor(super().apply(cv2.cvtColor(img, cv2.COLOR_RGB2RGBA), **params), cv2.COLOR_RGBA2RGB)


@lru_cache(maxsize=4)
def augmentation(settings: AugmentSettings) -> A.Compose:
    """The chain for an image and its label map: flips and quarter turns, small shift-scale-rotate, colour jitter."""
    transforms: list[A.BasicTransform] = []
    if settings.augment != "none":
        transforms.append(SquareSymmetry(p=1))
    if settings.augment == "full":
        transforms += [
            RgbAffine(
                scale=(0.9, 1.1),
                translate_percent=(-0.0625, 0.0625),
                rotate=(-15, 15),
                shear=0,
                fill=FILL,
                p=settings.affine_prob,
            ),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=settings.jitter_prob),
        ]
    return A.Compose(transforms)


class EpochSampler(Sampler[Key]):
    """One rank's share of an epoch's tiles in random order, as ``(epoch, index)``.

    The order is a pure function of (seed, epoch). All ranks get equally many, a few tiles twice where the number does
    not divide. ``skip`` leaves out the first items of the next pass: a resumed run goes on where it stopped.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch, self.skip = 0, 0

    def __len__(self) -> int:
        return -(-self.length // self.world_size) - self.skip

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        padded = np.resize(order, -(-self.length // self.world_size) * self.world_size)
        for index in padded[self.rank :: self.world_size][self.skip :]:
            yield self.epoch, int(index)


class Batch(NamedTuple):
    """Tiles and their targets in few tensors: each one costs a worker, and the way to a GPU, as much as a large one.

    ``tiles`` (B, 3, S, S) uint8 RGB; ``label_maps`` (B, L, S, S) uint16 or int32; ``boxes`` (N, 4) float32 and
    ``labels``, ``layers``, ``ids`` (N,) int64 of all tiles, one after the other; ``counts`` and ``names`` of tiles.
    """

    tiles: Tensor
    label_maps: Tensor
    boxes: Tensor
    labels: Tensor
    layers: Tensor
    ids: Tensor
    counts: list[int]
    names: list[str]

    def to(self, device: torch.device) -> "Batch":
        """On its way to a device; from pinned memory nothing here waits for it."""
        values = self._asdict()
        moved = {k: value.to(device, non_blocking=True) for k, value in values.items() if isinstance(value, Tensor)}
        return Batch(**{**values, **moved})

    def targets(self) -> list[dict[str, Tensor]]:
        """What each tile teaches (see :func:`tile_target`), label maps as int32: torch knows little of uint16."""
        objects = {key: getattr(self, key).split(self.counts) for key in OBJECT_KEYS}
        return [
            {"label_map": label_map, **{key: objects[key][tile] for key in OBJECT_KEYS}}
            for tile, label_map in enumerate(self.label_maps.to(torch.int32))
        ]


def collate(items: Sequence[Item]) -> Batch:
    """Make a batch of tiles; label maps get equally many layers.

    Raises:
        InputError: a target that the losses cannot learn from (see :func:`check_target`).
    """
    images, targets, names = zip(*items, strict=True)
    for image, target, name in items:
        check_target(target, len(image), name)
    depth = max(len(target["label_map"]) for target in targets)
    dtype = np.result_type(*(target["label_map"] for target in targets))
    label_maps = np.zeros((len(items), depth, *images[0].shape[:2]), dtype)
    for place, target in zip(label_maps, targets, strict=True):
        place[: len(target["label_map"])] = target["label_map"]
    objects = {key: torch.from_numpy(np.concatenate([target[key] for target in targets])) for key in OBJECT_KEYS}
    return Batch(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(label_maps),
        counts=[len(target["ids"]) for target in targets],
        names=list(names),
        **objects,
    )


def check_target(target: Mapping[str, np.ndarray], size: int, name: str) -> None:
    """Refuse what a loss, or the C code below it, would answer with nonsense or a crash.

    Raises:
        InputError: a box that is not finite, has no area or leaves its tile, a class below 1, an id below 1, or a layer
            that is not there; ``name`` says in which tile.
    """
    boxes, layers = target["boxes"], target["layers"]
    if len({len(target[key]) for key in OBJECT_KEYS}) > 1:
        raise InputError(f"{name}: has {', '.join(f'{len(target[key])} {key}' for key in OBJECT_KEYS)}")
    faults = {
        "a box that is not finite": ~np.isfinite(boxes).all(axis=1),
        "a box without area": ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1),
        "a box outside its tile": (boxes < 0).any(axis=1) | (boxes > size).any(axis=1),
        "a class below 1": target["labels"] < 1,
        "an id below 1": target["ids"] < 1,
        "a layer that is not there": (layers < 0) | (layers >= len(target["label_map"])),
    }
    for fault, where in faults.items():
        if where.any():
            raise InputError(f"{name}: cell {int(np.flatnonzero(where)[0])} has {fault}")


def build_loader(
    dataset: TileDataset, sampler: EpochSampler, batch_size: int, workers: int, cuda: bool
) -> DataLoader[Item]:
    """The training loader. The last batch of an epoch is dropped where it is not full, unless it is the only one."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=cuda,
        drop_last=len(sampler) >= batch_size,
        persistent_workers=workers > 0,
        worker_init_fn=deaf_to_ctrl_c,
        generator=torch.Generator(),  # else each epoch would draw from the generator that a resumed run restores
    )
