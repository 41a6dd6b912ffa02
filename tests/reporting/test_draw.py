import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from src.common.files import read_lines
from src.data.classes import HOMEWORK_CLASSES
from src.geometry.instances import Instance
from src.reporting.counts import write_counts
from src.reporting.curves import smooth, write_curves
from src.reporting.draw import draw_outlines, legend, outline_thickness, write_overlay


def cell(class_id: int = 1) -> Instance:
    return Instance(class_id, 0.9, 5, 8, np.ones((10, 12), bool))


def test_outline_follows_the_cell_in_its_colour() -> None:
    image = np.full((30, 40, 3), 200, np.uint8)
    for zoom in (1, 2):
        picture = draw_outlines(image, [cell()], HOMEWORK_CLASSES, zoom)
        assert picture.shape == (30 * zoom, 40 * zoom, 3)
        rows, columns = np.nonzero((picture == HOMEWORK_CLASSES[0].rgb).all(axis=2))
        assert np.abs(np.subtract((rows.min(), rows.max()), (5 * zoom, 15 * zoom - 1))).max() <= 1
        assert np.abs(np.subtract((columns.min(), columns.max()), (8 * zoom, 20 * zoom - 1))).max() <= 1
        across = picture[10 * zoom]  # the outline is crossed twice, and its white rim four times
        assert (across == HOMEWORK_CLASSES[0].rgb).all(axis=1).sum() in (4, 5, 6)
        assert (across == 255).all(axis=1).sum() >= 4
        assert (picture[10 * zoom, 14 * zoom] == 200).all()  # the inside stays visible
    assert (image == 200).all()


def test_overlay_is_a_png_in_rgb_with_a_legend(tmp_path: Path) -> None:
    image = np.full((150, 300, 3), (250, 10, 20), np.uint8)
    write_overlay(tmp_path / "deep/a.png", image, [cell(2)], HOMEWORK_CLASSES)
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "deep/a.png")), cv2.COLOR_BGR2RGB)
    assert picture.shape[0] > 300 and picture.shape[1] == 600
    assert picture[200, 400].tolist() == [250, 10, 20]
    for cell_class in HOMEWORK_CLASSES:
        assert (picture[300:] == cell_class.rgb).all(axis=2).any()


def test_outlines_grow_with_the_picture() -> None:
    assert [outline_thickness(side, 100) for side in (100, 2000, 4000, 10_000)] == [2, 2, 4, 10]


def test_the_legend_counts_the_cells() -> None:
    plain, counted = (legend(np.zeros((10, 700, 3), np.uint8), HOMEWORK_CLASSES, n) for n in (None, Counter({1: 12})))
    assert plain.shape == counted.shape and (counted[10:] == 0).sum() > (plain[10:] == 0).sum()
    assert legend(np.zeros((10, 2100, 3), np.uint8), HOMEWORK_CLASSES).shape[0] - 10 == 3 * (len(plain) - 10)


def test_the_table_of_counts_by_hand(tmp_path: Path) -> None:
    counts = {7: Counter({1: 3, 2: 1}), 9: Counter[int]()}
    write_counts(tmp_path / "counts.csv", [("b.tif", 9), ('a,"x".tif', 7)], counts, HOMEWORK_CLASSES[:2])
    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "epithelial", "lymphocyte", "all"], ["b.tif", "0", "0", "0"], ['a,"x".tif', "3", "1", "4"],
    ]  # fmt: skip


def test_a_narrow_picture_gets_a_legend_of_several_rows() -> None:
    assert legend(np.zeros((10, 100, 3), np.uint8), HOMEWORK_CLASSES).shape == (10 + 84, 100, 3)


def test_smooth_by_hand() -> None:
    assert smooth([1, 3, 5, 7], window=2).tolist() == [1, 2, 4, 6]
    assert smooth([], window=2).tolist() == []


def test_curves_of_a_run_with_a_torn_last_line(tmp_path: Path) -> None:
    losses = '"loss": 2, "classifier": 1, "box": 0.2, "mask": 0.5, "objectness": 0.2, "rpn_box": 0.1'
    lines = [f'{{"event": "step", "step": {step}, "epoch": 0, "time_s": 1, "lr": 0.1, {losses}}}' for step in (1, 2)]
    lines.append('{"event": "val", "step": 2, "epoch": 1, "time_s": 2, "AP50": 0.3, "AP50_at_100": null, "AP": 0.1}')
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"event": "st')
    assert [event["event"] for event in read_lines(tmp_path / "log.jsonl")] == ["step", "step", "val"]
    write_curves(tmp_path)
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (700, 900, 3)


def test_no_log_no_curves(tmp_path: Path) -> None:
    write_curves(tmp_path)
    assert not list(tmp_path.iterdir())
