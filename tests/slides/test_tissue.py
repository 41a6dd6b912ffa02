"""Tissue is found by its colour, or given as regions."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import InputError
from src.geometry.tiles import Tile, tile_grid
from src.slides.slide import Level
from src.slides.tissue import Tissue, all_tissue, find_tissue, thumbnail
from src.slides.tissue_file import read_tissue
from tests.slides.conftest import OpenTiff
from tests.slides.scenes import GLASS, STROMA, picture, write_pyramid


def test_islands_are_found_and_glass_is_not(tmp_path: Path, tiff: OpenTiff) -> None:
    image = picture(300, 500)
    tissue = find_tissue(tiff(write_pyramid(tmp_path / "a.tif", image)))
    truth = (image != GLASS).any(axis=2)
    assert tissue.mask.shape == truth.shape
    assert (tissue.mask != truth).mean() < 0.02
    assert tissue.share == pytest.approx(truth.mean(), abs=0.02)
    assert tissue.shows(Tile(140, 180, 20, 20), (1.0, 1.0))
    assert not tissue.shows(Tile(0, 230, 20, 30), (1.0, 1.0))
    assert tissue.shows(Tile(280, 360, 40, 40), (2.0, 2.0))


@pytest.mark.parametrize("seed", range(5))
def test_a_tile_shows_tissue_where_it_shares_area_with_a_pixel_of_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (height, width), map_shape = rng.integers(50, 200, 2).tolist(), rng.integers(3, 50, 2).tolist()
    scales = tuple(rng.uniform(0.3, 2.5, 2).tolist())
    tissue = Tissue(
        (rng.random(map_shape) < 0.03).astype(np.int32), np.zeros((*map_shape, 3), np.uint8), Level(height, width), []
    )
    down, across = (map_shape[0] / (height * scales[0]), map_shape[1] / (width * scales[1]))  # map's px per px
    rows, columns = np.nonzero(tissue.mask)
    answers = set()
    for tile in tile_grid(int(height * scales[0]), int(width * scales[1]), 11, 3):
        beside = (rows + 1 <= tile.top * down) | (rows >= tile.bottom * down)
        beside |= (columns + 1 <= tile.left * across) | (columns >= tile.right * across)
        assert tissue.shows(tile, scales) == (not beside.all())
        answers.add(bool(beside.all()))
    assert answers == {False, True}


@pytest.mark.parametrize("noise", [0, 6])
def test_glass_alone_is_no_tissue(tmp_path: Path, tiff: OpenTiff, noise: int) -> None:
    rng = np.random.default_rng(0)
    image = (np.array(GLASS) + rng.integers(-noise, noise + 1, (200, 200, 3))).clip(0, 255).astype(np.uint8)
    assert not find_tissue(tiff(write_pyramid(tmp_path / "a.tif", image))).mask.any()


def test_a_grey_slide_that_shows_something_is_refused(tmp_path: Path, tiff: OpenTiff) -> None:
    grey = {"photometric": "minisblack"}
    slide = tiff(write_pyramid(tmp_path / "grey.tif", picture(100, 120)[..., 0], **grey))
    with pytest.raises(InputError, match=r"grey\.tif.*--tissue all"):
        find_tissue(slide)
    glass = np.full((100, 120), 244, np.uint8)
    assert not find_tissue(tiff(write_pyramid(tmp_path / "glass.tif", glass, **grey))).mask.any()


def test_tissue_alone_is_all_tissue(tmp_path: Path, tiff: OpenTiff) -> None:
    image = np.full((200, 200, 3), STROMA, np.uint8)
    assert find_tissue(tiff(write_pyramid(tmp_path / "a.tif", image))).share == 1


def test_the_thumbnail_is_the_slide_reduced(tmp_path: Path, tiff: OpenTiff) -> None:
    image = picture(400, 600)
    slide = tiff(write_pyramid(tmp_path / "a.tif", image, 1))
    small = thumbnail(slide, 100 * 150)
    assert small.shape == (100, 150, 3)
    means = image.reshape(100, 4, 150, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1


@pytest.mark.parametrize("shape", [(50, 4000), (450, 450), (4000, 50)])
def test_the_thumbnail_has_as_many_px_whatever_the_shape(
    tmp_path: Path, tiff: OpenTiff, shape: tuple[int, int]
) -> None:
    small = thumbnail(tiff(write_pyramid(tmp_path / "a.tif", picture(*shape), 1)), 10_000)
    height, width = small.shape[:2]
    assert 9_000 <= height * width <= 11_000 and abs(height / width - shape[0] / shape[1]) < 0.05 * shape[0] / shape[1]


def test_the_thumbnail_leaves_no_decoded_tiles_behind(tmp_path: Path, tiff: OpenTiff) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(1000, 1000), 1)
    thumbnail(tiff(path), 10_000)  # for what is imported and kept once
    slide = tiff(path)
    tracemalloc.start()
    thumbnail(slide, 10_000)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1000 * 1000 * 3 / 10


def write_regions(path: Path, *geometries: dict[str, object]) -> Path:
    features = [{"type": "Feature", "geometry": geometry, "properties": {}} for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def square(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def test_found_pieces_are_regions_the_largest_first(tmp_path: Path, tiff: OpenTiff) -> None:
    image = np.full((200, 300, 3), GLASS, np.uint8)
    image[20:60, 10:50], image[80:180, 100:280], image[5, 5] = STROMA, STROMA, STROMA
    tissue = find_tissue(tiff(write_pyramid(tmp_path / "a.tif", image)))
    large, small = (region.box for region in tissue.regions)
    assert np.abs(np.array([large, small]) - [(100, 80, 280, 180), (10, 20, 50, 60)]).max() <= 1
    assert (tissue.labels[130, 200], tissue.labels[40, 30], tissue.labels[5, 5]) == (1, 2, 0)


def test_places_are_those_of_the_map(tmp_path: Path, tiff: OpenTiff) -> None:
    tissue = all_tissue(tiff(write_pyramid(tmp_path / "a.tif", picture(1500, 4500))))
    height, width = tissue.labels.shape
    assert (height, width) == (1182, 3547)
    rows, columns = tissue.pixels_at(np.array([[0.0, 0.0], [4500.0, 1500.0], [2250.0, 1499.0]]))
    assert rows.tolist() == [0, height - 1, height - 1] and columns.tolist() == [0, width - 1, 1773]
    assert tissue.regions[0].box == (0, 0, 4500, 1500)


def test_regions_of_a_file_have_its_names(tmp_path: Path, tiff: OpenTiff) -> None:
    slide, path = tiff(write_pyramid(tmp_path / "a.tif", picture(100, 120))), tmp_path / "r.geojson"
    named = [
        ({"name": " ä 1 ", "classification": {"name": "Tumor"}}, square(0, 0, 20, 20)),
        ({"name": None, "classification": {"name": "Tumor"}}, square(40, 0, 60, 30)),
        ({"classification": {"names": ["Tumor", "Positive"]}}, square(40, 40, 60, 65)),
        (None, square(0, 40, 30, 70)),
        ({}, square(5, 5, 9, 9)),  # in the first one, of which it takes a part
    ]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}
                for properties, ring in named]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tissue = read_tissue(slide, path)
    found = {region.title: np.count_nonzero(tissue.labels == n) for n, region in enumerate(tissue.regions, start=1)}
    assert found == {
        "x 0 to 30, y 40 to 70": 900,
        "Tumor": 600,
        "Tumor: Positive": 500,
        "ä 1": 400 - 16,
        "x 5 to 9, y 5 to 9": 16,
    }
    assert all(region.is_drawn for region in tissue.regions)


def test_a_region_smaller_than_a_pixel_of_the_map_is_one(tmp_path: Path, tiff: OpenTiff) -> None:
    slide = tiff(write_pyramid(tmp_path / "a.tif", np.full((2048, 4096, 3), 200, np.uint8)))
    path = write_regions(tmp_path / "r.geojson", {"type": "Polygon", "coordinates": [square(4002, 401, 4003, 402)]})
    tissue = read_tissue(slide, path)
    row, column = tissue.pixels_at(np.array([[4002.5, 401.5]]))
    assert len(tissue.mask) < 2048 and np.argwhere(tissue.mask).tolist() == [[*row, *column]]


def test_regions_of_a_file_with_holes(tmp_path: Path, tiff: OpenTiff) -> None:
    slide = tiff(write_pyramid(tmp_path / "a.tif", picture(100, 120)))
    path = write_regions(
        tmp_path / "r.geojson",
        {"type": "Polygon", "coordinates": [square(10, 20, 60, 70), square(20, 30, 40, 50)]},
        {"type": "MultiPolygon", "coordinates": [[square(100, 90, 200, 300)]]},
    )
    expected = np.zeros((100, 120), bool)
    expected[20:70, 10:60], expected[30:50, 20:40], expected[90:, 100:] = True, False, True
    assert (read_tissue(slide, path).mask == expected).all()
    assert all_tissue(slide).mask.all()


def test_regions_of_collections_are_drawn_and_lines_are_left_out(tmp_path: Path, tiff: OpenTiff) -> None:
    slide = tiff(write_pyramid(tmp_path / "a.tif", picture(100, 120)))
    first, second = ({"type": "Polygon", "coordinates": [square(left, 10, left + 20, 30)]} for left in (0, 60))
    line = {"type": "LineString", "coordinates": [[0, 0], [90, 90]]}
    collection = {"type": "GeometryCollection", "geometries": [first, line, second]}
    tissue = read_tissue(slide, write_regions(tmp_path / "r.geojson", collection, line))
    assert [region.box for region in tissue.regions] == [(0, 10, 80, 30)]
    assert tissue.mask.sum() == 800 and tissue.mask[10:30, 60:80].all()


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"type": "MultiPolygon", "coordinates": []}, "polygon"),
        ({"type": "GeometryCollection", "geometries": 5}, r"r\.geojson"),
        ({"type": "Polygon", "coordinates": [square(130, 0, 150, 20)]}, "100 x 120"),
        ({"type": "Polygon", "coordinates": [square(-30, 0, -10, 20)]}, "100 x 120"),
        ({"type": "Point", "coordinates": [1, 2]}, "polygon"),
        ({"type": "Polygon", "coordinates": [["a"]]}, r"r\.geojson"),
        ({"type": "Polygon", "coordinates": [[[1, 2]]]}, r"r\.geojson"),
    ],
)
def test_regions_that_cannot_be_meant_are_refused(
    tmp_path: Path, tiff: OpenTiff, geometry: dict[str, object], words: str
) -> None:
    slide = tiff(write_pyramid(tmp_path / "a.tif", picture(100, 120)))
    with pytest.raises(InputError, match=words):
        read_tissue(slide, write_regions(tmp_path / "r.geojson", geometry))
