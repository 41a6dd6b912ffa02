"""Everything that is wrong with a folder is listed at once, and every later change of a bit is found."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.check import main
from src.data.tiff import read_mask, write_mask
from src.inspection.faults import check
from tests.helpers import write_dataset

CLASSES = '[{"id": 1, "name": "large", "color": "#ff0000"}, {"id": 2, "name": "small", "color": "#00ff00"}]'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "classes.json").write_text(CLASSES)
    return write_dataset(tmp_path / "train", "abc")


def run(data: Path, *flags: str) -> None:
    main([str(data), "--classes", str(data.parent / "classes.json"), *flags])


def run_with_problems(data: Path, *flags: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(data, *flags)
    assert ended.value.code == 1


def test_what_the_data_are_like(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["class", "cells", "images", "per", "image"]
    assert lines[1].startswith("1 large") and lines[2].startswith("2 small") and lines[1].split()[3] == "3"
    assert "3 images of 80 to 96 px a side" in lines[3] and lines[-1] == f"{data}: nothing is wrong"
    assert "pairs of cells that share pixels, large with small: 1" in lines
    assert "flags that suit: --scale 2" in lines[-2] or "flags that suit: --scale 3" in lines[-2]


def test_all_problems_come_at_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "a/image.tif").write_bytes(b"no image")
    write_mask(data / "b/class3.tif", np.ones((96, 80), np.uint16))
    (data / "b/class1.tif").write_bytes(b"no mask")
    for path in (data / "c").glob("class*.tif"):
        path.rename(path.with_name(path.name.replace("class", "class_")))
    with pytest.raises(SystemExit) as ended:
        run(data)
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    problems = [line for line in lines if line.startswith("problem: ")]
    named = ("a/image.tif", "b/class1.tif", "b/class3.tif", "c/class_1.tif: is not read", "c/class_2.tif")
    for name, problem in zip(named, problems, strict=True):
        assert name in problem
    assert lines[-1] == f"{data}: 5 problems" and "1 images have no cells: c" in lines


def test_a_fault_of_a_file_hides_none_of_the_folder(data: Path) -> None:
    (data / "a/image.tif").unlink()
    (data / "a/class1.tif").write_bytes(b"no mask")
    problems = check([data / "a"], 2)[1]
    assert len(problems) == 2 and "class1.tif: cannot be read" in problems[0] and "has no image.tif" in problems[1]


def test_without_an_image_that_can_be_read_there_is_no_page(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in data.glob("*/image.tif"):
        path.write_bytes(b"no image")
    with pytest.raises(SystemExit):
        run(data, "--html", str(data.parent / "check.html"))
    assert capsys.readouterr().out.splitlines()[-1].endswith("check.html: not written, because no image could be read")
    assert not (data.parent / "check.html").exists()


def test_classes_in_the_folder_are_used_and_any_name_can_be_drawn(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "classes.json").write_text(CLASSES.replace("large", "_a$\\\\frac{$").replace("small", "<b>"))
    main([str(data), "--html", str(data.parent / "check.html")])
    assert capsys.readouterr().out.splitlines()[1].startswith("1 _a$")
    page = (data.parent / "check.html").read_text()
    assert page.count("\u200b_a$\\frac{$") == 3  # once in each plot with a legend


def test_every_flipped_bit_is_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--write-manifest")
    run(data, "--verify")
    files = sorted(data.glob("*/*.tif"))
    rng = np.random.default_rng(0)
    for path in files:
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 6):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                run(data, "--verify")
            assert ended.value.code == 1
            assert f"problem: {path}: is not what it was" in capsys.readouterr().out
        path.write_bytes(whole)
    run(data, "--verify")


def test_linked_folders_are_in_the_manifest(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "b").rename(data.parent / "elsewhere")
    (data / "b").symlink_to(data.parent / "elsewhere")
    (data / "b/loop").symlink_to(data / "b")
    run_with_problems(data, "--write-manifest")
    assert "manifest.json: 9 files" in capsys.readouterr().out
    write_mask(data.parent / "elsewhere/class1.tif", np.ones((96, 80), np.uint16))
    run_with_problems(data, "--verify")
    assert f"problem: {data}/b/class1.tif: is not what it was" in capsys.readouterr().out


def test_files_that_come_and_go_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--write-manifest")
    (data / "a/class2.tif").rename(data / "b/notes.txt")
    with pytest.raises(SystemExit):
        run(data, "--verify")
    said = capsys.readouterr().out
    assert "a/class2.tif: is gone" in said and "b/notes.txt: is not in the manifest" in said


def test_twins_and_overlaps_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data / "a", data / "z")
    large = read_mask(data / "b/class1.tif")
    write_mask(data / "b/class2.tif", large)  # every large cell is a small one, too
    run(data)
    said = capsys.readouterr().out
    assert "a and z show nearly the same" in said and "a and b" not in said
    shared = sum(len(np.unique(read_mask(data / name / "class1.tif"))) - 1 for name in "b")
    assert f"pairs of cells that share pixels, large with small: {shared}" in said


def test_the_page_holds_it_all_and_nothing_from_elsewhere(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data.parent / "classes.json").write_text(CLASSES.replace("large", "<script>alert(1)</script>"))
    page = data.parent / "check.html"
    run(data, "--html", str(page))
    text = page.read_text()
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {page}"
    assert "mathdefault" not in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # axes in powers of ten are drawn
    assert text.count("<svg") == 4 and text.count("data:image/jpeg;base64,") == 3 and "--scale" in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert not re.search(r"(?:src|href)=.https?:", text)
