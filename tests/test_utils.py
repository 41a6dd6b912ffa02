import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.state import Progress
from src.errors import InputError
from utils import RunLog, choose_amp, choose_device

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def test_devices_and_precision_that_are_not_there_are_refused() -> None:
    assert choose_device("cpu") == CPU
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match="--device mps"):
            choose_device("mps")
    assert choose_amp("auto", CPU) is None and choose_amp("off", CPU) is None
    assert choose_amp("bf16", CPU) is torch.bfloat16
    with pytest.raises(InputError, match="--amp fp16 needs a GPU"):
        choose_amp("fp16", CPU)


def test_log_is_cut_back_to_where_a_run_resumes(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write("step", step, 0, 0.5 * step, loss=1.0 / step, lr=0.1)
    log.close()
    with log.path.open("a") as file:
        file.write('{"event": "st')  # a run that was killed while writing
    again = RunLog(tmp_path, keep_steps=2)
    again.write("val", 2, 1, 1.0, AP50=0.25, scores={"images": 1})
    again.close()
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [("step", 1), ("step", 2), ("val", 2)]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [(row["event"], row["loss"], row["AP50"]) for row in rows] == [
        ("step", "1.0", ""),
        ("step", "0.5", ""),
        ("val", "", "0.25"),
    ]
    fresh = RunLog(tmp_path)
    fresh.close()
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path)
    log.write("step", 1, 0, 0.5, loss=0.25)
    log.write("val", 1, 0, 0.5, scores={"pq": {"per_class": {"2": {"PQ": 0.5, "SQ": None}}}})
    log.picture("val/a", np.full((4, 6, 3), 200, np.uint8), 1)
    log.close()
    board = accumulator.EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.value for event in board.Scalars("step/loss")] == [0.25]
    assert [event.value for event in board.Scalars("val/scores/pq/per_class/2/PQ")] == [0.5]
    assert [(image.height, image.width) for image in board.Images("val/a")] == [(4, 6)]


def test_a_run_says_how_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/some/where/main.py", "--data-path", "a b"])
    log = RunLog(tmp_path)
    log.start(Progress())
    log.close()
    event = json.loads((tmp_path / "log.jsonl").read_text())
    assert event["command"] == "python main.py --data-path 'a b'" and event["versions"]["torch"] == torch.__version__
