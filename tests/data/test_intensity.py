import numpy as np
import pytest

from src.common.errors import InputError
from src.data.intensity import small_range_warnings, to_uint8


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
    brightest = [int(to_uint8(np.array([(1 << bits) - 1], np.uint16), "full", "x")[0]) for bits in (10, 12, 13, 16)]
    (warning,) = small_range_warnings(brightest)
    assert "2 of 4 images" in warning and "6.3%" in warning and "--intensity percentile" in warning
    assert small_range_warnings([255, 200, 32]) == small_range_warnings([]) == []
