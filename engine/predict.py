"""Prediction of images: the network on their tiles, and what becomes of its answers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from src.cache import scale_image
from src.detections import Detections, from_network, to_instances
from src.instances import Instance
from src.settings import PredictSettings
from src.stitch import stitch
from src.tiles import Tile, pad_to, tile_grid
from src.views import VIEWS, View, merge, undo

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Predictor:
    """A model ready to predict, and how: ``scale`` and ``tile_size`` are those that it was trained with."""

    model: nn.Module
    device: torch.device
    amp: torch.dtype | None
    scale: float
    tile_size: int
    settings: PredictSettings


def predict_images(
    predictor: Predictor,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    finish: Callable[[Item, np.ndarray, list[Instance]], Result],
) -> Iterator[Result]:
    """Predict images one after the other, reading the next and finishing the last while the network runs.

    Args:
        items: what stands for an image, in order.
        read: gives an item's ``(H, W, 3)`` uint8 RGB image; runs in a thread, as ``finish`` does.
        finish: turns an item, its image and its cells (see :func:`predict_image`) into what is wanted of them.
    """
    with ThreadPoolExecutor(2) as pool:
        finishing: deque[Future[Result]] = deque()
        for item, image in _read_ahead(pool, items, read):
            tiles, detections = detect(predictor, image)
            finishing.append(pool.submit(_finish, predictor, item, image, tiles, detections, finish))
            if len(finishing) > 1:
                yield finishing.popleft().result()
        while finishing:
            yield finishing.popleft().result()


def _read_ahead(
    pool: ThreadPoolExecutor, items: Iterable[Item], read: Callable[[Item], np.ndarray]
) -> Iterator[tuple[Item, np.ndarray]]:
    """Each item with its image, while that of the next is read."""
    waiting: deque[tuple[Item, Future[np.ndarray]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(read, item)))
        if len(waiting) > 1:
            first, image = waiting.popleft()
            yield first, image.result()
    for first, image in waiting:
        yield first, image.result()


def _finish(
    predictor: Predictor,
    item: Item,
    image: np.ndarray,
    tiles: Sequence[Tile],
    detections: Sequence[Detections],
    finish: Callable[[Item, np.ndarray, list[Instance]], Result],
) -> Result:
    return finish(item, image, assemble(predictor, tiles, detections, *image.shape[:2]))


def predict_image(predictor: Predictor, image: np.ndarray) -> list[Instance]:
    """All cells of an ``(H, W, 3)`` uint8 RGB image, in the image's own pixels, best score first."""
    tiles, detections = detect(predictor, image)
    return assemble(predictor, tiles, detections, *image.shape[:2])


@torch.inference_mode()
def detect(predictor: Predictor, image: np.ndarray) -> tuple[list[Tile], list[Detections]]:
    """The network's part: the tiles of an image, in pixels of the magnified image, and what is found in each."""
    scaled = scale_image(image, predictor.scale)
    height, width = scaled.shape[:2]
    tiles = tile_grid(height, width, predictor.tile_size, predictor.settings.predict_overlap)
    detections: list[Detections] = []
    for batch in _batches(tiles, predictor.settings.predict_batch_size):
        windows = [scaled[tile.top : tile.bottom, tile.left : tile.right] for tile in batch]
        detections += _predict_tiles(predictor, [pad_to(window, predictor.tile_size) for window in windows])
    if predictor.settings.whole_image and len(tiles) > 1:
        tiles = [*tiles, Tile(0, 0, height, width)]
        detections += _predict_tiles(predictor, [scaled])
    return tiles, detections


def assemble(
    predictor: Predictor, tiles: Sequence[Tile], detections: Sequence[Detections], height: int, width: int
) -> list[Instance]:
    """The cells of a ``height x width`` image from what was found in its tiles, best score first."""
    places = [tile.unscaled(predictor.scale, height, width) for tile in tiles]
    instances = [
        to_instances(found.placed(tile.left, tile.top, predictor.scale), height, width)
        for found, tile in zip(detections, tiles, strict=True)
    ]
    return stitch(places, instances, height, width)


def _batches(tiles: Sequence[Tile], size: int) -> Iterator[Sequence[Tile]]:
    for start in range(0, len(tiles), size):
        yield tiles[start : start + size]


def _predict_tiles(predictor: Predictor, tiles: Sequence[np.ndarray]) -> list[Detections]:
    """Detections of equally large ``(h, w, 3)`` uint8 tiles, all views of each merged."""
    batch = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).to(predictor.device)
    height, width = batch.shape[-2:]
    seen: list[list[Detections]] = [[] for _ in tiles]
    for view in VIEWS[predictor.settings.tta]:
        with torch.autocast(predictor.device.type, predictor.amp, enabled=predictor.amp is not None):
            answers = predictor.model(_look(batch, view))
        for views, answer in zip(seen, answers, strict=True):
            views.append(undo(_to_numpy(answer), view, height, width))
    return [merge(views) for views in seen]


def _look(batch: torch.Tensor, view: View) -> torch.Tensor:
    batch = batch.transpose(2, 3) if view.transpose else batch
    return batch.flip([axis for axis, flipped in ((2, view.flip_rows), (3, view.flip_columns)) if flipped])


def _to_numpy(answer: dict[str, torch.Tensor]) -> Detections:
    return from_network(*(answer[name].cpu().numpy() for name in ("boxes", "scores", "labels", "masks")))
