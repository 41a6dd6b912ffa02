"""Imports run one way, over the whole tree; torch stays in two packages and the scripts; help never waits for it."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src import MOVED
from tests.sources import FOLDERS, ROOT, module_name, python_files

# Packages of src by floor. A module imports from its own package and from lower floors alone.
FLOORS: tuple[set[str], ...] = (
    {"common"},
    {"config", "geometry"},
    {"data"},
    {"evaluation", "synthetic"},
    {"formats", "reporting", "network"},
    {"slides"},
    {"inspection", "engine", "cluster"},
)
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
COMMANDS_FLOOR = len(FLOORS)  # src/NAME.py
SCRIPTS = {"main", "inference", "dataset", "model", "utils"}
TORCH = {"torch", "torchvision", "albumentations"}
TORCH_PACKAGES = {"network", "engine"}
FORBIDDEN_AMONG_SCRIPTS = {
    "utils": SCRIPTS,
    "model": SCRIPTS - {"model"},
    "dataset": SCRIPTS - {"dataset"},
    "inference": {"main", "dataset"},
}
COMMANDS = [path for folder in (".", *FOLDERS) for path in python_files(folder)]
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None  # an import of it fails
name, sys.argv = sys.argv[1], ["command", "--help"]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def imported(source: str) -> set[str]:
    """The full names of all modules that some source imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"src.{alias.name}" for alias in node.names} if node.module == "src" else {str(node.module)}
    return names


def wrong_imports(name: str, source: str) -> set[str]:
    """The imports that a module of src may not have."""
    package = name.split(".")[1] if name.count(".") > 1 else None
    floor = FLOOR_OF[package] if package else COMMANDS_FLOOR
    wrong = set()
    for other in imported(source):
        parts = other.split(".")
        if parts[0] in SCRIPTS or (parts[0] in TORCH and package not in TORCH_PACKAGES):
            wrong.add(other)
        elif parts[0] == "src":
            is_command = parts[1] not in FLOOR_OF
            if is_command or (parts[1] != package and FLOOR_OF[parts[1]] >= floor):
                wrong.add(other)
    return wrong


def test_the_rules_can_be_broken() -> None:
    for name, source, wrong in (
        ("src.geometry.tiles", "from src.data.tiff import read_image", {"src.data.tiff"}),
        ("src.geometry.tiles", "def f():\n    from src.config import flags", {"src.config"}),  # the same floor
        ("src.data.cache", "import torch.nn\nimport src.geometry.tiles", {"torch.nn"}),
        ("src.engine.run", "import torch\nfrom utils import to_device", {"utils"}),
        ("src.score", "from src.report import main\nfrom src.evaluation.scores import score", {"src.report"}),
        ("src.engine.run", "from src import report", {"src.report"}),
        ("src.engine.run", "from src.engine.state import Progress\nfrom src.reporting import draw", set()),
    ):
        assert wrong_imports(name, source) == wrong


def test_every_package_has_its_floor() -> None:
    assert {path.parent.name for path in (ROOT / "src").glob("*/__init__.py")} == set(FLOOR_OF)


@pytest.mark.parametrize("path", python_files("src"), ids=lambda path: str(path.relative_to(ROOT)))
def test_src_imports_nothing_from_above(path: Path) -> None:
    assert not wrong_imports(module_name(path), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", FORBIDDEN_AMONG_SCRIPTS)
def test_scripts_import_one_way(script: str) -> None:
    assert not imported((ROOT / f"{script}.py").read_text(encoding="utf-8")) & FORBIDDEN_AMONG_SCRIPTS[script]


@pytest.mark.parametrize(
    "path",
    [path for path in COMMANDS if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_help_has_an_example_and_does_not_wait_for_torch(path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, module_name(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usage, _, about = done.stdout.partition("\n\n")
    assert usage.startswith("usage: ") and "python " in about  # a command to copy


def test_a_module_that_has_moved_fails_with_its_new_place() -> None:
    for old, new in MOVED.items():
        with pytest.raises(ModuleNotFoundError, match=rf"{old} is now {new}$"):
            importlib.import_module(old)
        assert importlib.util.find_spec(new)


@pytest.mark.parametrize(
    "folder",
    [path.parent for path in sorted((ROOT / "src").rglob("*/__init__.py"))],
    ids=lambda folder: str(folder.relative_to(ROOT)),
)
def test_a_package_says_what_each_of_its_files_is_for(folder: Path) -> None:
    described = re.findall(r"^- ``(\w+)``: ", (folder / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    inside = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    assert sorted(described) == sorted([*inside, *(path.parent.name for path in folder.glob("*/__init__.py"))])
