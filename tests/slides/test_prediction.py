"""A slide is predicted like an image, in pieces that an interruption cannot lose."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import torch

from src.common.errors import InputError
from src.config.settings import ImageSettings, PredictSettings
from src.data.classes import name_classes
from src.engine.prediction import Predictor, predict_image
from src.engine.slide_options import SlideOptions
from src.engine.slide_prediction import choose_tiles, predict_slide
from src.engine.slide_run import predict_slides
from src.geometry.instances import Instance
from src.geometry.stitch import Stitcher, stitch
from src.geometry.stitch_settings import StitchSettings
from src.geometry.tiles import Tile
from src.slides.scaled import ScaledSlide
from src.slides.shards import Shards, pack, unpack
from src.slides.tissue import all_tissue, find_tissue
from tests.geometry.test_stitch import keys
from tests.geometry.test_stitcher import Scene, crowded, full_keys, tied
from tests.slides.conftest import OpenTiff
from tests.slides.scenes import DarkFinder, break_stored_tile, picture, write_pyramid

CLASSES = name_classes(["upright", "lying"])


def predictor(batch: int = 4) -> Predictor:
    settings = PredictSettings(
        predict_overlap=24, predict_batch_size=batch, one_class_per_cell=True, score_thresh=0.05, min_score=0.5
    )
    return Predictor([DarkFinder()], torch.device("cpu"), None, ImageSettings(), 64, settings)


def options(output: Path, **changes: Any) -> SlideOptions:
    usual = {"tissue": "all", "mpp": None, "scale": 1.0, "trained": ImageSettings(), "job": 1}
    return SlideOptions(output, **{**usual, **changes})


@pytest.mark.parametrize(("batch", "height"), [(1, 300), (3, 300), (64, 300), (3, 50)])
def test_cells_are_those_of_the_image_at_once(tmp_path: Path, tiff: OpenTiff, batch: int, height: int) -> None:
    """Also where tiles are padded, with a colour that the stand-in for the network takes for a cell."""
    image = np.ascontiguousarray(picture(300, 410)[150 - height // 2 : 150 + height // 2])
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", image)), 1.0)
    tiles = choose_tiles(slide, all_tissue(slide.slide), 64, 24)
    shards = Shards(tmp_path / "shards", 1)
    predict_slide(predictor(batch), slide, tiles, shards)
    found = [cell for cells in shards.cells() for cell in cells]
    assert keys(found) == keys(predict_image(predictor(), image)) and len(found) > height / 12


def test_tiles_without_tissue_are_left_out_and_no_cell_is_lost(tmp_path: Path, tiff: OpenTiff) -> None:
    image = picture(300, 500)
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", image)), 1.0)
    chosen = choose_tiles(slide, find_tissue(slide.slide), 64, 24)
    assert len(chosen.scaled) < chosen.in_grid
    shards = Shards(tmp_path / "shards", 1)
    predict_slide(predictor(), slide, chosen, shards)
    assert keys([cell for cells in shards.cells() for cell in cells]) == keys(predict_image(predictor(), image))


@pytest.mark.parametrize("scene_of", [crowded, tied])
@pytest.mark.parametrize("seed", range(3))
def test_a_state_is_kept_whole(tmp_path: Path, scene_of: Callable[[int], Scene], seed: int) -> None:
    """Also of chains and of cut cells: stitching goes on from a shard behind every row of tiles."""
    tiles, detections, height, width = scene_of(seed)
    settings, shards = StitchSettings(band=16), Shards(tmp_path / "shards", 1)
    stitcher, waiting = Stitcher(tiles, height, width, settings), list(range(len(tiles)))
    while waiting:
        tile, row = waiting.pop(0), stitcher.state.next_row
        cells = stitcher.add(tile, [replace(one, probabilities=(1.0,)) for one in detections[tile]])
        if stitcher.state.next_row > row:
            shards.add(cells, stitcher.state)
            before, after = stitcher.state, shards.state()
            for kept, read in ((before.pending, after.pending), (before.waiting, after.waiting)):
                columns = {name: values for name, values in vars(kept).items() if name != "instances"}
                assert all(np.array_equal(values, getattr(read, name)) for name, values in columns.items())
            stitcher = Stitcher(tiles, height, width, settings)
            waiting = stitcher.go_on_from(after)
    found = [cell for part in shards.cells() for cell in part]
    assert full_keys(found) == full_keys(stitch(tiles, detections, height, width, settings))


class StoppedError(Exception):
    """The process was killed."""


def stopping_after(count: int) -> Any:
    def progress(indices: Iterable[int]) -> Iterator[int]:
        for done, index in enumerate(indices):
            if done == count:
                raise StoppedError
            yield index

    return progress


@pytest.mark.parametrize("seed", range(3))
def test_what_is_interrupted_goes_on_with_the_same_cells(
    tmp_path: Path, tiff: OpenTiff, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("src.engine.slide_prediction.TILES_PER_SHARD", 8)
    slide = ScaledSlide(tiff(write_pyramid(tmp_path / "a.tif", picture(300, 410))), 1.0)
    tiles = choose_tiles(slide, all_tissue(slide.slide), 64, 24)
    whole, rng = Shards(tmp_path / "whole", 1), np.random.default_rng(seed)
    predict_slide(predictor(), slide, tiles, whole)
    pieces, done = Shards(tmp_path / "pieces", 1), 0
    for _ in range(8):
        with pytest.raises(StoppedError):
            predict_slide(predictor(), slide, tiles, pieces, stopping_after(int(rng.integers(0, 20))))
        state = pieces.state()
        assert state is None or state.next_row >= done  # finished shards are not repeated
        done = state.next_row if state else 0
    predict_slide(predictor(), slide, tiles, pieces)
    expected, found = ([(one.top, one.left, one.score) for part in shards.cells() for one in part]
                       for shards in (whole, pieces))  # fmt: skip
    assert found == expected  # in the same order


def test_a_broken_stored_tile_counts_once_and_after_an_interruption_too(
    tmp_path: Path, tiff: OpenTiff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.engine.slide_prediction.TILES_PER_SHARD", 8)
    break_stored_tile(path := write_pyramid(tmp_path / "a.tif", picture(300, 410)), 0)
    shards, first, second = Shards(tmp_path / "shards", 1), tiff(path), tiff(path)
    tiles = choose_tiles(ScaledSlide(first, 1.0), all_tissue(first), 64, 24)  # which reads the stored tile, too
    with pytest.raises(StoppedError):
        predict_slide(predictor(), ScaledSlide(first, 1.0), tiles, shards, stopping_after(40))
    assert shards.broken() == first.broken == {(0, 0)}
    predict_slide(predictor(), ScaledSlide(second, 1.0), tiles, shards)
    assert not second.broken and shards.broken() == {(0, 0)}


def test_shards_of_another_job_are_refused(tmp_path: Path) -> None:
    empty = Shards(tmp_path / "shards", {"scale": 1.0})
    assert empty.state() is None and list(empty.cells()) == []
    empty.add([], Stitcher([Tile(0, 0, 9, 9)], 9, 9).state)
    assert Shards(tmp_path / "shards", {"scale": 1.0}).state() is not None
    with pytest.raises(InputError, match="shards"):
        Shards(tmp_path / "shards", {"scale": 2.0})


def test_packed_objects_come_back() -> None:
    rng = np.random.default_rng(0)
    cells = [
        Instance(k, float(rng.random()), k, 2 * k, rng.random((k, 11 - k)) < 0.5, (0.25, 0.75)) for k in range(1, 10)
    ]
    found = unpack(pack(cells))
    assert keys(found) == keys(cells)
    assert [(one.score, one.probabilities) for one in found] == [(one.score, one.probabilities) for one in cells]
    assert unpack(pack([])) == []


def test_a_folder_of_outputs(tmp_path: Path) -> None:
    image = picture(300, 410)
    path = write_pyramid(tmp_path / "a.tif", image, mpp=0.5)
    expected = predict_image(predictor(), image)
    assert predict_slides(predictor(), CLASSES, [path], options(tmp_path / "out", tissue="auto")) == {}
    folder = tmp_path / "out" / "a"
    assert sorted(one.name for one in folder.iterdir()) == [
        "cells.geojson.gz", "cells.parquet", "overview.png", "summary.json",
    ]  # fmt: skip
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["a"]
    with gzip.open(folder / "cells.geojson.gz") as file:
        features = json.load(file)["features"]
    outlines = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(outline.is_valid for outline in outlines)
    assert sorted(outline.area for outline in outlines) == sorted(cell.area for cell in expected)
    assert len({feature["id"] for feature in features}) == len(expected)
    table = pq.read_table(folder / "cells.parquet")
    assert table["label"].to_pylist() == list(range(1, len(expected) + 1))
    assert all(a.equals(b) for a, b in zip(shapely.from_wkb(table["geometry"].to_pylist()), outlines, strict=True))
    summary = json.loads((folder / "summary.json").read_text())
    tissue = (image != image[0, 0]).any(axis=2).sum() * 0.5**2 / 1e6
    assert summary["cells"]["all"] == len(expected) and summary["mpp"] == 0.5
    assert summary["tissue_mm2"] == pytest.approx(tissue, rel=0.03)
    assert summary["cells_per_mm2"]["all"] == pytest.approx(len(expected) / tissue, rel=0.03)


def test_a_finished_slide_is_skipped_and_one_with_other_settings_is_not(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(150, 150))
    summary = tmp_path / "out" / "a" / "summary.json"
    predict_slides(predictor(), CLASSES, [path], options(tmp_path / "out"))
    written = summary.stat().st_mtime_ns
    predict_slides(predictor(), CLASSES, [path], options(tmp_path / "out"))
    assert summary.stat().st_mtime_ns == written
    predict_slides(predictor(), CLASSES, [path], options(tmp_path / "out", job=2))
    assert summary.stat().st_mtime_ns > written


def test_glass_alone_gives_valid_empty_files(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", np.full((150, 150, 3), 244, np.uint8))
    assert predict_slides(predictor(), CLASSES, [path], options(tmp_path / "out", tissue="auto")) == {}
    with gzip.open(tmp_path / "out" / "a" / "cells.geojson.gz") as file:
        assert json.load(file) == {"type": "FeatureCollection", "features": []}
    assert pq.read_table(tmp_path / "out" / "a" / "cells.parquet").num_rows == 0
    assert json.loads((tmp_path / "out" / "a" / "summary.json").read_text())["cells"]["all"] == 0


def test_one_slide_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0 no slide")
    good = write_pyramid(tmp_path / "b.tif", picture(150, 150))
    failed = predict_slides(predictor(), CLASSES, [tmp_path / "a.tif", good], options(tmp_path / "out"))
    assert list(failed) == [tmp_path / "a.tif"] and "a.tif" in failed[tmp_path / "a.tif"]
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("in_file", "trained", "flags", "scale"),
    [
        (0.5, 0.25, {}, 2.0),
        (0.5, 0.25, {"mpp": 0.25}, 1.0),
        (None, 0.25, {"mpp": 0.125}, 0.5),
        (None, None, {"scale": 0.5}, 0.5),
        (None, 0.25, {}, "--mpp"),
        (0.5, None, {}, "--scale"),
    ],
)
def test_the_scale_is_never_guessed(
    tmp_path: Path, in_file: float | None, trained: float | None, flags: dict[str, float], scale: float | str
) -> None:
    path = write_pyramid(tmp_path / "a.tif", picture(150, 150), mpp=in_file)
    how = options(tmp_path / "out", **{"scale": None, "trained": replace(ImageSettings(), mpp=trained), **flags})
    failed = predict_slides(predictor(), CLASSES, [path], how)
    if isinstance(scale, str):
        assert scale in failed[path] and "a.tif" in failed[path]
    else:
        summary = json.loads((tmp_path / "out" / "a" / "summary.json").read_text())
        assert summary["scale"] == pytest.approx(scale)
