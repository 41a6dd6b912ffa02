import numpy as np
import pytest

from src.data.data_shift import FEWEST_CELLS, DataStatistics, PredictionStatistics, data_statistics, shift_warnings
from src.data.intensity import ALL_LEVELS
from src.data.stain import red_contrast, stain_features
from src.geometry.instances import Instance


def tissue(brightness: float = 1.0) -> np.ndarray:
    """Dark blue nuclei on pink."""
    image = np.full((200, 200, 3), (225, 160, 205), np.float64)
    image[::2, :60] = (90, 60, 150)
    return (image * brightness).astype(np.uint8)


def squares(side: int, count: int = FEWEST_CELLS) -> list[Instance]:
    return [Instance(1, 0.9, 0, 0, np.ones((side, side), bool))] * count


def prediction(image: np.ndarray, side: int = 20, count: int = FEWEST_CELLS) -> PredictionStatistics:
    result = PredictionStatistics()
    result.add(image, squares(side, count))
    return result


@pytest.fixture
def statistics() -> DataStatistics:
    image = tissue()
    return data_statistics(20.0, [red_contrast(image)], [stain_features(image)], swapped=False)


def test_images_as_in_training_give_no_warning(statistics: DataStatistics) -> None:
    assert shift_warnings(statistics, [prediction(tissue()), prediction(tissue(0.9), 24)], 1.0) == []
    assert shift_warnings(statistics, [PredictionStatistics()], 1.0) == []
    assert shift_warnings(DataStatistics(20.0, None, None), [prediction(tissue(0.1))], 1.0) == []


def test_swapped_colours_are_noticed(statistics: DataStatistics) -> None:
    (warning,) = shift_warnings(statistics, [prediction(tissue()[..., ::-1])], 1.0)
    assert "--channel-order" in warning
    stored = tissue()[..., ::-1]  # training files that hold blue first
    of_stored = data_statistics(20.0, [red_contrast(stored)], [stain_features(stored)], swapped=True)
    assert of_stored.contrast == pytest.approx(statistics.contrast)


def test_single_swapped_images_are_counted(statistics: DataStatistics) -> None:
    predicted = [prediction(image) for image in (tissue(), tissue(), tissue()[..., ::-1])]
    (warning,) = shift_warnings(statistics, predicted, 1.0)
    assert "1 of 3 images" in warning and "--channel-order" in warning
    contrast = statistics.contrast or 0
    unusual = PredictionStatistics(contrasts=[contrast, -0.12, 0.9 * contrast])  # as some fields of CoNSeP
    assert shift_warnings(statistics, [unusual], 1.0) == []


def test_small_ranges_count_for_files_of_more_than_8_bits_alone() -> None:
    statistics = PredictionStatistics()
    for is_wide in (False, True):
        statistics.add(tissue(1 / 16), [], is_wide)
    assert statistics.levels[0] == ALL_LEVELS and statistics.levels[1] < 16


def test_another_range_is_noticed(statistics: DataStatistics) -> None:
    (warning,) = shift_warnings(statistics, [prediction(tissue(1 / 4))], 1.0)
    assert "darker" in warning and "--intensity" in warning
    darker = DataStatistics(20.0, statistics.contrast, (statistics.darkness or 0) + 2)
    (warning,) = shift_warnings(darker, [prediction(tissue())], 1.0)
    assert "7.4 times brighter" in warning


def test_another_size_of_cells_is_noticed(statistics: DataStatistics) -> None:
    (warning,) = shift_warnings(statistics, [prediction(tissue(), 10)], 1.0)
    assert "median cell is 10 px" in warning and "20 in training" in warning and "--scale 2" in warning
    assert shift_warnings(statistics, [prediction(tissue(), 10)], 2.0) == []
    assert shift_warnings(statistics, [prediction(tissue(), 10, FEWEST_CELLS - 1)], 1.0) == []


def test_another_stain_is_noticed(statistics: DataStatistics) -> None:
    assert statistics.absorption and sum(statistics.absorption) == pytest.approx(1, abs=0.05)
    grey = np.repeat(tissue().mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    brown = np.full((200, 200, 3), (225, 205, 190), np.uint8)  # DAB with pale haematoxylin
    brown[::2, :60] = (120, 75, 40)
    (warning,) = shift_warnings(statistics, [prediction(grey)], 1.0)
    assert "33 : 33 : 33" in warning
    assert len(shift_warnings(statistics, [prediction(brown)], 1.0)) == 1
    assert len(shift_warnings(statistics, [prediction(255 - tissue())], 1.0)) == 1  # which is darker
    white = np.full((50, 50, 3), 250, np.uint8)
    assert not any("absorbed" in line for line in shift_warnings(statistics, [prediction(white, count=0)], 1.0))


def test_swapped_images_have_the_stain_that_is_seen() -> None:
    stored = tissue()[..., ::-1]
    plain, swapped = (
        data_statistics(20.0, [red_contrast(image)], [stain_features(image)], swapped=is_bgr)
        for image, is_bgr in ((tissue(), False), (stored, True))
    )
    assert plain.absorption == pytest.approx(swapped.absorption)
