import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from src.common.limits import set_max_pixels
from src.data.masks import read_mask
from src.data.tiff import Header, read_header, read_image, write_image, write_mask
from src.slides.tiff_slide import TiffSlide

DATA = Path(__file__).parents[3] / "shared/data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


def random_rgb(height: int = 23, width: int = 17) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def check_refused(read, path: Path, reason: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message, message


# Images


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb"},
        {"photometric": "rgb", "compression": "lzw", "predictor": 2},
        {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 5},
        {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)},
        {"photometric": "rgb", "bigtiff": True, "byteorder": ">"},
        {"photometric": "minisblack", "planarconfig": "contig"},
    ],
)
def test_rgb_is_read_as_stored(path: Path, options: dict) -> None:
    image = random_rgb()
    tifffile.imwrite(path, image, metadata=None, **options)
    assert read_header(path) == Header(23, 17, 3, "uint8")
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_rgb_is_read_as_rgb(path: Path, compression: str | None) -> None:
    image = random_rgb()
    planes = np.moveaxis(image, -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    assert read_header(path) == Header(23, 17, 3, "uint8")
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("extrasamples", [None, ["unassalpha"], ["unspecified"]])
def test_fourth_channel_is_dropped(path: Path, extrasamples: list[str] | None) -> None:
    image = random_rgb()
    rgba = np.dstack([image, np.full(image.shape[:2], 7, np.uint8)])
    tifffile.imwrite(path, rgba, photometric="rgb", compression="lzw", predictor=2, extrasamples=extrasamples)
    if extrasamples is None:
        remove_tag(path, "ExtraSamples")
    assert read_header(path).channels == 4
    np.testing.assert_array_equal(read_image(path), image)


def remove_tag(path: Path, name: str) -> None:
    """Turn a tag's entry into a private tag that no reader knows, as the homework's files have no such entry."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.filehandle.seek(file.pages.first.tags[name].offset)
        file.filehandle.write((65_000).to_bytes(2, "little"))
    with tifffile.TiffFile(path) as file:
        assert name not in file.pages.first.tags


@pytest.mark.parametrize("shape", [(5, 9), (1, 9), (9, 1), (1, 1)])
def test_grey_is_repeated_to_three_channels(path: Path, shape: tuple[int, int]) -> None:
    grey = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    tifffile.imwrite(path, grey, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path), np.dstack([grey] * 3))
    assert read_image(path).flags.c_contiguous and read_image(path).flags.writeable


def test_white_is_zero_is_inverted(path: Path) -> None:
    tifffile.imwrite(path, np.array([[0, 200]], np.uint8), photometric="miniswhite")
    assert read_image(path)[..., 0].tolist() == [[255, 55]]


def test_one_bit_is_black_and_white(path: Path) -> None:
    tifffile.imwrite(path, np.array([[True, False, True]]), photometric="minisblack")
    assert read_image(path)[..., 0].tolist() == [[255, 0, 255]]


def test_jpeg_is_converted_to_rgb(path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    tifffile.imwrite(path, red, photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(read_image(path).astype(int) - red).max() < 8


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.uint16, [0, 257 * 100, 65_535]),
        (np.int16, [0, round(32_767 * 100 / 255), 32_767]),
        (np.uint32, [0, round((2**32 - 1) * 100 / 255), 2**32 - 1]),
        (np.float32, [0, 100 / 255, 1]),
        (np.float64, [0, 100 / 255, 1]),
    ],
)
def test_full_intensity_maps_the_range_of_the_dtype(path: Path, dtype: type, values: list) -> None:
    tifffile.imwrite(path, np.array([values], dtype), photometric="minisblack")
    assert read_image(path, "full")[..., 1].tolist() == [[0, 100, 255]]


def test_full_intensity_ignores_what_the_image_holds(path: Path) -> None:
    tifffile.imwrite(path, np.full((4, 4), 257 * 3, np.uint16), photometric="minisblack")
    assert np.unique(read_image(path)).tolist() == [3]


def test_percentile_intensity_is_joint_over_channels_and_clips(path: Path) -> None:
    image = np.full((100, 100, 3), 1000, np.uint16)
    image[:50, :, 1] = 3000
    image[0, 0, 2] = 60_000  # one hot pixel, above the 99.9 percentile
    tifffile.imwrite(path, image, photometric="rgb")
    read = read_image(path, "percentile")
    assert read[0, 0].tolist() == [0, 255, 255] and read[60, 0].tolist() == [0, 0, 0]
    assert np.unique(read[1:]).tolist() == [0, 255]


def test_percentile_intensity_keeps_uint8_and_survives_a_constant(tmp_path: Path) -> None:
    image = random_rgb() // 4
    write_image(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", "percentile"), image)
    tifffile.imwrite(tmp_path / "b.tif", np.full((4, 4), 9, np.float32))
    assert read_image(tmp_path / "b.tif", "percentile").max() == 0


@pytest.mark.parametrize("intensity", ["full", "percentile"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_an_image_are_refused(path: Path, value: float, intensity: str) -> None:
    tifffile.imwrite(path, np.array([[0, value]], np.float32))
    check_refused(read_image, path, "NaN or infinite", intensity=intensity)


@pytest.mark.parametrize(
    "values", [np.array([[0, 255.0]]), np.array([[-0.5, 1]], np.float32), np.array([[-1, 5]], np.int16)]
)
def test_values_outside_the_range_point_to_percentile(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values)
    check_refused(read_image, path, "--intensity percentile")
    assert read_image(path, "percentile")[..., 0].tolist() == [[0, 255]]


def test_unknown_intensity_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="--intensity must be full or percentile, got best"):
        read_image(path, "best")


def test_other_colour_models_are_refused_by_name(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((4, 4, 4), np.uint8), photometric="separated")
    check_refused(read_image, path, "SEPARATED")
    colormap = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), photometric="palette", colormap=colormap)
    check_refused(read_image, path, "PALETTE")


def test_ycbcr_that_calls_itself_rgb_is_refused(tmp_path: Path) -> None:
    """Aperio's JPEG 2000 of compression 33003."""
    path = tmp_path / "image.tif"
    image = np.full((64, 64, 3), 200, np.uint8)
    tifffile.imwrite(path, image, photometric="rgb", compression="aperio_jp2000_ycbc", tile=(64, 64))
    with pytest.raises(InputError, match=r"image\.tif: .*YCbCr"):
        read_image(path)
    with pytest.raises(InputError, match=r"image\.tif: .*YCbCr"):
        TiffSlide(path)
    tifffile.imwrite(path, image, photometric="rgb", compression="aperio_jp2000_rgb", tile=(64, 64))
    assert np.abs(read_image(path).astype(int) - 200).max() <= 2


# What is refused for images and masks alike


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channel_counts_are_refused(path: Path, channels: int) -> None:
    tifffile.imwrite(path, np.zeros((8, 9, channels), np.uint8), photometric="minisblack", planarconfig="contig")
    check_refused(read_header, path, f"has {channels} channels; grey, RGB and RGBA are read")
    check_refused(read_image, path, f"has {channels} channels")


@pytest.mark.parametrize(
    "options",
    [{}, {"metadata": None}, {"imagej": True}, {"ome": True}, {"truncate": True}, {"volumetric": True}],
)
def test_stacks_are_refused(path: Path, options: dict) -> None:
    options = {"tile": (16, 16, 16), **options} if "volumetric" in options else options
    tifffile.imwrite(path, np.zeros((3, 16, 16), np.uint8), photometric="minisblack", **options)
    for read in (read_header, read_image, read_mask):
        check_refused(read, path, "has several pages or planes; only single 2-D images are read")


def test_rgb_pages_are_refused(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for _ in range(3):
            file.write(random_rgb(), photometric="rgb")
    check_refused(read_image, path, "has several pages or planes")


def test_size_is_refused_before_memory_is_allocated(path: Path) -> None:
    write_mask(path, np.zeros((20, 30), np.uint16))
    set_max_pixels(599)
    check_refused(read_mask, path, "is 20 x 30 px; more than 599 px are not read")
    set_max_pixels(600)
    assert read_mask(path).shape == (20, 30)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(2_000_000_000)
    for read in (read_header, read_image, read_mask):
        check_refused(read, path, "is 20 x 2000000000 px; more than 600 px are not read")


def test_a_huge_tile_of_a_small_image_is_refused(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8), tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["TileWidth"].overwrite(60_000)
        file.pages.first.tags["TileLength"].overwrite(60_000)
    check_refused(read_image, path, "is stored in tiles of 60000 x 60000 px")


def test_what_is_no_tiff_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no image\nat all\n")
    check_refused(read_image, text, "cannot be read as a TIFF image")
    empty = tmp_path / "empty.tif"
    empty.touch()
    check_refused(read_header, empty, "cannot be read")
    check_refused(read_mask, tmp_path / "missing.tif", "cannot be read (No such file or directory)")
    check_refused(read_mask, tmp_path, "cannot be read")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_a_truncated_file_is_refused_in_silence(path: Path, compression: str | None, capfd) -> None:
    tifffile.imwrite(path, random_rgb(64, 64), photometric="rgb", compression=compression, rowsperstrip=8)
    content = path.read_bytes()
    for share in (0.01, 0.2, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        check_refused(read_image, path, "")
        check_refused(read_header, path, "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_damaged_bytes_give_an_input_error_or_an_image(path: Path, compression: str) -> None:
    tifffile.imwrite(path, random_rgb(32, 32), photometric="rgb", compression=compression, predictor=2)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    rng, refused = np.random.default_rng(0), 0
    set_max_pixels(1_000_000)
    for _ in range(100):
        damaged = content.copy()
        positions = rng.integers(0, 300, 3)  # where the header and the tags lie
        damaged[positions] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert read_image(path).dtype == np.uint8
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 20


# Masks


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_ids_are_renumbered_in_ascending_order(path: Path, dtype: str) -> None:
    tifffile.imwrite(path, np.array([[0, 90, 7], [7, 0, 100]], dtype), photometric="minisblack")
    mask = read_mask(path)
    assert mask.dtype == np.int32 and mask.tolist() == [[0, 2, 1], [1, 0, 3]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 10**15, 3], [10**15, 3, 10**15 + 1]], np.float64),
        np.array([[0, 2**63 + 5, 3], [2**63 + 5, 3, 2**64 - 1]], np.uint64),
        np.array([[0, 2**40, 3], [2**40, 3, 2**62]], np.int64),
        np.array([[-0.0, 1e200, 3], [1e200, 3, 1e300]], np.float64),
    ],
)
def test_huge_ids_and_pieces_keep_their_order(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values)
    assert read_mask(path).tolist() == [[0, 2, 1], [2, 1, 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_a_mask_without_cells_is_all_zero(path: Path, dtype: type) -> None:
    tifffile.imwrite(path, np.zeros((4, 5), dtype))
    np.testing.assert_array_equal(read_mask(path), np.zeros((4, 5), np.int32))


def test_a_mask_without_background_starts_at_one(path: Path) -> None:
    tifffile.imwrite(path, np.array([[5, 5], [9, 9]], np.uint16), photometric="miniswhite")
    assert read_mask(path).tolist() == [[1, 1], [2, 2]]  # ids are no grey values: never inverted


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, np.nan]]), "NaN or infinite ids"),
        (np.array([[0, np.inf]], np.float32), "NaN or infinite ids"),
        (np.array([[0, -3]], np.int16), "negative ids (lowest -3)"),
        (np.array([[0, -1.0]]), "negative ids (lowest -1)"),
        (np.array([[2, 1.5]]), "fractional ids such as 1.5"),
        (np.array([[0, 1e-9]]), "fractional ids such as 1e-09"),
        (np.zeros((4, 4, 3), np.uint8), "has 3 channels; a mask has one"),
    ],
)
def test_bad_ids_are_refused(path: Path, values: np.ndarray, reason: str) -> None:
    tifffile.imwrite(path, values)
    check_refused(read_mask, path, reason)


def test_complex_values_are_refused(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((4, 4), np.complex64))
    check_refused(read_mask, path, "complex64")


@pytest.mark.parametrize("factor", [1, 10**12])
def test_a_large_mask_is_read_fast(path: Path, factor: int) -> None:
    ids = np.kron(np.arange(1, 10_001).reshape(100, 100), np.ones((15, 15))) * factor
    tifffile.imwrite(path, ids)
    start = time.perf_counter()
    mask = read_mask(path)
    assert time.perf_counter() - start < 2
    np.testing.assert_array_equal(mask, ids / factor)


# Writing


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    image, mask = random_rgb(), np.arange(20, dtype=np.int32).reshape(4, 5)
    write_image(tmp_path / "new/image.tif", image)
    write_mask(tmp_path / "new/class1.tif", mask)
    np.testing.assert_array_equal(read_image(tmp_path / "new/image.tif"), image)
    np.testing.assert_array_equal(read_mask(tmp_path / "new/class1.tif"), mask)
    assert read_header(tmp_path / "new/class1.tif").dtype == "uint16"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["class1.tif", "image.tif"]


def test_large_ids_are_written_as_uint32(path: Path) -> None:
    write_mask(path, np.array([[0, 65_536]]))
    assert tifffile.imread(path).tolist() == [[0, 65_536]]


# The homework's encoding


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are absent")
def test_the_homeworks_encoding_is_read_right() -> None:
    folder = DATA / "hw3-format"
    image = read_image(folder / "test_release/consep_test_6_m.tif")
    assert image.shape == (106, 115, 3)
    assert read_header(folder / "test_release/consep_test_6_m.tif").channels == 4
    plain = read_image(DATA / "consep-mini/test_release/consep_test_6_m.tif")
    np.testing.assert_array_equal(image[..., ::-1], plain[70:176, 11:126])  # R and B are swapped on disk
    masks = [read_mask(folder / f"train/consep_train_8_m/class{k}.tif") for k in (1, 2, 3, 4)]
    assert [mask.max() for mask in masks] == [15, 2, 3, 2]  # ids of the file are unique over the image


@pytest.mark.parametrize("behind", [[(2, 3)], [(4, 6), (2, 3), (1, 1)], [(7, 11)]])
def test_a_pyramid_or_a_thumbnail_behind_the_image_is_passed_over(
    behind: list[tuple[int, int]], tmp_path: Path
) -> None:
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="rgb", metadata=None)
        for height, width in behind:
            file.write(pixels[:height, :width], photometric="rgb", metadata=None, subfiletype=1)
    assert np.array_equal(read_image(tmp_path / "a.tif"), pixels)


def write_pages(path: Path, sizes: Sequence[tuple[int, int]], first_type: int = 0) -> None:
    """Zeros of some sizes, the first with a tag NewSubfileType."""
    with tifffile.TiffWriter(path) as file:
        for number, size in enumerate(sizes):
            pixels = np.zeros((*size, 3), np.uint8)
            file.write(pixels, photometric="rgb", metadata=None, subfiletype=0 if number else first_type)


@pytest.mark.parametrize("behind", [[(8, 12)], [(2, 3), (8, 12)], [(20, 30)], [(16, 25)]])
def test_another_image_behind_the_first_is_refused(behind: list[tuple[int, int]], tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", [(8, 12), *behind])
    check_refused(read_image, tmp_path / "a.tif", "has several pages or planes")


def test_a_smaller_copy_in_front_is_refused(tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", [(8, 12), (96, 100)], first_type=1)
    check_refused(read_image, tmp_path / "a.tif", "has several pages or planes")


@pytest.mark.parametrize("behind", [[(4, 30)], [(8, 3)], [(30, 12)], [(4, 12), (200, 90)]])
def test_a_label_of_any_shape_behind_the_image_is_passed_over(behind: list[tuple[int, int]], tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", [(8, 12), *behind])
    assert read_image(tmp_path / "a.tif").shape == (8, 12, 3)
    assert read_header(tmp_path / "a.tif").height == 8


@pytest.mark.parametrize(("tag", "is_turned"), [(None, False), (1, False), (3, True), (6, True), (8, True)])
def test_a_tag_of_orientation_is_noticed_and_turns_nothing(tag: int | None, is_turned: bool, tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    more = [(274, "H", 1, tag, False)] if tag else []
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=more, metadata=None)
    header = read_header(tmp_path / "a.tif")
    assert (header.height, header.width, header.is_turned) == (4, 6, is_turned)
    assert np.array_equal(read_image(tmp_path / "a.tif"), pixels)
