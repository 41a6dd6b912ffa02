import numpy as np
import pytest

from src.common.errors import InputError
from src.data.intensity import ALL_LEVELS, small_range_warnings, to_uint8, used_levels


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([0, 255, 7], np.uint8), [0, 255, 7]),
        (np.array([0, 65535, 257, 128], np.uint16), [0, 255, 1, 0]),
        (np.array([0, 2**32 - 1, 2**31], np.uint32), [0, 255, 128]),
        (np.array([0, 1, 0.5], np.float32), [0, 255, 128]),
    ],
)
def test_the_full_range_becomes_8_bits(values: np.ndarray, wanted: list[int]) -> None:
    assert to_uint8(values, "full", "x").tolist() == wanted


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_percentiles_spread_few_bits_over_8(bits: int) -> None:
    values = np.arange(1 << bits, dtype=np.uint16)
    spread = to_uint8(values, "percentile", "x")
    assert spread.min() == 0 and spread.max() == 255 and len(np.unique(spread)) == 256


@pytest.mark.parametrize("values", [np.array([-1.0]), np.array([1.5]), np.array([-3], np.int16), np.array([np.nan])])
def test_values_without_a_full_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^some\.tif: "):
        to_uint8(values, "full", "some.tif")


def test_a_small_part_of_the_range_is_said_with_its_share() -> None:
    levels = [used_levels(deep(1 << bits)) for bits in (12, 13, 14, 15, 16)]
    assert levels == [16, 32, 63, 126, 253]  # without a thousandth at either end
    (warning,) = small_range_warnings(levels)
    assert "3 of 5 images" in warning and f"{levels[2] / 255:.1%}" in warning and "--intensity percentile" in warning
    assert small_range_warnings([ALL_LEVELS, 200, 65]) == small_range_warnings([]) == []


def deep(count: int, offset: int = 0, hot: int = 0, white_is_zero: bool = False) -> np.ndarray:
    """A picture (40, 50, 3) uint8 of ``count`` values of uint16 from an offset on, and some hot pixels."""
    values = np.random.default_rng(0).integers(0, count, (40, 50), np.uint16) + np.uint16(offset)
    values[0, :hot] = 65535
    picture = to_uint8(np.repeat(values[..., None], 3, axis=2), "full", "x")
    return 255 - picture if white_is_zero else picture


@pytest.mark.parametrize("options", [{"hot": 3}, {"white_is_zero": True}, {"offset": 32768}])
def test_hot_pixels_and_offsets_do_not_hide_a_small_range(options: dict[str, int]) -> None:
    assert used_levels(deep(4096, **options)) in (15, 16)


def test_levels_of_pictures_without_any_range() -> None:
    assert used_levels(np.zeros((2, 2, 3), np.uint8)) == used_levels(np.full((20, 20, 3), 7, np.uint8)) == 0
    assert used_levels(np.array([[[0] * 3, [200] * 3]], np.uint8)) == 200
