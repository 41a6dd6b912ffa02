"""The folder of a slide: the same files however the cells come, a picture of them, and numbers by region."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from src.data.classes import name_classes
from src.data.id_map import ImageId
from src.formats.writers import geojson, parquet
from src.formats.writers.batches import Batch
from src.geometry.instances import Instance
from src.slides import densities
from src.slides.densities import RegionCounts
from src.slides.outputs import SlideInfo, write_outputs
from src.slides.overview import Overview
from src.slides.slide import Level
from src.slides.tissue import Region, Tissue

CLASSES = name_classes(["one", "two"])
HEIGHT, WIDTH = 1000, 2000
DISK = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)).astype(bool)


class Portions:
    """Cells as shards give them."""

    def __init__(self, *portions: Sequence[Instance]) -> None:
        self._portions = portions

    def cells(self) -> Iterator[list[Instance]]:
        yield from map(list, self._portions)


def cells(count: int = 60, seed: int = 0) -> list[Instance]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        mask = rng.random((9, 11)) < 0.8
        mask[0, 4] = mask[-1, 4] = mask[4, 0] = mask[4, -1] = True
        share = float(rng.random())
        place = (int(rng.integers(0, HEIGHT - 9)), int(rng.integers(0, WIDTH - 11)))
        found.append(Instance(1 + (share < 0.5), float(rng.random()), *place, mask, (share, 1 - share)))
    return found


def halves(factor: int = 4, **changes: Any) -> Tissue:
    """A map of a slide, ``factor`` times smaller, with tissue at the left and at the right and none between."""
    labels = np.zeros((HEIGHT // factor, WIDTH // factor), np.int32)
    labels[:, : 800 // factor], labels[:, 1200 // factor :] = 1, 2
    regions = [Region((0, 0, 800, HEIGHT)), Region((1200, 0, WIDTH, HEIGHT))]
    found = Tissue(labels, np.full((*labels.shape, 3), 200, np.uint8), Level(HEIGHT, WIDTH), regions)
    return replace(found, **changes)


def info(mpp: float | None = 0.5) -> SlideInfo:
    return SlideInfo(ImageId("a.svs", 1, HEIGHT, WIDTH), mpp, CLASSES, halves())


def written(folder: Path, *portions: Sequence[Instance]) -> dict[str, bytes]:
    write_outputs(folder, info(), Portions(*portions), 0.0, {})  # type: ignore[arg-type]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("cuts", [[], [0], [1], [7, 7, 50], [30, 31, 32, 33]])
def test_the_same_cells_make_the_same_bytes_in_any_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int]
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 16)
    monkeypatch.setattr(geojson, "BLOCK", 700)
    all_of = cells()
    whole = written(tmp_path / "whole", all_of)
    monkeypatch.setattr("src.geometry.stacks.MOST_OBJECTS", 1 + len(cuts))
    portions = [all_of[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(all_of)], strict=True)]
    assert written(tmp_path / "portions", *portions) == whole
    file = pq.ParquetFile(tmp_path / "portions" / "cells.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [16, 16, 16, 12]


def test_cells_below_the_score_are_nowhere(tmp_path: Path) -> None:
    all_of = cells()
    sure = [cell for cell in all_of if cell.score >= 0.5]
    counts = write_outputs(tmp_path / "a", info(), Portions(all_of), 0.5, {})  # type: ignore[arg-type]
    assert sum(counts.values()) == len(sure) == pq.read_metadata(tmp_path / "a" / "cells.parquet").num_rows
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["cells"]["all"] == len(sure)


def drawn(tissue: Tissue, *batches: Sequence[Instance]) -> np.ndarray:
    picture = Overview(tissue, CLASSES)
    for batch in batches:
        picture.add(Batch(batch))
    return picture.finished({1: 1, 2: 1})[: tissue.labels.shape[0]]


def places_of(picture: np.ndarray, class_id: int) -> set[tuple[int, int]]:
    return {(int(row), int(column)) for row, column in np.argwhere((picture == CLASSES[class_id - 1].rgb).all(axis=2))}


def test_a_large_cell_is_an_outline_and_a_small_one_a_dot() -> None:
    cell = Instance(1, 0.9, 100, 900, DISK)
    outline = places_of(drawn(halves(factor=1), [cell]), 1)
    border = DISK & ~cv2.erode(DISK.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).astype(bool)
    border[0], border[-1], border[:, 0], border[:, -1] = DISK[0], DISK[-1], DISK[:, 0], DISK[:, -1]
    assert outline == {(int(row) + 100, int(column) + 900) for row, column in np.argwhere(border)}
    row, column = 110 // 10, 910 // 10
    dot = {(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
    assert places_of(drawn(halves(factor=10), [cell]), 1) == dot


def test_dots_in_a_crowd_are_single_pixels() -> None:
    crowd = [
        Instance(1 + (row // 20 % 2), 0.9, row, column, np.ones((9, 9), bool))
        for row in range(0, 400, 20)
        for column in range(800, 1200, 20)
    ]
    picture = drawn(halves(factor=10), crowd)
    middle = {(row, column) for row, column in places_of(picture, 1) if 15 <= row < 25 and 95 <= column < 105}
    assert middle == {(row, column) for row in range(16, 25, 4) for column in range(96, 105, 2)}


def test_where_cells_lie_together_most_win_in_any_order() -> None:
    one, two = (Instance(class_id, 0.9, 100, 900, np.ones((3, 3), bool)) for class_id in (1, 2))
    for order in ([[one, two, two]], [[two], [one], [two]], [[two, two], [one]]):
        picture = drawn(halves(factor=10), *order)
        assert (10, 90) in places_of(picture, 2) and not places_of(picture, 1)
    many = cells()
    assert np.array_equal(drawn(halves(), many), drawn(halves(), many[30:][::-1], many[:30]))


def test_drawn_regions_are_outlined_within_others() -> None:
    labels = np.ones((100, 200), np.int32)
    labels[40:60, 50:90] = 2
    regions = [Region((0, 0, WIDTH, HEIGHT)), Region((500, 400, 900, 600), is_drawn=True)]
    picture = drawn(halves(factor=10, labels=labels, regions=regions))
    black = (picture == 0).all(axis=2)
    assert black[40, 50:90].all() and black[59, 50:90].all() and not black[41:59, 51:89].any()
    assert not black[1:40, 1:-1].any() and black[0].all()


def counted(tissue: Tissue, found: Sequence[Instance], mpp: float | None = 0.5) -> dict[str, Any]:
    counts = RegionCounts(tissue, CLASSES)
    counts.add(Batch(found))
    return counts.summary(mpp)


def test_cells_count_in_the_region_that_holds_their_centre() -> None:
    pixel = np.ones((1, 1), bool)
    found = [Instance(class_id, 0.9, 500, left, pixel) for class_id, left in
             ((1, 0), (1, 799), (2, 799), (2, 800), (1, 1199), (2, 1200), (2, WIDTH - 1))]  # fmt: skip
    summary = counted(halves(), found)
    left, right = summary["regions"]
    area = 800 * HEIGHT * 0.25 / 1e6
    assert left == {
        "name": "x 0 to 800, y 0 to 1000",
        "box": {"left": 0, "top": 0, "right": 800, "bottom": 1000},
        "area_mm2": area,
        "cells": {"one": 2, "two": 1, "all": 3},
        "cells_per_mm2": {"one": 2 / area, "two": 1 / area, "all": 3 / area},
    }
    assert right["cells"] == {"one": 0, "two": 2, "all": 2}
    assert summary["other_regions"]["regions"] == 0 and summary["other_regions"]["cells"]["all"] == 0
    assert summary["outside_of_regions"]["cells"] == {"one": 1, "two": 1, "all": 2}
    assert summary["tissue_mm2"] == 2 * area and summary["cells"] == {"one": 3, "two": 4, "all": 7}
    assert summary["cells_per_mm2"] == {"one": 2 / 0.4, "two": 3 / 0.4, "all": 5 / 0.4}  # of cells in tissue
    unknown = counted(halves(), found, None)["regions"][0]
    assert unknown["area_mm2"] is None and unknown["cells"]["all"] == 3 and unknown["cells_per_mm2"]["all"] is None


def test_regions_beyond_the_most_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(densities, "MOST_REGIONS", 3)
    labels = np.repeat(np.arange(11, dtype=np.int32)[None], 10, axis=0)  # a column each
    regions = [Region((100 * n, 0, 100 * n + 100, 1000), is_drawn=True) for n in range(1, 11)]
    tissue = Tissue(labels, np.zeros((10, 11, 3), np.uint8), Level(1000, 1100), regions)
    found = [Instance(1, 0.9, 5, 100 * n + 50, np.ones((1, 1), bool)) for n in range(11)]
    summary = counted(tissue, found)
    assert [region["cells"]["all"] for region in summary["regions"]] == [1, 1, 1]
    others = summary["other_regions"]
    assert others["regions"] == others["cells"]["all"] == 7 and summary["outside_of_regions"]["cells"]["all"] == 1
    assert others["area_mm2"] == pytest.approx(7 * 100 * 1000 * 0.25 / 1e6)


@pytest.mark.parametrize(("is_drawn", "listed"), [(False, 1), (True, 2)])
def test_specks_are_listed_only_where_they_were_drawn(is_drawn: bool, listed: int) -> None:
    labels = np.ones((100, 200), np.int32)
    labels[50, 50] = 2
    regions = [Region((0, 0, WIDTH, HEIGHT), is_drawn=is_drawn), Region((500, 500, 510, 510), is_drawn=is_drawn)]
    summary = counted(halves(labels=labels, regions=regions), cells())
    assert len(summary["regions"]) == listed and summary["other_regions"]["regions"] == 2 - listed


def test_no_cells_make_valid_empty_files(tmp_path: Path) -> None:
    files = written(tmp_path / "a")
    assert sorted(files) == ["cells.geojson.gz", "cells.parquet", "overview.png", "summary.json"]
    summary = json.loads(files["summary.json"])
    assert summary["cells"] == {"one": 0, "two": 0, "all": 0} and len(summary["regions"]) == 2
