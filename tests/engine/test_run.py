"""A run that goes on is the run that began: what differs is said."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from src.common.errors import InputError
from src.config.flags import build
from src.config.settings import TrainConfig
from src.data.classes import HOMEWORK_CLASSES
from src.engine.checkpoint import Checkpoint, Progress, Snapshot
from src.engine.distributed import World
from src.engine.run import (
    changed_images,
    changed_settings,
    compare,
    moved_images,
    require_one_checkpoint,
    run_precision,
)

pytestmark = pytest.mark.torch

CHECKSUMS = {"a": "1", "b": "2", "c": "3"}
DIFFERS = ("learning", "prediction")


def config_of(**changes: object) -> TrainConfig:
    """A configuration as checkpoints hold it."""
    resolved = {"norm": "batch", "head_norm": "on", "anchors": "8,16,32,64,128"}
    return build(TrainConfig, {**resolved, "lr": 0.1, "max_steps": 10, **changes})


def checkpoint_of(**changes: object) -> Checkpoint:
    """A checkpoint of a run that stopped at step 2."""
    snapshot = Snapshot({}, {}, {}, Progress(step=2), {"train": ["a", "b"], "val": ["c"]}, CHECKSUMS, 2)
    return Checkpoint(config_of(**changes), HOMEWORK_CLASSES, {}, snapshot=snapshot, source="last.pt")


@dataclass(frozen=True)
class Data:
    """What is compared of the data."""

    checksums: dict[str, str]
    split: dict[str, list[str]]


def test_where_how_fast_and_how_long_a_run_goes_on_may_change() -> None:
    before, after = config_of(), config_of(workers=0, device="cpu", output_dir="elsewhere", max_steps=20)
    assert changed_settings(before, after, DIFFERS) == []
    assert changed_settings(before, after, ["budget"]) == ["--max-steps was 10 and is 20"]


def test_what_acts_on_the_weights_or_their_scores_is_refused() -> None:
    checkpoint = checkpoint_of()
    data: Any = Data(CHECKSUMS, {"train": ["a", "b"], "val": ["c"]})
    other: Any = Data({"a": "1", "b": "x", "d": "4"}, {"train": ["a"], "val": ["b", "d"]})
    assert compare(checkpoint, config_of(max_steps=20), data, 2) == [
        "not as in the checkpoint: --max-steps was 10 and is 20"
    ]
    changed = [
        "--lr was 0.1 and is 0.2",
        "--tta was none and is full",
        "1 images are added (d)",
        "1 images are gone (c)",
        "1 images are changed (b)",
        "1 images are in another part of the split (b)",
        "the run had 2 processes and has 1",
    ]
    with pytest.raises(InputError, match=re.escape("; ".join(changed))):
        compare(checkpoint, config_of(lr=0.2, tta="full"), other, 1)
    notes = compare(checkpoint, config_of(lr=0.2, tta="full", on_change="continue"), other, 1)
    assert notes == [f"not as in the checkpoint: {change}" for change in changed]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [("bf16", "off", ["--amp was bf16 and is off"]), ("bf16", "bf16", []), ("auto", "bf16", [])],
)
def test_the_precision_is_compared_where_it_is_known(before: str, after: str, found: list[str]) -> None:
    assert changed_settings(config_of(amp=before), config_of(amp=after), DIFFERS) == found


def test_images_that_change_sides_are_found() -> None:
    before = {"train": ["a", "b"], "val": ["c"]}
    assert moved_images(before, before) == [] and moved_images(before, {"train": ["a", "new"], "val": ["c"]}) == []
    found = moved_images(before, {"train": ["c", "b"], "val": ["a"]})
    assert found == ["2 images are in another part of the split (a, c)"]


def test_many_names_are_cut_short() -> None:
    assert changed_images({}, dict.fromkeys("vwxyz", "0")) == ["5 images are added (v, w, x, …)"]


@pytest.mark.parametrize(
    ("began", "asked", "precision"),
    [("off", "auto", "off"), ("bf16", "auto", "bf16"), ("auto", "auto", "off"), ("auto", "bf16", "bf16")],
)
def test_a_resumed_run_keeps_its_precision(began: str, asked: str, precision: str) -> None:
    """Runs of before hold auto, which was float32 on every CPU, also on one with bf16."""
    assert run_precision(config_of(amp=asked), checkpoint_of(amp=began), torch.device("cpu")) == precision


def test_a_run_in_fp16_does_not_go_on_without_a_gpu() -> None:
    with pytest.raises(InputError, match=r"fp16.*--amp.*--on-change continue"):
        run_precision(TrainConfig(), checkpoint_of(amp="fp16"), torch.device("cpu"))


def test_processes_that_find_different_checkpoints_are_refused() -> None:
    class TwoMachines(World):
        def gather(self, value: object) -> list[object]:
            return [value, None]

    require_one_checkpoint(World(), checkpoint_of())
    with pytest.raises(InputError, match="--output-dir"):
        require_one_checkpoint(TwoMachines(), checkpoint_of())
