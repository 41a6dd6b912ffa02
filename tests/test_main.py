"""The road end to end on a few tiny images: train, resume, predict, score, alone and as two processes."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inference
import main
from src import report
from src.common.errors import InputError
from src.config.checks import check_prediction
from src.config.flags import build
from src.config.recipe import read_recipe
from src.config.settings import ImageSettings, InferenceConfig, TrainConfig
from src.data.classes import HOMEWORK_CLASSES
from src.data.id_map import read_id_map
from src.data.tiff import read_image, write_image
from src.engine.checkpoint import Checkpoint, read_checkpoint
from src.engine.run_folder import checkpoint_to_resume
from src.evaluation.result_settings import read_min_score
from tests.checkpoints import snapshot_of, write_format_2
from tests.helpers import TINY, write_dataset

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("data") / "train", "abcd")
    (folder.parent / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c", "d"]}))
    return folder


def settings_for(data: Path, out: Path, **changes: object) -> dict[str, object]:
    paths = {"data_path": str(data), "split": str(data.parent / "split.json"), "output_dir": str(out)}
    return {**TINY, **paths, "cache_dir": str(data.parent / "cache"), **changes}


def train(data: Path, out: Path, **changes: object) -> list[dict[str, object]]:
    """Train with the tiny settings; the events of the log."""
    main.main(build(TrainConfig, settings_for(data, out, **changes)))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    out = data.parent / "run"
    train(data, out)
    return out


def test_a_run_leaves_all_its_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.toml", "split.json", "log.jsonl", "log.csv", "last.pt", "previous.pt", "best.pt"} <= names
    assert {"curves.png", "classes.json", "val-results.json", "val-results.id-map.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    events = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "val"] == ["start"] + ["step"] * 5 + ["end"]
    assert all(math.isfinite(event["loss"]) for event in events if event["event"] == "step")
    assert any(event["event"] == "val" and 0 <= event["AP50"] <= 1 for event in events)


def test_the_written_configuration_is_a_recipe_for_the_same_run(finished: Path, data: Path) -> None:
    again = build(TrainConfig, read_recipe(finished / "config.toml"))
    assert again.model.norm == "batch" and again.image.channel_order in ("rgb", "bgr")
    assert again.data.data_path == str(data) and again.tiles.tile_size == 64
    assert read_checkpoint(finished / "best.pt").config.tiles.tile_size == 64


def test_the_same_seed_is_the_same_run(finished: Path, data: Path, tmp_path: Path) -> None:
    first = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    second = train(data, tmp_path / "run")
    losses = [[event["loss"] for event in events if event["event"] == "step"] for events in (first, second)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stopped_after", [2, 4])  # in the middle of an epoch, and at its end
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    finished: Path, data: Path, tmp_path: Path, stopped_after: int, workers: int
) -> None:
    whole = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    out = tmp_path / "run"
    train(data, out, max_steps=stopped_after, workers=workers)
    progress = snapshot_of(out / "last.pt").progress
    assert progress.step == progress.batch == stopped_after
    (out / ".last.pt.0a1b2c3d.tmp.pt").write_bytes(b"half")  # as a kill while saving leaves it
    events = train(data, out, resume="auto", workers=workers)
    assert [event["step"] for event in events if event["event"] == "start"] == [0, stopped_after]  # it did go on
    assert not list(out.glob(".*"))
    losses = [[event["loss"] for event in events if event["event"] == "step"] for events in (whole, events)]
    assert losses[0] == losses[1]
    same_weights(finished / "last.pt", out / "last.pt")


def same_weights(one: Path, other: Path) -> None:
    """Both the trained weights and those that predict are equal, bit for bit."""
    for weights, others in (
        (snapshot_of(one).model, snapshot_of(other).model),
        (read_checkpoint(one).weights, read_checkpoint(other).weights),
    ):
        assert weights.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


def test_a_run_of_an_earlier_version_goes_on(finished: Path, data: Path, tmp_path: Path) -> None:
    """Its checkpoints hold -1 for workers, precision auto, and in best.pt all that last.pt holds."""
    train(data, tmp_path / "run", max_steps=2)
    old = settings_for(data, tmp_path / "run", max_steps=2, workers=-1, amp="auto")
    resolved = {"norm": "batch", "head_norm": "on", "trainable_layers": 5, "channel_order": "rgb"}
    last = read_checkpoint(tmp_path / "run/last.pt")
    for name in ("last.pt", "best.pt"):
        write_format_2(tmp_path / "run" / name, last, {**old, **resolved})
    found = infer(tmp_path / "run", data, tmp_path / "old.json")
    train(data, tmp_path / "run", resume="auto")
    same_weights(finished / "last.pt", tmp_path / "run/last.pt")
    main.main(build(TrainConfig, settings_for(data, tmp_path / "other", resume=str(finished / "last.pt"))))
    write_format_2(tmp_path / "run/best.pt", last, {**old, **resolved})
    assert infer(tmp_path / "run", data, tmp_path / "again.json") == found != []
    with pytest.raises(InputError, match=r"best.pt: holds weights alone.* resume from .*last.pt"):
        train(data, tmp_path / "run", resume=str(finished / "best.pt"))


def test_the_best_checkpoint_holds_what_prediction_needs(finished: Path, data: Path, tmp_path: Path) -> None:
    best, last = (read_checkpoint(finished / name) for name in ("best.pt", "last.pt"))
    assert best.snapshot is None and best.config == last.config and best.classes == last.classes
    events = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert best.scores in [event["scores"] for event in events if event["event"] == "val"]
    assert (finished / "best.pt").stat().st_size < 0.45 * (finished / "last.pt").stat().st_size
    train(data, tmp_path / "run", weights=str(finished / "best.pt"), max_steps=1, val_every=0)
    assert snapshot_of(tmp_path / "run/last.pt").progress.step == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_a_resumed_run_strays_no_further_than_a_repeated_one(data: Path, tmp_path: Path) -> None:
    """RoIAlign's backward adds in no fixed order there: equality is not to be had, of two whole runs neither."""
    whole, repeated = (train(data, tmp_path / name, device="cuda") for name in ("whole", "repeated"))
    train(data, tmp_path / "resumed", device="cuda", max_steps=2)
    resumed = train(data, tmp_path / "resumed", device="cuda", resume="auto")
    losses = np.array([[e["loss"] for e in events if e["event"] == "step"] for events in (whole, repeated, resumed)])
    of_repeated, of_resumed = np.abs(losses[1:] - losses[0]).max(axis=1) / losses[0].max()
    print(f"largest difference in loss: {of_repeated:.2e} repeated, {of_resumed:.2e} resumed")
    assert of_resumed <= 2 * of_repeated + 1e-3


def test_a_resumed_run_is_the_one_that_began(finished: Path, data: Path, tmp_path: Path) -> None:
    resume = str(finished / "last.pt")
    with pytest.raises(InputError, match=r"--lr was 0.005 and is 0.1; --on-change continue"):
        train(data, tmp_path / "run", resume=resume, lr=0.1)
    other = write_dataset(tmp_path / "train", "abcd")
    write_image(other / "a/image.tif", np.full((96, 80, 3), 200, np.uint8))
    with pytest.raises(InputError, match=r"1 images are changed \(a\)"):
        train(data, tmp_path / "run", resume=resume, data_path=str(other))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "c"], "val": ["b", "d"]}))
    with pytest.raises(InputError, match=r"2 images are in another part of the split \(b, c\)"):
        train(data, tmp_path / "run", resume=resume, split=str(tmp_path / "split.json"))
    train(data, tmp_path / "run", max_steps=1, val_every=0)
    events = train(data, tmp_path / "run", resume=resume, lr=0.1, max_steps=6, on_change="continue")
    assert (tmp_path / "run.1/last.pt").is_file()  # the other run that lay there
    assert [event["step"] for event in events if event["event"] == "step"] == [6]


def test_the_batch_size_is_chosen_and_kept(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", batch_size=0, max_steps=1, val_every=0)
    assert "batch_size = 1" in (tmp_path / "run/config.toml").read_text()  # of 8 tiles, which leaves eight steps
    train(data, tmp_path / "run", batch_size=0, max_steps=2, val_every=0, resume="auto")
    assert read_checkpoint(tmp_path / "run/last.pt").config.run.batch_size == 1


@pytest.mark.slow
def test_a_compiled_backbone_trains_to_the_same_losses(finished: Path, data: Path, tmp_path: Path) -> None:
    plain = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    compiled = train(data, tmp_path / "run", compile=True)
    losses = [[event["loss"] for event in events if event["event"] == "step"] for events in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    compiled_weights, weights = (snapshot_of(folder / "last.pt").model for folder in (tmp_path / "run", finished))
    assert compiled_weights.keys() == weights.keys()


def test_a_validation_that_fails_loses_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is saved before it validates, and goes on with the validation."""
    with monkeypatch.context() as broken:
        broken.setattr(main, "predict_val", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(data, tmp_path / "run", max_steps=3)
    progress = snapshot_of(tmp_path / "run/last.pt").progress
    assert progress.step == 3 and progress.validating and not (tmp_path / "run/best.pt").exists()
    events = train(data, tmp_path / "run", max_steps=3, resume="auto")
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3]
    assert [event["step"] for event in events if event["event"] == "val"] == [3]
    assert (tmp_path / "run/best.pt").is_file()


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_a_validation_without_cells_keeps_the_latest_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "train"
    for name in "abcd":
        shutil.copytree(data / name, empty / name)
    for name in "cd":
        for mask in (empty / name).glob("class*.tif"):
            mask.unlink()
    train(empty, tmp_path / "run", split=str(data.parent / "split.json"), patience=1, max_steps=8, epochs=4)
    assert "best AP50" not in last_line(capsys)
    last, best = (read_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "best.pt"))
    assert snapshot_of(tmp_path / "run/last.pt").progress.step == 8  # patience did not count
    assert all(torch.equal(tensor, best.weights[name]) for name, tensor in last.weights.items())


def test_a_validation_without_a_right_detection_keeps_the_latest_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(data, tmp_path / "run", patience=1, score_thresh=1.0)
    assert "0.000" not in last_line(capsys)
    last, best = (read_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "best.pt"))
    assert snapshot_of(tmp_path / "run/last.pt").progress.step == 5
    assert all(torch.equal(tensor, best.weights[name]) for name, tensor in last.weights.items())


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"warmup_steps": 2, "max_steps": 5}, "--warmup-steps 2 is more than a third of the run's 5 steps"),
        ({"warmup_steps": 500, "epochs": 2, "max_steps": None}, "--warmup-steps 500"),
        ({"batch_size": 100, "warmup_steps": 0}, "tiles, fewer than the 100 of a step"),
        ({"detections_per_tile": 1, "score_thresh": 0.0}, r"predicted tiles reach --detections-per-tile"),
        ({"proposals": 10}, r"predicted tiles reach --proposals"),
        ({"warmup_steps": 0, "proposals": 5000}, None),
    ],
)
def test_settings_that_are_hardly_meant_are_said_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], warning: str | None
) -> None:
    train(data, tmp_path / "run", **{"max_steps": 3, "score_thresh": 0.9, **changes})
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    if warning is None:
        assert not said
    else:
        assert sum(warning in line for line in said) == 1


def test_tiles_that_a_limit_cuts_off_are_counted_in_prediction(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infer(finished, data, tmp_path / "out.json", detections_per_tile=1)
    assert re.search(r"warning: \d+ of \d+ predicted tiles reach --detections-per-tile", capsys.readouterr().out)


def test_batch_norm_of_a_single_value_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--norm batch: .*--tile-size or --batch-size, or --norm group"):
        train(data, tmp_path / "run", tile_size=32, overlap=0, predict_overlap=0, batch_size=1)


def test_a_new_run_moves_an_earlier_one_aside(data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        train(data, tmp_path / "run", max_steps=1, val_every=0)
    assert (tmp_path / "run.1/last.pt").is_file() and (tmp_path / "run/last.pt").is_file()


def test_a_damaged_last_checkpoint_falls_back_to_the_previous(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "previous.pt").write_bytes((finished / "previous.pt").read_bytes())
    (tmp_path / "last.pt").write_bytes((finished / "last.pt").read_bytes()[:5000])
    found, previous = checkpoint_to_resume("auto", tmp_path), snapshot_of(finished / "previous.pt")
    assert found and found.snapshot
    assert found.snapshot.progress == previous.progress != snapshot_of(finished / "last.pt").progress
    assert checkpoint_to_resume("auto", tmp_path / "nothing") is None and checkpoint_to_resume(None, tmp_path) is None
    with pytest.raises(InputError, match=r"last.pt: is damaged"):
        read_checkpoint(tmp_path / "last.pt")
    (tmp_path / "previous.pt").unlink()
    with pytest.raises(InputError, match=r"--resume auto: no checkpoint can be used; .*last.pt: is damaged"):
        checkpoint_to_resume("auto", tmp_path)


def infer(finished: Path, data: Path, output: Path, **changes: object) -> list[dict[str, object]]:
    given = {"ckpt": [str(finished / "best.pt")], "test_dir": str(data), "output": str(output), **changes}
    inference.main(build(InferenceConfig, {**given, "device": "cpu"}))
    return json.loads(output.read_text())


def test_exported_weights_predict_and_train_as_they_are(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    inference.main(build(InferenceConfig, {"ckpt": [str(finished / "best.pt")], "export": str(path)}))
    from_checkpoint, from_export = (
        infer(finished, data, tmp_path / "r.json", ckpt=[str(ckpt)]) for ckpt in (finished / "best.pt", path)
    )
    assert from_checkpoint == from_export and from_export
    assert len(train(data, tmp_path / "run", weights=str(path), max_steps=2, val_every=0)) and path.is_file()
    said = capsys.readouterr().out
    assert "tensors" in said and "left random" not in said and "not used" not in said
    path.rename(tmp_path / "elsewhere.safetensors")  # a run that goes on needs it no more
    steps = train(data, tmp_path / "run", weights=str(path), max_steps=3, val_every=0, resume="auto")
    assert [event["step"] for event in steps if event["event"] == "step"] == [1, 2, 3]
    (tmp_path / "elsewhere.safetensors").rename(path)
    whole = path.read_bytes()
    for place in (9, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"weights.safetensors: is "):
            read_checkpoint(path)


def test_exported_weights_tell_no_places_and_take_half_the_space(finished: Path, data: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    ckpt = [str(finished / "best.pt")]
    inference.main(build(InferenceConfig, {"ckpt": ckpt, "export": str(whole)}))
    inference.main(build(InferenceConfig, {"ckpt": ckpt, "export": str(half), "half": True, "min_score": 0.35}))
    kept = [read_checkpoint(path).config.predict for path in (whole, half)]
    assert (kept[0].min_score, kept[1]) == (0.5, replace(kept[0], min_score=0.35))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    (tmp_path / "other").touch()
    assert whole.stat().st_mode == (tmp_path / "other").stat().st_mode  # so that others may read it
    assert str(data.parent).encode() not in whole.read_bytes() + half.read_bytes()
    exact, rounded = (infer(finished, data, tmp_path / "r.json", ckpt=[str(path)]) for path in (whole, half))
    assert abs(len(exact) - len(rounded)) <= 0.05 * len(exact)
    scores = [sorted((float(str(entry["score"])) for entry in found), reverse=True)[:20] for found in (exact, rounded)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    with pytest.raises(InputError, match="--half"):
        check_prediction(build(InferenceConfig, {"half": True}))


def test_damaged_weights_do_not_start_a_run(finished: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    inference.main(build(InferenceConfig, {"ckpt": [str(finished / "best.pt")], "export": str(path)}))
    for source, name in ((finished / "best.pt", "flipped.pt"), (path, "flipped.safetensors")):
        whole = source.read_bytes()
        middle = len(whole) // 2
        (tmp_path / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
        with pytest.raises(InputError, match=rf"{name}: is damaged"):
            train(data, tmp_path / "run", weights=str(tmp_path / name))


def test_an_interrupted_prediction_goes_on(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = infer(finished, data, tmp_path / "whole.json")
    real, seen = inference.result_entries, []

    def count(image_id: int, *rest: object) -> object:
        seen.append(image_id)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(image_id, *rest)

    monkeypatch.setattr(inference, "result_entries", count)
    with pytest.raises(KeyboardInterrupt):
        infer(finished, data, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists() and len(seen) == 4
    assert infer(finished, data, tmp_path / "r.json", resume=True) == whole
    assert (tmp_path / "r.counts.csv").read_text() == (tmp_path / "whole.counts.csv").read_text()
    assert len(seen) <= 4 + 2  # of four images the last was lost, and at most the one that waited behind it
    assert not list(tmp_path.glob(".*"))


def test_inference_repeats_the_validation_of_the_best_checkpoint(finished: Path, data: Path, tmp_path: Path) -> None:
    split = {"split": str(data.parent / "split.json"), "part": "val"}
    found = infer(
        finished, data, tmp_path / "r.json", zip=str(tmp_path / "s.zip"), overlay=str(tmp_path / "o"), **split
    )
    kept = json.loads((finished / "val-results.json").read_text())
    order = ("image_id", "score", "category_id", "bbox")
    assert sorted([e[key] for key in order] for e in found) == sorted([e[key] for key in order] for e in kept)
    id_map = json.loads((tmp_path / "r.id-map.json").read_text())
    assert [(entry["file_name"], entry["id"]) for entry in id_map] == [("c.tif", 1), ("d.tif", 2)]
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"c.png", "d.png"} and (tmp_path / "s.zip").is_file()


def test_pictures_in_nested_folders_are_trained_on_scored_and_reported(tmp_path: Path) -> None:
    for slide in ("s", "t"):
        (folder,) = write_dataset(tmp_path / "data" / slide, "1").iterdir()
        Image.fromarray(read_image(folder / "image.tif")).save(folder / "image.png")
        (folder / "image.tif").unlink()
    (tmp_path / "split.json").write_text(json.dumps({"train": ["s_1"], "val": ["t_1"]}))
    run = tmp_path / "run"
    train(tmp_path / "data", run, max_steps=2)
    infer(run, tmp_path / "data", tmp_path / "r.json", split=str(tmp_path / "split.json"), part="val")
    for id_map in (run / "val-results.id-map.json", tmp_path / "r.id-map.json"):
        assert [entry.file_name for entry in read_id_map(id_map)] == ["t_1.tif"]
    report.main(["--run", str(run)])
    assert (run / "report.html").read_text().count('class="viewer"') == 1


def test_a_table_counts_the_cells_above_the_least_score(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    totals, results = [], []
    best = max(float(str(entry["score"])) for entry in infer(finished, data, tmp_path / "r.json"))
    for min_score in (0.0, best, 1.0):
        results.append(infer(finished, data, tmp_path / "r.json", min_score=min_score))
        rows = (tmp_path / "r.counts.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["image", "a.tif", "b.tif", "c.tif", "d.tif"]
        totals.append(sum(int(row.split(",")[-1]) for row in rows[1:]))
        assert read_min_score(tmp_path / "r.json")[0] == min_score
        assert f"{totals[-1]} cells" in capsys.readouterr().out.splitlines()[-1]
    assert len(results[0]) >= totals[0] > totals[1] >= totals[2] == 0 and results[0] == results[1] == results[2]


def test_probabilities_lie_beside_the_results_or_in_them(finished: Path, data: Path, tmp_path: Path) -> None:
    plain = infer(finished, data, tmp_path / "r.json", tta="flips")
    beside = json.loads((tmp_path / "r.probabilities.json").read_text())["probabilities"]
    within = infer(finished, data, tmp_path / "s.json", tta="flips", probabilities=True)
    assert "probabilities" not in plain[0] and [entry["probabilities"] for entry in within] == beside
    assert all(len(row) == 2 and abs(sum(row) - 1) < 0.001 for row in beside) and len(beside) == len(plain)


def test_the_resolution_of_the_files_says_how_much_they_are_resized(tmp_path: Path) -> None:
    trained = replace(TrainConfig(), image=ImageSettings(scale=0.5, mpp=0.25))
    checkpoint = Checkpoint(trained, HOMEWORK_CLASSES, {}, source="w.pt")
    for given, scale in (({}, 0.5), ({"mpp": 0.25}, 0.5), ({"mpp": 0.5}, 1.0), ({"scale": 2.0}, 2.0)):
        assert inference.scale_of(build(InferenceConfig, given), checkpoint) == scale
    with pytest.raises(InputError, match=r"--mpp 10.*20"):
        inference.scale_of(build(InferenceConfig, {"mpp": 10}), checkpoint)
    unknown = replace(checkpoint, config=TrainConfig())
    with pytest.raises(InputError, match=r"--mpp: w.pt.*--scale"):
        inference.scale_of(build(InferenceConfig, {"mpp": 0.5}), unknown)
    with pytest.raises(InputError, match=r"--mpp.*--scale"):
        check_prediction(build(InferenceConfig, {"mpp": 0.5, "scale": 2.0}))


@pytest.mark.parametrize("changes", [{"tta": "full"}, {"whole_image": True}, {"predict_overlap": 40}])
def test_other_ways_to_predict(finished: Path, data: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    entries = infer(finished, data, tmp_path / "r.json", **changes)
    assert {entry["image_id"] for entry in entries} <= {1, 2, 3, 4} and entries


def test_results_carry_their_id_map_and_spare_one_that_lies_there(finished: Path, data: Path, tmp_path: Path) -> None:
    id_map = [{"file_name": f"{name}.tif", "id": 7 + i, "height": 96, "width": 80} for i, name in enumerate("abcd")]
    for name in ("given.json", "s.id-map.json"):
        (tmp_path / name).write_text(json.dumps(id_map))
    val = {"split": str(data.parent / "split.json"), "part": "val"}
    infer(finished, data, tmp_path / "r.json", id_map=str(tmp_path / "given.json"), **val)
    assert json.loads((tmp_path / "r.id-map.json").read_text()) == id_map[2:]
    infer(finished, data, tmp_path / "s.json", id_map=str(tmp_path / "s.id-map.json"), **val)
    assert json.loads((tmp_path / "s.id-map.json").read_text()) == id_map


@pytest.mark.parametrize(
    "changes",
    [
        {"score_thresh": 0.5},
        {"predict_overlap": 8},
        {"tta": "full"},
        {"whole_image": True},
        {"detections_per_tile": 7},
        {"channel_order": "bgr"},
        {"intensity": "percentile"},
        {"one_class_per_cell": True},
        {"scale": 0.5},
        {"mpp": 0.5},
    ],
)
def test_what_changes_results_makes_another_job(tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "best.pt").write_bytes(b"weights")
    config = InferenceConfig(ckpt=(str(tmp_path / "best.pt"),))
    job = inference.job(config, None)
    without_effect = {"output": "elsewhere.json", "predict_batch_size": 9}
    assert job == inference.job(build(InferenceConfig, {"ckpt": config.ckpt, **without_effect}), None)
    assert job != inference.job(build(InferenceConfig, {"ckpt": config.ckpt, **changes}), None)
    assert job != inference.job(config, torch.bfloat16)


def test_two_processes_find_what_one_finds(finished: Path, data: Path, tmp_path: Path) -> None:
    alone = infer(finished, data, tmp_path / "one.json")
    launch(
        "inference.py",
        "--ckpt",
        str(finished / "best.pt"),
        "--test-dir",
        str(data),
        "--output",
        str(tmp_path / "two.json"),
    )
    together = json.loads((tmp_path / "two.json").read_text())
    assert [(e["image_id"], e["category_id"]) for e in together] == [(e["image_id"], e["category_id"]) for e in alone]
    assert [e["score"] for e in together] == pytest.approx([e["score"] for e in alone], abs=1e-4)


def test_two_processes_train_and_count_each_image_once(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    values = settings_for(data, tmp_path / "run", batch_size=1)
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    launch("main.py", "--recipe", str(recipe))
    events = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    validations = [event for event in events if event["event"] == "val"]
    assert validations and validations[-1]["scores"]["images"] == 2
    assert snapshot_of(tmp_path / "run/last.pt").progress.step == 5


def test_two_processes_log_the_scores_that_inference_repeats(data: Path, tmp_path: Path) -> None:
    """Statistics of batch norm and averaged weights are the same on both when they validate."""
    recipe = tmp_path / "recipe.toml"
    values = settings_for(data, tmp_path / "run", batch_size=1, norm="batch", lr=0.02, max_steps=8, epochs=3)
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    launch("main.py", "--recipe", str(recipe))
    split = {"split": str(data.parent / "split.json"), "part": "val"}
    repeated = infer(tmp_path / "run", data, tmp_path / "r.json", **split)
    logged = json.loads((tmp_path / "run/val-results.json").read_text())
    assert {entry["image_id"] for entry in logged} == {1, 2}  # each predicted by one of the two processes

    def by_place(entries: list[dict[str, object]]) -> list[dict[str, object]]:
        return sorted(entries, key=lambda entry: [entry[key] for key in ("image_id", "category_id", "bbox")])

    for key in ("image_id", "category_id", "bbox", "segmentation"):
        assert [entry[key] for entry in by_place(repeated)] == [entry[key] for entry in by_place(logged)]
    scores = [[entry["score"] for entry in by_place(entries)] for entries in (repeated, logged)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)  # sums of other numbers of threads


def launch(script: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_loss_that_is_no_number_stops_the_run_naming_tiles(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"step \d+: the loss is not finite \(loss (nan|inf).*tiles: .* at row \d+, column"
    ):
        train(data, tmp_path / "run", lr=1e30, clip_norm=0.0, max_steps=20, epochs=20, val_every=0, ema=0.0)


def test_budgets_and_patience(data: Path, tmp_path: Path) -> None:
    minutes = train(data, tmp_path / "a", max_steps=None, epochs=1000, max_minutes=0.03, val_every=0)
    assert 1 <= minutes[-1]["step"] < 1000 and minutes[-1]["time_s"] >= 1.8
    patient = train(data, tmp_path / "b", lr=0.0, max_steps=None, epochs=50, patience=2)
    assert sum(event["event"] == "val" for event in patient) == 3


def test_learning_rate_warms_up_and_falls(data: Path, tmp_path: Path) -> None:
    events = train(data, tmp_path / "run", warmup_steps=2, schedule="cosine", max_steps=4, lr=0.03, val_every=0)
    rates = [event["lr"] for event in events if event["event"] == "step"]
    assert rates[:2] == pytest.approx([0.01, 0.02 * 0.5 * (1 + math.cos(math.pi / 4))])
    assert rates[3] == pytest.approx(0.03 * 0.5 * (1 + math.cos(math.pi * 3 / 4)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_path": "missing"}, "missing: no such folder; the homework's data belong at"),
        ({"num_classes": 2}, r"class2.tif: there is no class 2"),
        ({"class_weights": "1,2"}, "--class-weights: expected 3 numbers"),
        ({"loss_weights": "boxes=2"}, "--loss-weights: 'boxes' is not one of"),
        ({"anchors": "8,16"}, "--anchors: expected five"),
        ({"overlap": 64}, "--overlap must be at least 0 and below --tile-size 64"),
        ({"weights": "coco"}, "--weights coco exists for"),
        ({"device": "cuda"}, "--device cuda: there is none"),
        ({"resume": "missing.pt"}, "missing.pt: no such checkpoint"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    data: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=words):
        train(data, tmp_path / "run", **changes)


def test_a_wrong_command_line_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for command, words in (
        (["main.py", "--epoch", "3"], "error: unknown flag --epoch; did you mean --epochs?\n"),
        (["main.py", "--data-path", str(tmp_path / "no"), "--cache-dir", str(tmp_path)], "homework's data belong at"),
        (["inference.py", "--ckpt", str(tmp_path / "no.pt"), "--test-dir", str(tmp_path)], "no"),
    ):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert words in done.stderr


def test_gradients_add_up_over_batches(data: Path, tmp_path: Path) -> None:
    events = train(data, tmp_path / "run", accumulate=2, batch_size=1, max_steps=2, val_every=0)
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2]


def test_averaged_weights_follow_the_model() -> None:
    from src.engine.optimization import AveragedWeights

    model = torch.nn.BatchNorm1d(2)
    averaged = AveragedWeights(model, decay=0.9)
    with torch.no_grad():
        model.weight += 1
        model.num_batches_tracked += 5
    averaged.update(model, step=1000)
    assert averaged.model.weight.tolist() == pytest.approx([1.1, 1.1])
    assert averaged.model.num_batches_tracked.item() == 5


def test_class_weights_by_frequency() -> None:
    from src.engine.optimization import class_weights

    weights = class_weights("auto", [100, 25])
    assert weights is not None and weights[0] == 1 and (weights[2] / weights[1]).item() == pytest.approx(2.0)
    assert (weights[1:] * torch.tensor([100.0, 25.0])).sum().item() == pytest.approx(125.0)
    assert class_weights("none", [1]) is None


def test_settings_survive_the_checkpoint(finished: Path) -> None:
    checkpoint = read_checkpoint(finished / "last.pt")
    assert checkpoint.config.predict.score_thresh == 0.0 and checkpoint.config.optimizer.ema == 0.5
    assert [cell_class.name for cell_class in checkpoint.classes] == ["epithelial", "lymphocyte"]


@pytest.mark.parametrize("name", ["train", "inference"])
def test_the_scripts_pass_their_flags_on(name: str, tmp_path: Path) -> None:
    """Also on a machine without nvidia-smi, from any folder."""
    script = Path(__file__).resolve().parents[1] / "script" / f"{name}.sh"
    if not (script.parents[1] / ".venv/installed-requirements").is_file():
        pytest.skip("the scripts would install the project first")
    answer = subprocess.run(
        ["bash", str(script), "--nonsense", "1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2 and answer.stderr.startswith("error: unknown flag --nonsense"), answer.stderr
