"""Slides are read a region at a time, with the pixels of the whole image at any magnification."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from src.common.errors import InputError
from src.common.limits import set_max_pixels
from src.geometry.tiles import Tile
from src.slides.finding import find_slides, open_slide, shard_of
from src.slides.openslide_slide import OpenSlideSlide
from src.slides.scaled import ScaledSlide
from src.slides.slide import Level, plausible_mpp
from src.slides.tiff_slide import TiffSlide
from src.slides.tissue import thumbnail
from tests.slides.conftest import OpenTiff
from tests.slides.scenes import break_stored_tile, picture, write_philips, write_pyramid
from tests.sources import ROOT

REAL = ROOT.parent / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"


def test_regions_of_each_level_are_those_of_the_image(tmp_path: Path, tiff: OpenTiff) -> None:
    image = picture(200, 330)
    slide = tiff(write_pyramid(tmp_path / "a.tif", image))
    assert [(level.height, level.width) for level in slide.levels] == [(200, 330), (100, 165), (50, 82)]
    assert slide.mpp == pytest.approx(0.5)
    assert (slide.read(0, 0, 0, 200, 330) == image).all()
    assert (slide.read(0, 37, 61, 70, 200) == image[37:107, 61:261]).all()
    small = cv2.resize(image, (165, 100), interpolation=cv2.INTER_AREA)
    assert (slide.read(1, 60, 100, 40, 65) == small[60:100, 100:165]).all()


@pytest.mark.parametrize("how", [{"tile": None, "rowsperstrip": 16}, {"compression": "lzw"}, {"compression": None}])
def test_strips_and_other_compressions_are_read(tmp_path: Path, how: dict[str, object], tiff: OpenTiff) -> None:
    image = picture(120, 150)
    slide = tiff(write_pyramid(tmp_path / "a.tif", image, 1, **how))
    assert (slide.read(0, 11, 13, 100, 120) == image[11:111, 13:133]).all()


def test_ome_tiff_has_its_own_resolution_and_levels(tmp_path: Path, tiff: OpenTiff) -> None:
    image, path = picture(128, 192), tmp_path / "a.ome.tif"
    units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "µm"}
    metadata = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeY": 0.25, **units}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(image, subifds=1, tile=(64, 64), photometric="rgb", metadata=metadata)
        file.write(image[::2, ::2], subfiletype=1, tile=(64, 64), photometric="rgb")
    slide = tiff(path)
    assert slide.mpp == 0.25 and [level.width for level in slide.levels] == [192, 96]
    assert (slide.read(1, 5, 5, 20, 30) == image[::2, ::2][5:25, 5:35]).all()


@pytest.mark.parametrize("subifds", [0, 2])
@pytest.mark.parametrize("steps", [(8, 64), (4, 8), (64, 6)])
def test_reduced_pages_in_any_steps_are_levels(
    tmp_path: Path, steps: tuple[int, int], subifds: int, tiff: OpenTiff
) -> None:
    image, path = picture(200, 330), tmp_path / "a.tif"
    small = {
        step: np.ascontiguousarray(image[: 200 // step * step : step, : 330 // step * step : step]) for step in steps
    }
    how = {"tile": (32, 32), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(image, subifds=subifds, **how)
        for step in steps:
            file.write(small[step], subfiletype=1, **how)
    slide = tiff(path)
    assert [level.width for level in slide.levels] == [330, *(330 // step for step in sorted(steps))]
    for number, step in enumerate(sorted(steps), start=1):
        assert (slide.read(number, 0, 0, 200 // step, 330 // step) == small[step]).all()


@pytest.mark.parametrize(
    ("shape", "other"),
    [
        ((25, 41, 3), {}),  # an image of its own
        ((25, 41, 3), {"subfiletype": 9}),  # a picture of the glass
        ((25, 41, 3), {"subfiletype": 1, "tile": None}),  # a label, in strips
        ((25, 25, 3), {"subfiletype": 1}),
        ((27, 41, 3), {"subfiletype": 1}),
        ((25, 41), {"subfiletype": 1, "photometric": "minisblack"}),
    ],
)
def test_other_pages_are_no_levels(
    tmp_path: Path, shape: tuple[int, ...], other: dict[str, object], tiff: OpenTiff
) -> None:
    how = {"tile": (16, 16), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(picture(200, 330), **how)
        file.write(np.zeros(shape, np.uint8), **{**how, **other})
    assert [level.width for level in tiff(tmp_path / "a.tif").levels] == [330]


def test_grey_is_repeated_and_white_is_zero_is_turned(tmp_path: Path, tiff: OpenTiff) -> None:
    grey = picture(80, 90)[..., 0]
    for photometric, expected in (("minisblack", grey), ("miniswhite", 255 - grey)):
        tifffile.imwrite(tmp_path / "g.tif", grey, tile=(32, 32), photometric=photometric)
        assert (tiff(tmp_path / "g.tif").read(0, 0, 0, 80, 90) == expected[..., None]).all()


def test_broken_and_missing_tiles_are_white_and_known(tmp_path: Path, tiff: OpenTiff) -> None:
    image, path = picture(128, 128), tmp_path / "a.tif"
    write_pyramid(path, image, 1)
    break_stored_tile(path, 3)
    slide = tiff(path)
    read = slide.read(0, 0, 0, 128, 128)
    assert slide.broken == {(0, 3)} and (read[64:, 64:] == 255).all() and (read[:64] == image[:64]).all()
    slide.forget_tiles()
    assert (slide.read(0, 0, 0, 128, 128) == read).all() and slide.broken == {(0, 3)}  # the same tile


def change_tag(path: Path, name: str, value: bytes, place: int = 12) -> None:
    """Write bytes into a tag of a BigTIFF: from 4 on lies the number of its values, from 12 on the first."""
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.tags[name].offset + place
    content = bytearray(path.read_bytes())
    content[start : start + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [("TileOffsets", b"\3", 4), ("TileByteCounts", b"\3", 4), ("ImageWidth", b"\xff", 12), ("TileWidth", b"\0", 12)],
)
def test_a_header_that_asks_for_more_tiles_than_there_are_is_refused(
    tmp_path: Path, name: str, value: bytes, place: int, tiff: OpenTiff
) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(100, 120), 1)
    change_tag(path, name, value, place)
    with pytest.raises(InputError, match=r"a\.tif.*(damaged|cannot be read)"):
        tiff(path)


def test_a_slide_of_which_no_tile_decodes_is_refused(tmp_path: Path, tiff: OpenTiff) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(100, 120), 1)
    change_tag(path, "Compression", b"\7\0")  # JPEG
    with pytest.raises(InputError, match=r"a\.tif.*decode"):
        thumbnail(tiff(path))


def test_a_stored_tile_that_claims_too_much_is_refused(tmp_path: Path, tiff: OpenTiff) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((96, 96), np.uint8), tile=(96, 96))
    set_max_pixels(96 * 95)
    with pytest.raises(InputError, match=r"a\.tif.*96 x 96"):
        tiff(tmp_path / "a.tif")


@pytest.mark.parametrize("values", [np.zeros((64, 64, 2), np.uint8), np.zeros((64, 64, 3), np.uint16)])
def test_other_types_are_refused_by_name(tmp_path: Path, values: np.ndarray, tiff: OpenTiff) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"a\.tif"):
        tiff(tmp_path / "a.tif")


def test_other_colour_models_are_refused_by_name(tmp_path: Path, tiff: OpenTiff) -> None:
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((64, 64), np.uint8), tile=(32, 32), photometric="palette", colormap=colors
    )
    with pytest.raises(InputError, match=r"a\.tif.*PALETTE"):
        tiff(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((64, 64, 4), np.uint8), tile=(32, 32), photometric="separated")
    with pytest.raises(InputError, match=r"b\.tif.*SEPARATED"):
        tiff(tmp_path / "b.tif")


def test_tiff_of_a_scanner_is_read_by_openslide_where_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openslide")
    path = write_philips(tmp_path / "a.tiff", picture(128, 192), 0.25)
    slide = open_slide(path)
    assert isinstance(slide, OpenSlideSlide) and slide.mpp == 0.25 and list(slide.levels) == [Level(128, 192)]
    monkeypatch.setattr("src.slides.finding.find_spec", lambda _: None)
    other = open_slide(path)
    assert isinstance(other, TiffSlide) and (other.read(0, 0, 0, 128, 192) == slide.read(0, 0, 0, 128, 192)).all()
    slide.close()
    other.close()


def test_without_openslide_svs_is_read_and_other_files_say_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.slides.finding.find_spec", lambda _: None)
    write_pyramid(tmp_path / "a.svs", image := picture(90, 100))
    slide = open_slide(tmp_path / "a.svs")
    assert (slide.read(0, 0, 0, 90, 100) == image).all()
    slide.close()
    (tmp_path / "a.ndpi").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.ndpi.*requirements-slides\.txt"):
        open_slide(tmp_path / "a.ndpi")


def test_a_file_that_is_cut_off_before_its_first_page_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + (1000).to_bytes(4, "little") + bytes(100))  # the page would begin at byte 1000
    with pytest.raises(InputError, match=r"a\.tif: .*truncated"):
        open_slide(path)


@pytest.mark.parametrize("content", [b"", b"no TIFF", b"II*\0\xff\xff\xff\xff"])
def test_files_that_are_no_slides_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.tif", "a.svs"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            open_slide(tmp_path / name)


@pytest.mark.parametrize(("side", "scale"), [(203, 0.5), (202, 0.5), (207, 0.25), (205, 0.251)])
def test_a_level_that_was_rounded_otherwise_is_read_as_it_is(
    tmp_path: Path, side: int, scale: float, tiff: OpenTiff
) -> None:
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", picture(side, side))), scale)
    number = 1 if scale == 0.5 else 2
    level = slide.slide.levels[number]
    assert slide.level == number and slide.size == (level.height, level.width)
    assert (slide.read(Tile(3, 5, 30, 40)) == slide.slide.read(number, 3, 5, 30, 40)).all()


@pytest.mark.parametrize("scale", [0.5, 0.37, 0.25, 0.9, 1.7, 2.0])
def test_scaled_tiles_are_those_of_the_scaled_image(tmp_path: Path, scale: float, tiff: OpenTiff) -> None:
    """From the full magnification alone, so that OpenCV's resize of the whole image is the reference."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 310, 3), np.uint8)  # no part is uniform
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", image, 1)), scale)
    height, width = slide.size
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    whole = cv2.resize(image, (width, height), interpolation=method).astype(int)
    for tile in (Tile(0, 0, 40, 50), Tile(height - 41, width - 33, 41, 33), Tile(17, 23, 30, 20)):
        expected = whole[tile.top : tile.bottom, tile.left : tile.right]
        assert np.abs(slide.read(tile).astype(int) - expected).max() <= 1


def test_a_scaled_tile_does_not_depend_on_where_it_is_cut(tmp_path: Path, tiff: OpenTiff) -> None:
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", picture(200, 200), 1)), 0.61)
    whole = slide.read(Tile(0, 0, *slide.size))
    assert (slide.read(Tile(31, 43, 50, 40)) == whole[31:81, 43:83]).all()


def test_the_nearest_finer_level_is_read(tmp_path: Path, tiff: OpenTiff) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(256, 256), 3)
    assert [ScaledSlide(tiff(path), scale).level for scale in (2.0, 1.0, 0.6, 0.5, 0.3, 0.25, 0.1)] == [
        0, 0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_slide_is_not_enlarged_without_bounds(tmp_path: Path, tiff: OpenTiff) -> None:
    slide = tiff(write_pyramid(tmp_path / "a.tif", picture(100, 100)))
    with pytest.raises(InputError, match=r"a\.tif.*--mpp"):
        ScaledSlide(slide, 2.6)


def test_resolutions_that_cannot_be_are_not_believed() -> None:
    assert plausible_mpp([0.25, 0.26]) == pytest.approx(0.255)
    for values in ([0.25, 0.5], [0.28, 0.25], [], [None], [0.25, None], [352.8, 352.8], [0.0001]):
        assert plausible_mpp(values) is None


@pytest.mark.parametrize("codec", ["webp", "png", "jpegxl"])
def test_compressions_that_are_not_read_are_refused(tmp_path: Path, codec: str, tiff: OpenTiff) -> None:
    with pytest.raises(InputError, match=rf"(?i)a\.tif.*{codec}"):
        tiff(write_pyramid(tmp_path / "a.tif", picture(90, 90), 1, compression=codec))


@pytest.mark.parametrize("axes", ["ZYXS", "TYXS", "CYX"])
def test_stacks_are_refused(tmp_path: Path, axes: str, tiff: OpenTiff) -> None:
    """Of channels that are pages, one alone would be a grey slide."""
    image = picture(90, 120)
    planes = np.stack([image] * 3) if axes.endswith("S") else np.moveaxis(image, 2, 0)
    how = {"photometric": "rgb" if axes.endswith("S") else "minisblack", "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": axes}, **how)
    tifffile.imwrite(tmp_path / "b.tif", planes, metadata=None, **how)
    for name in ("a.ome.tif", "b.tif"):
        with pytest.raises(InputError, match=rf"{name}.*\b3\b"):
            tiff(tmp_path / name)


@pytest.mark.parametrize("ome", [False, True])
def test_a_first_image_that_is_not_the_largest_is_refused(tmp_path: Path, ome: bool, tiff: OpenTiff) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=ome) as file:
        for image in (picture(60, 90), picture(120, 180)):
            file.write(image, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS"} if ome else None)
    with pytest.raises(InputError, match=r"a\.ome\.tif.*120 x 180.*60 x 90"):
        tiff(tmp_path / "a.ome.tif")


def test_channels_that_are_planes_are_refused(tmp_path: Path, tiff: OpenTiff) -> None:
    planes = np.ascontiguousarray(np.moveaxis(picture(90, 120), 2, 0))
    path = write_pyramid(tmp_path / "a.tif", planes, 1, planarconfig="separate")
    with pytest.raises(InputError, match=r"a\.tif.*planes"):
        tiff(path)


def test_tags_of_72_dpi_say_nothing(tmp_path: Path, tiff: OpenTiff) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(90, 90), resolution=(72, 72), resolutionunit="INCH")
    assert tiff(tmp_path / "a.tif").mpp is None


def test_slides_are_files_of_scanners_and_large_tiff(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "b.tif", picture(100, 100), 1)
    assert find_slides(tmp_path, 10_000) == []
    assert find_slides(tmp_path, 9_999) == [tmp_path / "b.tif"]
    (tmp_path / "a.NDPI").write_bytes(b"")
    with pytest.raises(InputError, match=r"--slide-pixels"):
        find_slides(tmp_path, 10_000)
    assert find_slides(tmp_path, 9_999) == [tmp_path / "a.NDPI", tmp_path / "b.tif"]


def test_a_file_that_is_named_is_a_slide_whatever_its_size(tmp_path: Path) -> None:
    small, picture_file = write_pyramid(tmp_path / "b.TIF", picture(100, 100), 1), tmp_path / "c.png"
    (tmp_path / "b.svs").write_bytes(b"")  # of the same name, which matters in a folder alone
    picture_file.write_bytes(b"")
    assert find_slides(small, 10_000) == [small] and find_slides(tmp_path / "b.svs", 1) == [tmp_path / "b.svs"]
    assert find_slides(picture_file, 1) == find_slides(tmp_path / "no", 1) == []


def test_small_pictures_beside_slides_and_slides_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.svs", "b.ndpi"):
        (tmp_path / name).write_bytes(b"")
    assert len(find_slides(tmp_path, 1)) == 2
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png.*--slide-pixels"):
        find_slides(tmp_path, 1)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.svs").write_bytes(b"")
    with pytest.raises(InputError, match=r"slide b"):
        find_slides(tmp_path, 1)


def test_shards_take_every_nth_slide() -> None:
    slides = [Path(str(number)) for number in range(7)]
    assert shard_of(slides, None) == slides
    parts = [shard_of(slides, f"{i}/3") for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2] and sorted(slide for part in parts for slide in part) == slides
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(InputError, match="--shard"):
            shard_of(slides, wrong)


@pytest.mark.skipif(not REAL.exists(), reason="needs the slide of shared/data")
def test_both_readers_read_a_real_slide_alike(tiff: OpenTiff) -> None:
    pytest.importorskip("openslide")
    ours, theirs = tiff(REAL), OpenSlideSlide(REAL)
    assert list(ours.levels) == list(theirs.levels) and ours.mpp == theirs.mpp == 0.499
    assert (ours.read(0, 500, 700, 900, 1000) == theirs.read(0, 500, 700, 900, 1000)).all()
    theirs.close()
