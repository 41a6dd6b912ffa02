import numpy as np
import pytest

from src.data.familiarity import FEWEST_CELLS, Impression, Seen, seen_in, unfamiliar
from src.data.stain import red_contrast, stain_features
from src.geometry.instances import Instance


def tissue(brightness: float = 1.0) -> np.ndarray:
    """Dark blue nuclei on pink."""
    image = np.full((200, 200, 3), (225, 160, 205), np.float64)
    image[::2, :60] = (90, 60, 150)
    return (image * brightness).astype(np.uint8)


def squares(side: int, count: int = FEWEST_CELLS) -> list[Instance]:
    return [Instance(1, 0.9, 0, 0, np.ones((side, side), bool))] * count


def impression(image: np.ndarray, side: int = 20, count: int = FEWEST_CELLS) -> Impression:
    result = Impression()
    result.add(image, squares(side, count))
    return result


@pytest.fixture
def seen() -> Seen:
    image = tissue()
    return seen_in(20.0, [red_contrast(image)], [stain_features(image)], swapped=False)


def test_images_as_in_training_are_familiar(seen: Seen) -> None:
    assert unfamiliar(seen, [impression(tissue()), impression(tissue(0.9), 24)], 1.0) == []
    assert unfamiliar(seen, [Impression()], 1.0) == []
    assert unfamiliar(Seen(20.0, None, None), [impression(tissue(0.1))], 1.0) == []


def test_swapped_colours_are_noticed(seen: Seen) -> None:
    (warning,) = unfamiliar(seen, [impression(tissue()[..., ::-1])], 1.0)
    assert "--channel-order" in warning
    stored = tissue()[..., ::-1]  # a training on files that hold blue first has seen the same
    assert seen_in(20.0, [red_contrast(stored)], [stain_features(stored)], swapped=True).contrast == pytest.approx(
        seen.contrast
    )


def test_another_range_is_noticed(seen: Seen) -> None:
    (warning,) = unfamiliar(seen, [impression(tissue(1 / 4))], 1.0)
    assert "darker" in warning and "--intensity" in warning
    (warning,) = unfamiliar(Seen(20.0, seen.contrast, (seen.darkness or 0) + 2), [impression(tissue())], 1.0)
    assert "7.4 times brighter" in warning


def test_another_size_of_cells_is_noticed(seen: Seen) -> None:
    (warning,) = unfamiliar(seen, [impression(tissue(), 10)], 1.0)
    assert "median cell is 10 px" in warning and "20 in training" in warning and "2 times" in warning
    assert unfamiliar(seen, [impression(tissue(), 10)], 2.0) == []
    assert unfamiliar(seen, [impression(tissue(), 10, FEWEST_CELLS - 1)], 1.0) == []
