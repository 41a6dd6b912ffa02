"""Everything that is wrong with a folder is listed at once, and every later change of a bit is found."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.check import main
from src.common.errors import InputError
from src.data.masks import read_mask
from src.data.tiff import read_image, write_mask
from src.inspection.faults import check
from src.inspection.manifest import verify, write_manifest
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
    assert "3 images of 80 to 96 px per side" in lines[3] and lines[-1] == f"{data}: no problems found"
    assert "pairs of cells that share pixels, large with small: 1" in lines
    assert " --scale 2" in lines[-2] or " --scale 3" in lines[-2]


def test_masks_without_an_id_per_cell_are_said_and_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data)
    before = capsys.readouterr().out.splitlines()[1].split()[2]  # cells of class 1
    assert "pieces" not in before
    for path in data.glob("*/class1.tif"):
        write_mask(path, np.where(read_mask(path) > 0, 255, 0))
    run(data)
    said = capsys.readouterr().out
    assert "--split-pieces" in said and "3 of " in said and said.splitlines()[1].split()[2] == "3"
    run(data, "--split-pieces")
    said = capsys.readouterr().out
    assert "--split-pieces" not in said and int(said.splitlines()[1].split()[2]) > 3


def test_few_bits_in_a_deep_file_are_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in data.glob("*/image.tif"):
        tifffile.imwrite(path, read_image(path).astype(np.uint16) << 4, photometric="rgb")  # 12 bits
    run(data)
    assert "3 of 3 images" in (said := capsys.readouterr().out) and "--intensity percentile" in said
    run(data, "--intensity", "percentile", "--html", str(data.parent / "page.html"))
    assert "--intensity" not in capsys.readouterr().out


def test_values_without_a_full_range_are_no_problem_with_percentiles(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(data / "a/image.tif", read_image(data / "a/image.tif").astype(np.float32) * 9, photometric="rgb")
    run_with_problems(data)
    assert "a/image.tif" in capsys.readouterr().out
    run(data, "--intensity", "percentile")
    assert capsys.readouterr().out.splitlines()[-1] == f"{data}: no problems found"


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
    assert lines[-1] == f"{data}: 5 problems" and "1 image without cells: c" in lines


def test_a_fault_of_a_file_hides_none_of_the_folder(data: Path) -> None:
    (data / "a/image.tif").unlink()
    (data / "a/class1.tif").write_bytes(b"no mask")
    problems = check([("a", data / "a")], 2, "full")[1]
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
            assert f"problem: {path}: has changed since" in capsys.readouterr().out
        path.write_bytes(whole)
    run(data, "--verify")


def test_the_digest_of_pixels_does_not_depend_on_the_encoding(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def digest() -> str:
        run(data, "--digest")
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("pixels: "))
        return line

    before = digest()
    image, mask = read_image(data / "a" / "image.tif"), read_mask(data / "a" / "class1.tif")
    tifffile.imwrite(data / "a" / "image.tif", image)
    tifffile.imwrite(data / "a" / "class1.tif", mask.astype(np.float64) * 3)
    assert digest() == before and len(before) == len("pixels: ") + 64
    image = image ^ 1
    tifffile.imwrite(data / "a" / "image.tif", image)
    assert digest() != before


def test_linked_folders_are_in_the_manifest(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "b").rename(data.parent / "elsewhere")
    (data / "b").symlink_to(data.parent / "elsewhere")
    (data / "b/loop").symlink_to(data / "b")
    run_with_problems(data, "--write-manifest")
    assert "manifest.sha256: 9 files" in capsys.readouterr().out
    write_mask(data.parent / "elsewhere/class1.tif", np.ones((96, 80), np.uint16))
    run_with_problems(data, "--verify")
    assert f"problem: {data}/b/class1.tif: has changed since" in capsys.readouterr().out


def test_sha256sum_reads_the_manifest(data: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum on this machine")
    for name in ("two words", "back\\slash", "new\nline", "\\"):
        (data / "a" / name).write_text(name)
    number = write_manifest(data)
    command = ["sha256sum", "--strict", "-c", "manifest.sha256"]
    done = subprocess.run(command, cwd=data, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK\n") == number == 13
    assert verify(data) == []
    (data / "a/new\nline").write_text("others")
    assert subprocess.run(command, cwd=data, capture_output=True).returncode == 1
    assert len(verify(data)) == 1


def test_a_manifest_of_an_earlier_version_is_read(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [path for path in sorted(data.rglob("*")) if path.is_file()]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    files = {str(path.relative_to(data)): {"bytes": path.stat().st_size, "sha256": digests[path]} for path in paths}
    (data / "manifest.json").write_text(json.dumps({"files": files}))
    run(data, "--verify")
    (data / "a/notes.txt").write_text("new")
    run_with_problems(data, "--verify")
    assert "a/notes.txt: is not in the manifest" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "0123  a/image.tif", "\0" * 70])
def test_what_is_no_manifest_is_refused(data: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"manifest\.sha256: cannot be read"):
        run(data, "--verify")
    for name in ("manifest.json", "manifest.sha256"):
        (data / name).write_text(text)
        with pytest.raises(InputError, match=re.escape(name)):
            run(data, "--verify")


def test_files_that_come_and_go_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--write-manifest")
    (data / "a/class2.tif").rename(data / "b/notes.txt")
    with pytest.raises(SystemExit):
        run(data, "--verify")
    said = capsys.readouterr().out
    assert "a/class2.tif: is gone" in said and "b/notes.txt: is not in the manifest" in said


def test_near_duplicates_and_overlaps_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data / "a", data / "z")
    large = read_mask(data / "b/class1.tif")
    write_mask(data / "b/class2.tif", large)  # every large cell is a small one, too
    run(data)
    said = capsys.readouterr().out
    assert "a and z" in said and "a and b" not in said
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


def test_cells_of_unknown_class_are_listed_apart(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data)
    before = capsys.readouterr().out.splitlines()
    for name in "ab":
        (data / name / "class1.tif").rename(data / name / "unknown.tif")
    page = data.parent / "check.html"
    run(data, "--html", str(page))
    said = capsys.readouterr().out.splitlines()
    counts = [int(line.split()[2]) for line in (before[1], said[1], said[3])]
    assert said[3].startswith("unknown class") and counts[0] == counts[1] + counts[2] and counts[2] > 0
    assert "unknown class with small: 1" in "\n".join(said) or "small with unknown class: 1" in "\n".join(said)
    assert "unknown class" in page.read_text()
    (data / "c" / "UNKNOWN.PNG").write_bytes((data / "c" / "class1.tif").read_bytes())
    (data / "c" / "unknown.tif").write_bytes((data / "c" / "class1.tif").read_bytes())
    run_with_problems(data)
    assert "unknown.tif" in capsys.readouterr().out
