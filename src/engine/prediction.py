"""Prediction of images: read them, run the network on their tiles, stitch its detections."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from src.config.settings import ImageSettings, PredictSettings
from src.data.pictures import UPRIGHT, read_rgb
from src.data.prepared import scale_image, scaled_size
from src.geometry.detections import Detections, from_network, to_instances
from src.geometry.instances import Instance
from src.geometry.stitch import stitch
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tiles import FILL, Tile, pad_to, tile_grid
from src.geometry.views import VIEWS, View, merge, undo

Outputs = list[dict[str, torch.Tensor]]


class ImageFile(Protocol):
    """A record or a test image: anything with the path of an image."""

    @property
    def image(self) -> Path:
        """The path of the image."""


Item = TypeVar("Item", bound=ImageFile)
Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Predictor:
    """Models ready to predict, and how: ``image`` and ``tile_size`` are those that they were trained with.

    Several models are merged like the views of test-time augmentation: scores are averaged.
    """

    models: Sequence[nn.Module]
    device: torch.device
    amp: torch.dtype | None
    image: ImageSettings
    tile_size: int
    settings: PredictSettings

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour, RGB in 0..255, of what a tile shows outside of its image: what the first model sees as zero."""
        return getattr(self.models[0], "fill", FILL)

    def limits_reached(self) -> Counter[str]:
        """How many tiles were predicted since the last call, and how many of them a limit cut off, by its flag."""
        total: Counter[str] = Counter()
        for model in self.models:
            reached = getattr(model, "limits_reached", Counter())
            total.update(reached)
            reached.clear()
        return total

    def read(self, path: str | Path, orientation: int = UPRIGHT) -> np.ndarray:
        """An image file as ``(H, W, 3)`` uint8 RGB, turned by an EXIF tag."""
        return read_rgb(path, self.image.intensity, self.image.channel_order == "bgr", orientation)


def predict_images(predictor: Predictor, items: Iterable[Item]) -> Iterator[tuple[Item, np.ndarray, list[Instance]]]:
    """Each item with its ``(H, W, 3)`` uint8 RGB image and the cells in it (see :func:`predict_image`), in order.

    While the network runs, the next image is read and the tiles of the one before are stitched.
    """
    with ThreadPoolExecutor(2) as pool:
        images = in_turn(pool, lambda item: (item, predictor.read(item.image, orientation_of(item))), items)
        detected = ((item, image, *detect(predictor, image)) for item, image in images)
        yield from in_turn(pool, lambda parts: (*parts[:2], assemble(predictor, *parts[1:])), detected)


def orientation_of(item: ImageFile) -> int:
    """The EXIF tag by which an image is turned; none of a bare path."""
    return getattr(item, "orientation", UPRIGHT)


def warnings_on_limits(reached: Counter[str]) -> dict[str, str]:
    """Flag → a line, for each limit that cut predicted tiles off (see :meth:`Predictor.limits_reached`)."""
    advice = {"--proposals": "train with more", "--detections-per-tile": "raise it"}
    tiles = f"of {reached['tiles']} predicted tiles"
    return {
        flag: f"warning: {count} {tiles} reach {flag}; {advice[flag]} if cells are missing"
        for flag, count in sorted(reached.items())
        if count and flag != "tiles"
    }


def in_turn(
    pool: ThreadPoolExecutor, function: Callable[[Argument], Result], items: Iterable[Argument], ahead: int = 1
) -> Iterator[Result]:
    """``function`` of each item, in order: it runs in threads for up to ``ahead`` items before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for last in waiting:
        yield last.result()


def predict_image(predictor: Predictor, image: np.ndarray) -> list[Instance]:
    """All cells of an ``(H, W, 3)`` uint8 RGB image, in the image's own pixels, best score first."""
    return assemble(predictor, image, *detect(predictor, image))


def detect(predictor: Predictor, image: np.ndarray) -> tuple[list[Tile], list[Detections]]:
    """The network's part: the tiles of an image, in pixels of the magnified image, and what is found in each."""
    scaled = scale_image(image, predictor.image.scale)
    height, width = scaled.shape[:2]
    tiles = tile_grid(height, width, predictor.tile_size, predictor.settings.predict_overlap)
    batches = _batches(scaled, tiles, predictor)
    if predictor.settings.whole_image and len(tiles) > 1:
        tiles, batches = [*tiles, Tile(0, 0, height, width)], chain(batches, [np.stack([scaled])])
    return tiles, list(detect_batches(predictor, batches))


@torch.inference_mode()
def detect_batches(predictor: Predictor, batches: Iterable[np.ndarray]) -> Generator[Detections, None, None]:
    """What is found in each tile of batches ``(B, h, w, 3)`` uint8, in order."""
    with ThreadPoolExecutor(1) as pool:
        for batch in in_turn(pool, partial(_merge_views, predictor), (_forward(predictor, batch) for batch in batches)):
            yield from batch


def assemble(
    predictor: Predictor, image: np.ndarray, tiles: Sequence[Tile], detections: Sequence[Detections]
) -> list[Instance]:
    """The cells of an image from the detections in its tiles, best score first."""
    height, width = image.shape[:2]
    scaled_height, scaled_width = scaled_size(height, width, predictor.image.scale)
    scales = (scaled_height / height, scaled_width / width)
    places = [tile.unscaled(scales, height, width) for tile in tiles]
    instances = [
        to_instances(found.placed(tile.left, tile.top, scales), place)
        for found, tile, place in zip(detections, tiles, places, strict=True)
    ]
    settings = StitchSettings(one_class_per_cell=predictor.settings.one_class_per_cell)
    return stitch(places, instances, height, width, settings)


def _batches(image: np.ndarray, tiles: Sequence[Tile], predictor: Predictor) -> Iterator[np.ndarray]:
    """The tiles of an image, ``(B, S, S, 3)`` uint8 at a time."""
    size = predictor.settings.predict_batch_size
    for start in range(0, len(tiles), size):
        windows = [image[tile.top : tile.bottom, tile.left : tile.right] for tile in tiles[start : start + size]]
        yield np.stack([pad_to(window, predictor.tile_size, predictor.fill) for window in windows])


def _forward(predictor: Predictor, tiles: np.ndarray) -> tuple[tuple[int, int], list[Outputs]]:
    """Run each model on each view of ``(B, h, w, 3)`` uint8 tiles.

    Returns:
        The tiles' height and width, and per model and view the detections of each tile.
    """
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).to(predictor.device)
    with torch.autocast(predictor.device.type, predictor.amp, enabled=predictor.amp is not None):
        outputs = [model(_apply_view(batch, view)) for model, view in _model_views(predictor)]
    return tiles.shape[1:3], outputs


def _model_views(predictor: Predictor) -> list[tuple[nn.Module, View]]:
    return [(model, view) for model in predictor.models for view in VIEWS[predictor.settings.tta]]


def _apply_view(batch: torch.Tensor, view: View) -> torch.Tensor:
    batch = batch.transpose(2, 3) if view.transpose else batch
    axes = [axis for axis, flipped in ((2, view.flip_rows), (3, view.flip_columns)) if flipped]
    return batch.flip(axes) if axes else batch  # a flip along no axis would copy


def _merge_views(predictor: Predictor, forwarded: tuple[tuple[int, int], list[Outputs]]) -> list[Detections]:
    """Detections of each tile of :func:`_forward`; waits for the device, so it belongs in a thread of its own."""
    (height, width), outputs = forwarded
    seen = [
        [undo(_to_numpy(output), view, height, width) for output in of_view]
        for (_, view), of_view in zip(_model_views(predictor), outputs, strict=True)
    ]
    return [merge(of_tile) for of_tile in zip(*seen, strict=True)]


def _to_numpy(output: dict[str, torch.Tensor]) -> Detections:
    return from_network(**{name: values.cpu().numpy() for name, values in output.items()})
