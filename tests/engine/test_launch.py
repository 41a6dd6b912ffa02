"""As many processes as torch sees GPUs, where the flags or the recipe do not name a device."""

import os
import sys
from pathlib import Path

import pytest
import torch

from src.engine.launch import count_processes, main, wanted_device

pytestmark = pytest.mark.torch


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize(
    ("flags", "processes"),
    [
        ([], 3),
        (["--device", "cuda", "--epochs", "3"], 3),
        (["--device=auto"], 3),
        (["--device", "cpu"], 1),
        (["--epochs", "3", "--device=cuda:1"], 1),
        (["--device", "mps"], 1),
        (["--help"], 1),
        (["--device"], 1),  # for the script to complain about
    ],
)
def test_one_process_per_gpu_unless_a_device_is_named(three_gpus: None, flags: list[str], processes: int) -> None:
    assert count_processes(flags) == processes


def test_a_recipe_may_name_the_device_and_a_flag_wins(three_gpus: None, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('device = "cpu"\n')
    assert count_processes(["--recipe", str(recipe)]) == 1
    assert count_processes(["--recipe", str(recipe), "--device", "cuda"]) == 3
    recipe.write_text("epochs = 3\n")
    assert count_processes(["--recipe", str(recipe)]) == 3
    assert count_processes(["--recipe", str(tmp_path / "missing.toml")]) == 1


def test_without_a_gpu_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_processes([]) == 1 and wanted_device([]) == "auto"


@pytest.mark.parametrize("device", ["auto", "cuda:2"])
def test_the_process_becomes_the_script_or_torchrun(
    three_gpus: None, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["launch", "main.py", "--device", device, "--epochs", "3"])
    main()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"] if device == "auto" else []
    assert started == [[sys.executable, *torchrun, "main.py", "--device", device, "--epochs", "3"]]
