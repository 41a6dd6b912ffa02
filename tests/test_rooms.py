"""Imports run one way: src never needs torch, engine never a script, inference never main; help never waits."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import FOLDERS, ROOT, module_name, python_files

SCRIPTS = {"main", "inference", "dataset", "model"}
FORBIDDEN = {
    "src": {"torch", "torchvision", "albumentations", "engine", "utils", *SCRIPTS},
    "engine": SCRIPTS,
    "utils.py": {"engine", *SCRIPTS},
    "model.py": {"utils", *SCRIPTS},
    "dataset.py": {"utils", *SCRIPTS},
    "inference.py": {"main", "dataset"},
}
COMMANDS = [path for folder in (".", *FOLDERS) for path in python_files(folder)]
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None  # an import of it fails
name, sys.argv = sys.argv[1], ["command", "--help"]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def imported(source: str) -> set[str]:
    """The first parts of the names of all modules that some source imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {name.split(".")[0] for name in names}


def test_imports_are_found_wherever_they_stand() -> None:
    assert imported("import a.b, c\ndef f():\n    from d.e import g\n") == {"a", "c", "d"}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_above_it(room: str) -> None:
    files = python_files(room) if (ROOT / room).is_dir() else [ROOT / room]
    assert files
    for path in files:
        found = imported(path.read_text(encoding="utf-8")) & FORBIDDEN[room]
        assert not found, f"{path.relative_to(ROOT)} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    "path",
    [path for path in COMMANDS if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_help_has_an_example_and_does_not_wait_for_torch(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, module_name(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "example:\n  python " in done.stdout
