"""What no line of the program may do: run a stranger's code, or use the network unasked."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import FOLDERS, ROOT, module_name, python_files

SOURCES = [path for folder in (".", *FOLDERS) for path in python_files(folder)]
FORBIDDEN = {
    "torch.load without weights_only": re.compile(r"torch\.load\((?![^)]*weights_only=True)"),
    "pickle": re.compile(
        r"\b(?:pickle|dill|joblib|shelve|marshal)\b\s*[.,]|import (?:pickle|dill|joblib|shelve|marshal)"
    ),
    "np.load with pickles": re.compile(r"allow_pickle=True"),
    "eval or exec": re.compile(r"(?<![.\w])(?:eval|exec)\("),
    "yaml.load": re.compile(r"yaml\.(?:unsafe_)?load\("),
    "a shell": re.compile(r"shell=True|os\.system\("),
}
BLOCKED = """
import importlib, socket, sys
def refuse(*arguments, **options):
    raise SystemExit("a connection was attempted")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_source_does(what: str) -> None:
    found = [path.name for path in SOURCES if FORBIDDEN[what].search(path.read_text(encoding="utf-8"))]
    assert not found, f"{what} in {', '.join(found)}"


def test_the_lint_can_fail() -> None:
    for what, line in (
        ("torch.load without weights_only", "torch.load(path, map_location='cpu')"),
        ("pickle", "import pickle"),
        ("eval or exec", "x = eval(text)"),
        ("a shell", "run(x, shell=True)"),
    ):
        assert FORBIDDEN[what].search(line)
    assert not FORBIDDEN["torch.load without weights_only"].search("torch.load(path, weights_only=True)")
    assert not FORBIDDEN["eval or exec"].search("model.eval()")


@pytest.mark.torch
def test_no_import_connects() -> None:
    modules = [module_name(path) for path in SOURCES if path.stem not in ("__init__", "__main__")]
    assert len(modules) > 40
    done = subprocess.run([sys.executable, "-c", BLOCKED, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_guard_can_fail() -> None:
    with socket.socket() as other, pytest.raises(AssertionError, match=r"192\.0\.2\.1 was attempted"):
        other.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match=r"example\.org was attempted"):
        socket.create_connection(("example.org", 80))


def test_the_guard_can_fail_in_a_process_of_its_own() -> None:
    asking = "import urllib.request; urllib.request.urlopen('http://192.0.2.1/')"
    done = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True)
    assert done.returncode == 1 and "a connection to 192.0.2.1 was attempted" in done.stderr


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("No known vulnerabilities found", 0, "audit: no known vulnerability"),
        ("Found 2 known vulnerabilities in 1 package\nNAME x PYSEC-1", 1, "PYSEC-1"),
        (
            "No known vulnerabilities found\nx: Dependency not found on PyPI and could not be audited",
            0,
            "not be reached",
        ),
        ("requests.exceptions.ConnectionError", 0, "not be reached"),
    ],
)
def test_the_audit_tells_a_finding_from_silence(tmp_path: Path, said: str, code: int, words: str) -> None:
    script, tool = tmp_path / "script/audit.sh", tmp_path / ".venv/bin/pip-audit"
    for path in (script, tool):
        path.parent.mkdir(parents=True)
    script.write_text((ROOT / "script/audit.sh").read_text())
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    tool.chmod(0o755)
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == code and words in done.stdout
