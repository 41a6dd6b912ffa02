"""What is known before the first slide begins is refused with one line and exit code 2; what is not, is named later."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import inference
from src.common.errors import InputError
from src.config.flags import build
from src.config.settings import ImageSettings, InferenceConfig
from src.data.data_shift import DataStatistics
from src.engine import slide_run
from src.engine.slide_options import check_start
from src.engine.slide_run import predict_slides
from tests.slides import command
from tests.slides.scenes import STROMA, picture, write_pyramid
from tests.slides.test_prediction import CLASSES, options, predictor
from tests.slides.test_tissue import square, write_regions

pytestmark = pytest.mark.torch
Predict = Callable[..., int]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder of two slides, of 150 x 200 and 160 x 240 px."""
    for name, size in (("a", (150, 200)), ("site 1/b ü", (160, 240))):
        path = tmp_path / "slides" / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        write_pyramid(path, picture(*size))
    return tmp_path / "slides"


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, slides: Path, tmp_path: Path) -> Predict:
    """Predict the slides by ``inference.main`` with a stand-in for the network; the exit code."""
    monkeypatch.setattr(inference, "load_predictor", command.load)
    monkeypatch.setattr(inference, "job", lambda config, amp: [])

    def run(**flags: Any) -> int:
        given = {"test_dir": str(slides), "output": str(tmp_path / "out"), "slide_pixels": 10_000, "device": "cpu"}
        try:
            inference.main(build(InferenceConfig, {**given, **flags}))
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def outputs(out: Path) -> list[str]:
    return sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("summary.json"))


def polygon(*corners: int) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [square(*corners)]}


def test_outputs_lie_as_the_slides_do(predict: Predict, tmp_path: Path) -> None:
    assert predict() == 0 and outputs(tmp_path / "out") == ["a", "site 1/b ü"]
    assert not list((tmp_path / "out").rglob(".*"))


def test_regions_outside_of_a_slide_are_refused_before_any_is_predicted(predict: Predict, tmp_path: Path) -> None:
    """Which of the two slides is the smaller one, and comes first or last, does not matter."""
    regions = write_regions(tmp_path / "r.geojson", polygon(10, 10, 100, 100), polygon(205, 5, 230, 50))
    with pytest.raises(InputError, match=r"r\.geojson.*a\.tif.*150 x 200"):
        predict(tissue=str(regions))
    assert outputs(tmp_path / "out") == []
    regions.write_text('{"type": "FeatureCollection"')
    with pytest.raises(InputError, match=r"r\.geojson"):
        predict(tissue=str(regions))
    assert outputs(tmp_path / "out") == []
    write_regions(regions, polygon(10, 10, 100, 100))
    assert predict(tissue=str(regions)) == 0 and outputs(tmp_path / "out") == ["a", "site 1/b ü"]


def test_a_folder_of_regions_has_a_file_for_each_slide(predict: Predict, tmp_path: Path) -> None:
    regions = tmp_path / "regions"
    (regions / "site 1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--tissue .*regions.*2 of 2.*a, site 1/b ü"):
        predict(tissue=str(regions))
    write_regions(regions / "a.geojson", polygon(10, 10, 100, 100))
    with pytest.raises(InputError, match=r"1 of 2.*site 1/b ü"):
        predict(tissue=str(regions))
    write_regions(regions / "site 1" / "b ü.geojson", polygon(300, 300, 310, 310))
    with pytest.raises(InputError, match=r"b ü\.geojson.*b ü\.tif.*160 x 240"):
        predict(tissue=str(regions))
    assert outputs(tmp_path / "out") == []
    write_regions(regions / "site 1" / "b ü.geojson", polygon(0, 0, 240, 160))
    assert predict(tissue=str(regions)) == 0
    shares = {
        name: json.loads((tmp_path / "out" / name / "summary.json").read_text())["tissue_share"]
        for name in outputs(tmp_path / "out")
    }
    assert shares == {"a": pytest.approx(90 * 90 / (150 * 200)), "site 1/b ü": 1.0}
    before = (tmp_path / "out" / "a" / "summary.json").stat().st_mtime_ns
    write_regions(regions / "site 1" / "b ü.geojson", polygon(0, 0, 120, 160))
    assert predict(tissue=str(regions)) == 0
    assert json.loads((tmp_path / "out" / "site 1/b ü" / "summary.json").read_text())["tissue_share"] == 0.5
    assert (tmp_path / "out" / "a" / "summary.json").stat().st_mtime_ns == before  # its own regions are as before


def test_a_name_that_is_not_utf_8_is_refused_before_any_is_predicted(
    predict: Predict, slides: Path, tmp_path: Path
) -> None:
    try:
        shutil.copy(slides / "a.tif", slides / os.fsdecode(b"z\xff.tif"))
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(InputError, match=r"z.*\.tif: .*UTF-8"):
        predict()
    assert outputs(tmp_path / "out") == []


def test_only_the_slides_of_a_shard_need_regions(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "regions").mkdir()
    write_regions(tmp_path / "regions" / "a.geojson", polygon(0, 0, 100, 100))
    assert predict(tissue=str(tmp_path / "regions"), shard="1/2") == 0
    assert outputs(tmp_path / "out") == ["a"]


def test_a_slide_that_does_not_open_is_named_later(predict: Predict, slides: Path, tmp_path: Path) -> None:
    (slides / "0 broken.tif").write_bytes(b"II*\0")
    regions = write_regions(tmp_path / "r.geojson", polygon(10, 10, 100, 100))
    assert predict(tissue=str(regions)) == 1
    assert outputs(tmp_path / "out") == ["a", "site 1/b ü"]


def test_unfinished_work_of_other_settings_or_another_file_is_refused_before_any_is_predicted(
    predict: Predict, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise InputError("no room")

    out, unfinished = tmp_path / "out", tmp_path / "out" / "site 1" / ".b ü.unfinished"
    monkeypatch.setattr(slide_run, "write_outputs", no_room)
    assert predict() == 1 and outputs(out) == []
    monkeypatch.undo()
    monkeypatch.setattr(inference, "load_predictor", command.load)
    monkeypatch.setattr(inference, "job", lambda config, amp: [])
    shutil.rmtree(out / ".a.unfinished")
    with pytest.raises(InputError, match=r"\.b ü\.unfinished"):
        predict(tissue="all")
    slide, kept = slides / "site 1" / "b ü.tif", (slides / "site 1" / "b ü.tif").read_bytes()
    write_pyramid(slide, picture(160, 240, seed=1))
    with pytest.raises(InputError, match=r"\.b ü\.unfinished"):
        predict()
    assert outputs(out) == []
    slide.write_bytes(kept)
    shutil.copytree(unfinished, tmp_path / "kept")
    assert predict() == 0 and outputs(out) == ["a", "site 1/b ü"]
    shutil.copytree(tmp_path / "kept", unfinished)  # as if killed right before it was deleted
    assert predict(tissue="all") == 0 and not unfinished.exists()


def test_unfinished_work_that_cannot_be_read_is_named_later(predict: Predict, tmp_path: Path) -> None:
    job = tmp_path / "out" / ".a.unfinished" / "job.json"
    job.parent.mkdir(parents=True)
    job.write_bytes(b"\xff\0{")
    assert predict() == 1 and outputs(tmp_path / "out") == ["site 1/b ü"]


def test_a_slide_whose_name_is_too_long_for_its_outputs_is_named_later(
    predict: Predict, slides: Path, tmp_path: Path
) -> None:
    shutil.copy(slides / "a.tif", slides / f"{'n' * 250}.tif")
    assert predict() == 1 and outputs(tmp_path / "out") == ["a", "site 1/b ü"]


@pytest.mark.parametrize("output", ["file", "file/below", "full"])
def test_an_output_that_cannot_be_is_refused_at_the_start(
    predict: Predict, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "full" / "a").mkdir(parents=True)
    (tmp_path / "full" / "a" / "mine.txt").write_text("not of this program")
    monkeypatch.setattr(inference, "predict_slides", None)
    with pytest.raises(InputError, match=output):
        predict(output=str(tmp_path / output))
    assert (tmp_path / "full" / "a" / "mine.txt").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission_is_refused_at_the_start(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match="out"):
        predict()


def test_a_training_of_unknown_resolution_is_known_at_the_start(slides: Path, tmp_path: Path) -> None:
    how = options(tmp_path / "out", scale=None, trained=replace(ImageSettings(), mpp=None))
    with pytest.raises(InputError, match="--scale"):
        check_start([slides / "a.tif"], how)
    check_start([slides / "a.tif"], replace(how, scale=1.0))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_shard_without_slides_is_done(predict: Predict, tmp_path: Path) -> None:
    assert predict(shard="3/10") == 0 and outputs(tmp_path / "out") == []


def test_a_disk_that_is_too_small_is_known_before_the_slide(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_run.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    (reason,) = predict_slides(predictor(), CLASSES, [slides / "a.tif"], options(tmp_path / "out")).values()
    assert reason.startswith(str(slides / "a.tif")) and "GB" in reason


def statistics(cell_size: float, absorption: tuple[float, float, float]) -> DataStatistics:
    return DataStatistics(cell_size, None, None, absorption)


def test_a_slide_unlike_the_training_is_said_once_with_figures(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = options(tmp_path / "out", tissue="auto")
    image = picture(400, 600)
    path = write_pyramid(slides / "c.tif", image)
    shares = -torch.log((torch.tensor(STROMA).float() + 1) / 256)
    alike = tuple((shares / shares.sum()).tolist())
    predict_slides(predictor(), CLASSES, [path], replace(how, statistics=statistics(15.0, alike), job=1))
    assert "warning" not in capsys.readouterr().out
    predict_slides(predictor(), CLASSES, [path], replace(how, statistics=statistics(45.0, (0.5, 0.25, 0.25)), job=2))
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(said) == 2 and all(line.startswith(f"{path}: ") for line in said)
    assert "50 : 25 : 25" in said[0] and "45 in training" in said[1] and "16 px" in said[1]
