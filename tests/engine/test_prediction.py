from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import InputError
from src.config.settings import ImageSettings, PredictSettings
from src.data.id_map import ImageId
from src.data.images_to_predict import TestImage
from src.data.tiff import write_image
from src.engine.prediction import Predictor, predict_image, predict_images
from src.geometry.tiles import FILL

pytestmark = pytest.mark.torch


class SquareFinder(nn.Module):
    """Finds the one dark square of a tile."""

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        answers = []
        for tile in tiles:
            rows, columns = torch.nonzero(tile[0] == 0, as_tuple=True)
            found = int(len(rows) > 0)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if found else []
            answers.append(
                {
                    "boxes": (boxes := torch.tensor(box, dtype=torch.float32).reshape(-1, 4)),
                    "scores": torch.full((found,), 0.9),
                    "labels": torch.ones(found, dtype=torch.int64),
                    "masks": torch.ones(found, 28, 28),
                    "mask_rois": boxes,
                }
            )
        return answers


def predictor(scale: float = 1.0, **settings: object) -> Predictor:
    predict = PredictSettings(predict_overlap=32, **settings)  # type: ignore[arg-type]
    return Predictor([SquareFinder()], torch.device("cpu"), None, ImageSettings(scale=scale), 64, predict)


def picture(top: int, left: int) -> np.ndarray:
    image = np.full((150, 180, 3), 200, np.uint8)
    image[top : top + 12, left : left + 16] = 0
    return image


@pytest.mark.parametrize("settings", [{}, {"tta": "full"}, {"whole_image": True}, {"predict_batch_size": 3}])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_cell_is_found_once_wherever_tiles_cut_it(settings: dict[str, object], scale: float) -> None:
    for top, left in [(0, 0), (58, 40), (60, 90), (138, 164)]:
        (found,) = predict_image(predictor(scale, **settings), picture(top, left))
        place = (found.top, found.left, found.bottom, found.right)
        assert np.abs(np.subtract(place, (top, left, top + 12, left + 16))).max() <= 1


class BlobFinder(nn.Module):
    """Finds the one dark rectangle of a tile to a fraction of a pixel, by the moments of its darkness."""

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        answers = []
        for tile in tiles:
            shade = (200 - tile[0].double()).clamp(min=0) * (tile[0] != FILL[0])
            sides = []
            for axis in (0, 1):  # of columns, then of rows
                weights = shade.sum(axis) / shade.sum()
                places = torch.arange(len(weights)) + 0.5
                centre = (weights * places).sum()
                half = torch.sqrt(3 * (weights * (places - centre) ** 2).sum())
                sides.append((centre - half, centre + half))
            box = [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]
            answers.append(
                {
                    "boxes": (boxes := torch.tensor(box, dtype=torch.float32)[None]),
                    "scores": torch.tensor([0.9]),
                    "labels": torch.tensor([1]),
                    "masks": torch.ones(1, 28, 28),
                    "mask_rois": boxes,
                }
            )
        return answers


@pytest.mark.parametrize("size", [(151, 203), (97, 333), (64, 50)])
@pytest.mark.parametrize("scale", [0.33, 0.51, 0.7, 1.0, 1.3, 2.37])
def test_cells_do_not_drift_where_sides_do_not_divide(size: tuple[int, int], scale: float) -> None:
    finder = Predictor([BlobFinder()], torch.device("cpu"), None, ImageSettings(scale=scale), 800, PredictSettings())
    for far in (False, True):
        errors = []
        for shift in range(4):
            top, left = (side - 24 - shift for side in size) if far else (shift, shift + 1)
            image = np.full((*size, 3), 200, np.uint8)
            image[top : top + 20, left : left + 22] = 0
            (found,) = predict_image(finder, image)
            rows, columns = np.nonzero(found.mask)
            errors.append((found.top + rows.mean() - top - 9.5, found.left + columns.mean() - left - 10.5))
        assert np.abs(np.mean(errors, axis=0)).max() < 0.1


def write_pictures(folder: Path, count: int) -> list[TestImage]:
    """Images whose square lies further down and to the right in each."""
    images = []
    for number in range(count):
        path = folder / f"{number}.tif"
        write_image(path, picture(20 * number, 10 * number))
        images.append(TestImage(path, ImageId(path.name, number, 150, 180)))
    return images


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_images_come_in_order(count: int, tmp_path: Path) -> None:
    images = write_pictures(tmp_path, count)
    predicted = list(predict_images(predictor(), images))
    assert [image for image, _, _ in predicted] == images
    assert [(cells[0].top, cells[0].left) for _, _, cells in predicted] == [(20 * i, 10 * i) for i in range(count)]
    assert all((pixels == picture(20 * i, 10 * i)).all() for i, (_, pixels, _) in enumerate(predicted))


def test_colours_are_read_as_in_training(tmp_path: Path) -> None:
    images = write_pictures(tmp_path, 1)
    write_image(images[0].image, picture(0, 0) - np.array([0, 1, 2], np.uint8))
    swapped = replace(predictor(), image=ImageSettings(channel_order="bgr"))
    ((_, pixels, _),) = predict_images(swapped, images)
    assert pixels[-1, -1].tolist() == [198, 199, 200] and pixels[0, 0].tolist() == [254, 255, 0]


def test_a_file_that_cannot_be_read_stops_the_prediction(tmp_path: Path) -> None:
    images = write_pictures(tmp_path, 5)
    images[2].image.write_bytes(b"no image")
    predicted = predict_images(predictor(), images)
    assert next(predicted)[0] == images[0]
    with pytest.raises(InputError, match=r"2\.tif"):
        list(predicted)


class Blind(nn.Module):
    """Sees nothing."""

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        return SquareFinder()(torch.ones_like(tiles))


def test_models_are_merged_like_views() -> None:
    alone, twice, divided = (
        predict_image(replace(predictor(tta="flips"), models=models), picture(20, 30))
        for models in ([SquareFinder()], [SquareFinder(), SquareFinder()], [SquareFinder(), Blind()])
    )
    for found in (twice, divided):
        assert len(found) == 1 and (found[0].mask == alone[0].mask).all() and found[0].top == alone[0].top == 20
    assert [found[0].score for found in (alone, twice, divided)] == pytest.approx([0.9, 0.9, 0.45], abs=1e-6)
