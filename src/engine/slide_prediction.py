"""Prediction of a slide: its tiles are read ahead, predicted in full batches, and stitched as they come."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from src.common.memory import give_back_memory
from src.engine.prediction import Predictor, detect_batches, in_turn
from src.geometry.detections import Detections, to_instances
from src.geometry.instances import Instance
from src.geometry.stitch import Stitcher
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tiles import Tile, pad_to, tile_grid
from src.slides.scaled import ScaledSlide
from src.slides.shards import Shards
from src.slides.slide import Slide, StoredTile
from src.slides.tissue import Tissue

MOST_READERS = 8  # threads
TILES_PER_SHARD = 256  # at least; more where a row of tiles has more


@dataclass(frozen=True)
class SlideTiles:
    """The tiles of a slide that show tissue: in px after scaling, and in px of the slide itself, by rows."""

    scaled: Sequence[Tile]
    places: Sequence[Tile]
    scales: tuple[float, float]
    in_grid: int
    """How many tiles there are with those that show no tissue."""


def choose_tiles(slide: ScaledSlide, tissue: Tissue, tile_size: int, overlap: int) -> SlideTiles:
    """The tiles of a slide that touch tissue."""
    (height, width), full = slide.size, slide.slide.levels[0]
    scales = (height / full.height, width / full.width)
    grid = tile_grid(height, width, tile_size, overlap)
    chosen = [tile for tile in grid if tissue.shows(tile, scales)]
    return SlideTiles(chosen, [tile.unscaled(scales, full.height, full.width) for tile in chosen], scales, len(grid))


def predict_slide(
    predictor: Predictor,
    slide: ScaledSlide,
    tiles: SlideTiles,
    shards: Shards,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Predict the tiles that no shard holds yet, and write what is found as shards; each cell has one class.

    ``progress`` is wrapped around the indices of the tiles that are predicted.
    """
    full = slide.slide.levels[0]
    stitcher = Stitcher(tiles.places, full.height, full.width, StitchSettings(one_class_per_cell=True))
    state = shards.state()
    waiting = stitcher.go_on_from(state) if state else list(range(len(tiles.places)))
    stitching = _Stitching(tiles, stitcher, shards, slide.slide, shards.broken())
    batches = _batches(predictor, slide, [tiles.scaled[index] for index in waiting])
    give_back_memory()  # that finding the tissue took
    ahead = 2 * predictor.settings.predict_batch_size
    with (
        ThreadPoolExecutor(1) as pool,  # where tiles are stitched, while the network runs in this thread
        closing(batches),  # no thread reads on after an error
        closing(detect_batches(predictor, batches)) as found,
    ):
        for _ in in_turn(pool, stitching.add, zip(progress(waiting), found, strict=True), ahead):
            pass
    if stitching.tiles_since or state is None:
        stitching.write()


@dataclass
class _Stitching:
    """Stitches the detections of tiles, in order, and writes the cells of some rows of tiles as a shard."""

    tiles: SlideTiles
    stitcher: Stitcher
    shards: Shards
    slide: Slide
    broken: set[StoredTile]
    """The stored tiles that did not decode before."""
    cells: list[Instance] = field(default_factory=list)
    tiles_since: int = 0
    """How many tiles there were since the last shard."""
    has_failed: bool = False

    def add(self, found: tuple[int, Detections]) -> None:
        """Take the detections of a tile, with the tile's index.

        After an error nothing more is taken: a later shard would lack the cells that the error lost.
        """
        if self.has_failed:
            return
        self.has_failed = True  # unless all of this succeeds
        self._stitch(*found)
        self.has_failed = False

    def _stitch(self, index: int, detections: Detections) -> None:
        tile, row = self.tiles.scaled[index], self.stitcher.state.next_row
        placed = detections.placed(tile.left, tile.top, self.tiles.scales)
        self.cells += self.stitcher.add(index, to_instances(placed, self.tiles.places[index]))
        self.tiles_since += 1
        if self.stitcher.state.next_row > row and self.tiles_since >= TILES_PER_SHARD:
            self.write()

    def write(self) -> None:
        """Write a shard."""
        self.shards.add(self.cells, self.stitcher.state, self.slide.broken | self.broken)
        self.cells, self.tiles_since = [], 0
        give_back_memory()


def _batches(predictor: Predictor, slide: ScaledSlide, tiles: Sequence[Tile]) -> Generator[np.ndarray, None, None]:
    """The pixels of tiles, ``(B, S, S, 3)`` uint8 at a time, read ahead in threads: decoders leave the GIL."""
    size, readers = predictor.settings.predict_batch_size, min(os.cpu_count() or 1, MOST_READERS)
    swap = predictor.image.channel_order == "bgr"

    def read(tile: Tile) -> np.ndarray:
        pixels = slide.read(tile)
        return pad_to(pixels[..., ::-1] if swap else pixels, predictor.tile_size, predictor.fill)

    with ThreadPoolExecutor(readers) as pool:
        pixels = in_turn(pool, read, tiles, ahead=2 * size + readers)
        while batch := list(islice(pixels, size)):
            yield np.stack(batch)
