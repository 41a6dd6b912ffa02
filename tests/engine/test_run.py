"""A run that goes on is the run that began: what differs is said."""

import pytest
import torch

from src.common.errors import InputError
from src.config.flags import build, flatten
from src.config.settings import TrainConfig
from src.engine.distributed import World
from src.engine.run import budget_changes, changes, moved_images, refuse_changes, require_one_checkpoint, run_precision

pytestmark = pytest.mark.torch

CHECKPOINT = {
    "settings": {"lr": 0.1, "workers": 2, "max_steps": 10, "epochs": 3, "max_minutes": None},
    "checksums": {"a": "1", "b": "2", "c": "3"},
}
SAME = dict(CHECKPOINT["settings"])


def test_where_and_how_fast_may_change() -> None:
    assert changes(CHECKPOINT, {**SAME, "workers": 0, "max_steps": 20}, CHECKPOINT["checksums"]) == []
    assert budget_changes(CHECKPOINT, {**SAME, "max_steps": 20}) == ["--max-steps was 10 and is 20"]
    refuse_changes([])


def test_a_flag_and_images() -> None:
    found = changes(CHECKPOINT, {**SAME, "lr": 0.2, "new_flag": 1}, {"a": "1", "b": "x", "d": "4"})
    assert found == [
        "--lr was 0.1 and is 0.2",
        "--new-flag was None and is 1",
        "1 images are added (d)",
        "1 images are gone (c)",
        "1 images are changed (b)",
    ]
    with pytest.raises(InputError, match=r"--lr was 0.1 and is 0.2; .*--on-change continue"):
        refuse_changes(found)


def test_the_precision_is_compared_where_it_is_known() -> None:
    for before, after, found in (
        ("bf16", "off", ["--amp was bf16 and is off"]),
        ("bf16", "bf16", []),
        ("auto", "bf16", []),
    ):
        checkpoint = {**CHECKPOINT, "settings": {**SAME, "amp": before}}
        assert changes(checkpoint, {**SAME, "amp": after}, CHECKPOINT["checksums"]) == found


def test_images_that_change_sides_are_found() -> None:
    before = {"train": ["a", "b"], "val": ["c"]}
    assert moved_images(before, before) == [] and moved_images(before, {"train": ["a", "new"], "val": ["c"]}) == []
    found = moved_images(before, {"train": ["c", "b"], "val": ["a"]})
    assert found == ["2 images are in another part of the split (a, c)"]


def test_many_names_are_cut_short() -> None:
    assert changes(CHECKPOINT, SAME, {**CHECKPOINT["checksums"], **dict.fromkeys("vwxyz", "0")}) == [
        "5 images are added (v, w, x, …)"
    ]


@pytest.mark.parametrize(
    ("began", "asked", "precision"),
    [("off", "auto", "off"), ("bf16", "auto", "bf16"), ("auto", "auto", "off"), ("auto", "bf16", "bf16")],
)
def test_a_resumed_run_keeps_its_precision(began: str, asked: str, precision: str) -> None:
    """Runs of before hold auto, which was float32 on every CPU, also on one with bf16."""
    settings = {**flatten(resolved_settings()), "amp": began}
    config = build(TrainConfig, {"amp": asked})
    assert run_precision(config, {"settings": settings, "source": "last.pt"}, torch.device("cpu")) == precision


def test_a_run_in_fp16_does_not_go_on_without_a_gpu() -> None:
    checkpoint = {"settings": {**flatten(resolved_settings()), "amp": "fp16"}, "source": "last.pt"}
    with pytest.raises(InputError, match=r"resumed is in fp16: .*--on-change continue"):
        run_precision(TrainConfig(), checkpoint, torch.device("cpu"))


def test_processes_that_find_different_checkpoints_are_refused() -> None:
    class TwoMachines(World):
        def gather(self, value: object) -> list[object]:
            return [value, None]

    require_one_checkpoint(World(), {"source": "last.pt", "progress": {"step": 2}})
    with pytest.raises(InputError, match="--output-dir"):
        require_one_checkpoint(TwoMachines(), {"source": "last.pt", "progress": {"step": 2}})


def resolved_settings() -> TrainConfig:
    """As a checkpoint holds them."""
    return build(TrainConfig, {"norm": "batch", "head_norm": "on", "anchors": "8,16,32,64,128"})
