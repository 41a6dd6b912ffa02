"""Tiles of training images with their targets; as a script it draws them.

python dataset.py --preview tiles --data-path hw3-data-release/train
python dataset.py --preview tiles --recipe script/recipes/cpu.toml

The pictures show what the network is given, with the same settings as main.py.
"""

from src.common.errors import run_command
from src.config.checks import check_training
from src.config.command import parse
from src.config.settings import PreviewConfig

if __name__ == "__main__":
    # Before torch is imported, so that --help and a mistyped flag answer at once.
    CONFIG = run_command(lambda: parse(PreviewConfig, __doc__, check_training, recipe=True))

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from src.common.errors import run_command
from src.config.settings import AugmentSettings, TileSettings
from src.data.classes import ANY_CLASS
from src.data.image_facts import ImageFacts
from src.data.open_images import OpenImages
from src.data.prepared import PreparedImage
from src.data.training_data import load_training_data
from src.engine.augmentation import augmentation, zoom_factor, zoomed
from src.engine.loading import Item, Key
from src.engine.preview import draw_tiles
from src.geometry.instances import extents
from src.geometry.tile_lists import TileGrids
from src.geometry.tiles import FILL, Tile, pad_to
from src.network.backbones import architecture
from src.reporting.draw import write_png

CANDIDATES = 64  # tiles that are searched for the densest one


class TileDataset(Dataset[Item]):
    """Augmented tiles of ``images``; ``facts`` are about these images, in the same order.

    ``fill`` is the colour, RGB in 0..255, of what a tile shows outside of its image.

    An item is a pure function of ``(epoch, index)`` and ``seed``: workers have no state, and a resumed run sees the
    same data.
    """

    def __init__(
        self,
        images: OpenImages,
        facts: ImageFacts,
        tiles: TileSettings,
        augment: AugmentSettings,
        swap_channels: bool,
        seed: int,
        fill: tuple[int, ...] = FILL,
    ) -> None:
        self.images = images
        self.settings = tiles
        self.swap_channels = swap_channels
        self.seed = seed
        cv2.setNumThreads(0)  # a tile is too small to share out, and workers forked beside its threads would hang
        self._augment, self._fill = augment, fill
        self._transform = augmentation(augment, fill)
        self._deepest = int(facts.label_bytes.max())  # bytes of a pixel of the label map, at most
        self._tiles = self._choose_tiles(facts)

    def __len__(self) -> int:
        return len(self._tiles)

    @property
    def tiles(self) -> list[tuple[int, Tile]]:
        """All tiles, as :meth:`tile` gives them."""
        return [self.tile(index) for index in range(len(self))]

    def tile(self, index: int) -> tuple[int, Tile]:
        """The index of a tile's record, and its place in the prepared image."""
        record, top, left, height, width = self._tiles[index].tolist()
        return record, Tile(top, left, height, width)

    def __getitem__(self, key: Key) -> Item:
        """The tile ``(S, S, 3)`` uint8 RGB, its target (see :func:`tile_target`) and its name for messages."""
        epoch, index = key
        record, tile = self.tile(index)
        prepared = self.images[record]
        seeds = np.random.SeedSequence((self.seed, epoch, index))
        zoom = zoom_factor(self._augment, np.random.default_rng(seeds))
        image, label_map = self._crop(prepared, tile, zoom)
        self._transform.set_random_seed(int(seeds.generate_state(1)[0]))
        augmented = self._transform(image=image, mask=label_map)
        target = tile_target(augmented["mask"], prepared, self.settings.min_visible * zoom**2)
        return augmented["image"], target, f"{self.images.records[record].name} at row {tile.top}, column {tile.left}"

    def _crop(self, prepared: PreparedImage, tile: Tile, zoom: float) -> tuple[np.ndarray, np.ndarray]:
        """A tile's image and label map, resized about its centre, padded on the right and below to the full size."""
        size = self.settings.tile_size
        if zoom != 1:
            tile = tile.resized(size / zoom, *prepared.image.shape[:2])
        window = np.s_[tile.top : tile.bottom, tile.left : tile.right]
        image, label_map = prepared.image[window], prepared.label_map[window]
        image = image[..., ::-1] if self.swap_channels else image
        if zoom != 1:
            image, label_map = zoomed(image, label_map, zoom, size)
        return pad_to(image, size, self._fill), pad_to(label_map, size, 0)

    def bytes_per_tile(self) -> int:
        """The most bytes of one item: a tile's image and its label map."""
        return (3 + self._deepest) * self.settings.tile_size**2

    def densest(self) -> Item:
        """The item with the most cells among :data:`CANDIDATES` tiles spread over the data set."""
        places = range(0, len(self), max(1, len(self) // CANDIDATES))
        return max((self[(0, index)] for index in places), key=lambda item: len(item[1]["ids"]))

    def _choose_tiles(self, facts: ImageFacts) -> np.ndarray:
        """``(T, 5)`` int32: the record of each tile, its top, left, height and width.

        These are all tiles with cells, and a random selection of those without, ``empty_fraction`` times as many.
        """
        grids = TileGrids(facts.prepared_sizes, self.settings.tile_size, self.settings.overlap)
        tiles = grids.tiles()
        has_cells, overlaps_some = grids.find_boxes(np.repeat(np.arange(len(facts)), facts.box_counts), facts.boxes)
        for index in np.flatnonzero(overlaps_some & ~has_cells):
            record, top, left, height, width = tiles[index].tolist()
            has_cells[index] = self._shows_a_cell(record, Tile(top, left, height, width))
        with_cells, without = tiles[has_cells], tiles[~has_cells]
        kept = min(len(without), round(self.settings.empty_fraction * len(with_cells)))
        order = np.random.default_rng(self.seed).permutation(len(without))[:kept]
        return np.concatenate([with_cells, without[np.sort(order)]])

    def _shows_a_cell(self, record: int, tile: Tile) -> bool:
        """Whether a tile that cuts all its objects shows enough of one; their pixels are counted."""
        prepared = self.images[record]
        window = prepared.label_map[tile.top : tile.bottom, tile.left : tile.right]
        shown = np.bincount(window[window > 0], minlength=len(prepared.areas))
        visible = is_visible(shown, prepared.areas, self.settings.min_visible)
        return bool((visible & prepared.is_cell).any())


def is_visible(shown: np.ndarray, whole: np.ndarray, min_visible: float) -> np.ndarray:
    """Whether at least the fraction ``min_visible`` of each object's pixels is shown."""
    return (shown > 0) & (shown >= min_visible * whole)


def tile_target(label_map: np.ndarray, prepared: PreparedImage, min_visible: float) -> dict[str, np.ndarray]:
    """Build a tile's training target as one label map instead of a mask per cell.

    A cell that the tile's edge or the augmentation cuts is a target where at least ``min_visible`` of it is left, and
    background otherwise. Areas before and after augmentation are compared, so scaling shifts that limit slightly.

    Args:
        label_map: ``(h, w, L)`` integer ids of the image's objects, cut out and warped.

    Returns:
        ``boxes`` (N, 4) float32 xyxy in tile px, max exclusive; ``labels`` (N,) int64 in 1..K; ``label_map`` (L, h, w)
        as given, and ``layers`` and ``ids`` (N,) int64: where in it each object is painted. A tile that shows a region
        to ignore has ``ignored`` (h, w) bool, too.
    """
    layers = np.ascontiguousarray(label_map.transpose(2, 0, 1))
    shown, boxes = extents(layers, len(prepared.areas) - 1)
    ids = np.flatnonzero(is_visible(shown, prepared.areas, min_visible) & prepared.is_cell)
    regions = (shown > 0) & (prepared.class_ids == ANY_CLASS)
    regions[0] = False  # the background
    ignored = {"ignored": regions[layers].any(axis=0)} if regions.any() else {}
    return {
        "boxes": boxes[ids].astype(np.float32),
        "labels": prepared.class_ids[ids],
        "label_map": layers,
        "layers": prepared.layers[ids],
        "ids": ids,
        **ignored,
    }


def draw_previews(config: PreviewConfig) -> None:
    """Draw tiles without augmentation beside their augmented versions, one PNG per tile."""
    data = load_training_data(config.data, config.image)
    images = OpenImages(data.train, data.cache)
    fill = architecture(config.model.backbone).fill
    plainly, augmented = (
        TileDataset(images, data.train_facts, config.tiles, augment, data.swap_channels, config.data.seed, fill)
        for augment in (replace(config.augment, augment="none"), config.augment)
    )
    places = np.unique(np.linspace(0, len(plainly) - 1, config.pictures).astype(int)).tolist()
    for number, place in enumerate(places):
        items = [plainly[(0, place)], *(augmented[(epoch, place)] for epoch in range(3))]
        write_png(Path(config.preview) / f"tile-{number:02d}.png", draw_tiles(items, data.classes))
        print(f"tile-{number:02d}.png: {items[0][2]}, {', '.join(str(len(item[1]['ids'])) for item in items)} cells")
    print(f"wrote {config.preview}: {len(places)} pictures, each of a tile without augmentation and in three epochs")


if __name__ == "__main__":
    run_command(lambda: draw_previews(CONFIG))
