"""As many processes as torch sees GPUs, where the flags or the recipe do not name a device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.engine.launch import count_processes, main, wanted_device
from tests.sources import ROOT

pytestmark = pytest.mark.torch


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


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
        (["--export=w.safetensors"], 1),
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


def test_gpus_whose_driver_does_not_work_are_none(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert count_processes([]) == 1


def test_the_process_becomes_the_script(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["launch", "main.py", "--device", "cuda:2", "--epochs", "3"])
    main()
    assert started == [[sys.executable, "main.py", "--device", "cuda:2", "--epochs", "3"]]


TWO_GPUS = """
import sys, torch
torch.cuda.device_count, torch.cuda.is_available = lambda: 2, lambda: True  # in this process, not in those it starts
from src.engine.launch import main
main()
"""


@pytest.mark.parametrize(
    ("code", "expected"), [("import os; assert os.environ['WORLD_SIZE'] == '2'", 0), ("exit(2)", 2)]
)
def test_several_processes_end_with_the_code_of_the_first_that_failed(tmp_path: Path, code: str, expected: int) -> None:
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, "-c", TWO_GPUS, str(tmp_path / "script.py")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == expected
