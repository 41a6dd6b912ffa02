"""Logs that crashes tear, and what is written beside its place."""

import os
from pathlib import Path

import pytest

from src.common.errors import InputError
from src.common.files import append_line, is_system_file, read_json, read_lines, replacing, write_text
from src.config.recipe import read_recipe


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_is_read_as_windows_tools_write_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"a": "é",\r\n"b": 1}\r\n'.encode(encoding))
    (tmp_path / "a.toml").write_bytes('# about\r\nmode = "é"\r\n'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"a": "é", "b": 1} and read_recipe(tmp_path / "a.toml") == {"mode": "é"}


STRAY = (
    "#recycle", "@Recycle", "@eaDir", "RECYCLER", "$RECYCLE.BIN", "Network Trash Folder", "Temporary Items",
    "found.000", "lost+found", "System Volume Information", ".DS_Store", "._x", "Thumbs.db", "desktop.ini",
    "x.tif:Zone.Identifier", "x.tif~", "x.bak", "~$x", ".~lock.x#", ".nfs000001", "x.swp", "x.part", "x.crdownload",
    "TheVolumeSettingsFolder", "$Extend", "WPSettings.dat", "IndexerVolumeGuid", "__pycache__", "#x.png#",
)  # fmt: skip


@pytest.mark.parametrize("name", STRAY)
def test_stray_files_are_known_in_any_case(name: str) -> None:
    assert is_system_file(name) and is_system_file(name.upper()) and is_system_file(name.lower())


@pytest.mark.parametrize(
    "name", ["x.tif", "found", "part", "tmp", "recycled cells", "#1", "@home", "x_part.tif", "~x.tif"]
)
def test_other_files_are_not_stray(name: str) -> None:
    assert not is_system_file(name)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(InputError, match="cannot be written \\(it is not a regular file"):
            write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
