import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.common.errors import InputError
from src.engine.checkpoint import Progress
from src.engine.devices import choose_device, prediction_amp, resolve_amp
from src.engine.run_log import RunLog

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def test_devices_and_precision_that_are_not_there_are_refused() -> None:
    assert choose_device("cpu") == CPU
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match="--device mps"):
            choose_device("mps")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda:1"):
            choose_device("cuda:1")
    assert resolve_amp("off", CPU) == "off" and resolve_amp("bf16", CPU) == "bf16"
    with pytest.raises(InputError, match="--amp fp16 needs"):
        resolve_amp("fp16", CPU)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "off"), ({"avx512_f": True}, "off"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_auto_precision_on_a_cpu_is_what_it_has_natively(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_amp("auto", CPU) == precision
    assert prediction_amp(None, "bf16", CPU) == precision  # as it was trained where that is native
    assert prediction_amp(None, "fp16", CPU) == prediction_amp(None, "auto", CPU) == "off"
    assert prediction_amp("auto", "off", CPU) == precision and prediction_amp("off", "bf16", CPU) == "off"


def test_an_old_torch_that_does_not_tell_its_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_amp("auto", CPU) == "off"


def test_log_is_cut_back_to_where_a_run_resumes(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write("step", Progress(step=step, seconds=0.5 * step), loss=1.0 / step, lr=0.1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "st')  # a run that was killed while writing
    with RunLog(tmp_path, keep_steps=2) as again:
        again.write("val", Progress(epoch=1, step=2, seconds=1.0), AP50=0.25, scores={"images": 1})
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [("step", 1), ("step", 2), ("val", 2)]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [(row["event"], row["loss"], row["AP50"]) for row in rows] == [
        ("step", "1.0", ""),
        ("step", "0.5", ""),
        ("val", "", "0.25"),
    ]
    with RunLog(tmp_path):
        assert (tmp_path / "log.jsonl").read_text() == ""


def test_the_log_of_a_process_that_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLog(None, keep_steps=2) as log:
        log.write_start(Progress())
        log.write("step", Progress(step=1), loss=0.5)
        log.picture("val/a", np.zeros((4, 6, 3), np.uint8), 1)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunLog(tmp_path) as log:
        log.write("step", Progress(step=1), loss=0.25)
        log.write("val", Progress(step=1), scores={"pq": {"per_class": {"2": {"PQ": 0.5, "SQ": None}}}})
        log.picture("val/a", np.full((4, 6, 3), 200, np.uint8), 1)
    board = accumulator.EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.value for event in board.Scalars("step/loss")] == [0.25]
    assert [event.value for event in board.Scalars("val/scores/pq/per_class/2/PQ")] == [0.5]
    assert [(image.height, image.width) for image in board.Images("val/a")] == [(4, 6)]


def test_a_run_says_how_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/some/where/main.py", "--data-path", "a b"])
    with RunLog(tmp_path) as log:
        log.write_start(Progress())
    event = json.loads((tmp_path / "log.jsonl").read_text())
    assert event["command"] == "python main.py --data-path 'a b'" and event["versions"]["torch"] == torch.__version__
