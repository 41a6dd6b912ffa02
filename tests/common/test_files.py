"""Logs that crashes tear, and what is written beside its place."""

import os
from pathlib import Path

import pytest

from src.common.errors import InputError
from src.common.files import append_line, read_lines, replacing, write_text


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    assert read_lines(log) == []
    append_line(log, {"a": 1})
    whole = log.read_bytes()
    append_line(log, {"b": "é"})
    line = log.read_bytes()[len(whole) :]
    for length in range(len(line) - 1):  # without its newline a line is whole all the same
        log.write_bytes(whole + line[:length])
        append_line(log, {"c": 2})
        assert read_lines(log) == [{"a": 1}, {"c": 2}] if length < len(line) - 2 else True
    log.write_bytes(whole + b"\xff\xfe\n[1]\n" + line)
    assert read_lines(log) == [{"a": 1}, {"b": "é"}]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(InputError, match="cannot be written \\(it is not a regular file"):
            write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
