from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import InputError
from src.config.settings import PredictSettings
from src.engine.prediction import Predictor, predict_image, predict_images
from src.geometry.instances import Instance

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
                    "boxes": torch.tensor(box, dtype=torch.float32).reshape(-1, 4),
                    "scores": torch.full((found,), 0.9),
                    "labels": torch.ones(found, dtype=torch.int64),
                    "masks": torch.ones(found, 28, 28),
                }
            )
        return answers


def predictor(scale: float = 1.0, **settings: object) -> Predictor:
    return Predictor(
        [SquareFinder()], torch.device("cpu"), None, scale, 64, PredictSettings(predict_overlap=32, **settings)
    )


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


def places(index: int, image: np.ndarray, instances: list[Instance]) -> tuple[int, int, int]:
    assert image.shape == (150, 180, 3)
    return index, instances[0].top, instances[0].left


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_images_come_in_order(count: int) -> None:
    found = predict_images(predictor(), range(count), lambda index: picture(20 * index, 10 * index), places)
    assert list(found) == [(index, 20 * index, 10 * index) for index in range(count)]


def test_a_file_that_cannot_be_read_stops_the_prediction() -> None:
    def read(index: int) -> np.ndarray:
        if index == 2:
            raise InputError("third.tif: is damaged")
        return picture(0, 0)

    found = predict_images(predictor(), range(5), read, places)
    assert next(found)[0] == 0
    with pytest.raises(InputError, match="third"):
        list(found)


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
