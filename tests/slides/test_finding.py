"""Slides are found in folders of folders, with what belongs to them, and nothing is taken for one that is none."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from src.common.errors import InputError
from src.slides.claims import identity
from src.slides.dicom import series_of
from src.slides.finding import files_of, find_slides, open_slide, slide_name
from src.slides.openslide_slide import OpenSlideSlide
from src.slides.slide import Level
from tests.slides.dicom_files import EXPLICIT, IMPLICIT, element, sequence, write, write_level
from tests.slides.scenes import picture, write_pyramid


def names_in(root: Path, slide_pixels: int = 10_000) -> list[str]:
    return [slide_name(slide, root) for slide in find_slides(root, slide_pixels)]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_slides_in_folders_keep_the_names_of_these(tmp_path: Path) -> None:
    touch(tmp_path, "site_b/1.svs", "site_a/1.svs", "site_a/deep/2.ndpi", "3.scn", ".hidden/4.svs", "site_a/notes.txt")
    write_pyramid(tmp_path / "site_b" / "5 Ä'\".tif", picture(120, 120), 1)
    assert names_in(tmp_path) == ["3", "site_a/1", "site_a/deep/2", "site_b/1", "site_b/5 Ä'\""]


def test_a_slide_that_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "case_1.svs")
    with pytest.raises(InputError, match=r"case_2\.svs: no such file .*case_1\.svs"):
        names_in(tmp_path / "case_2.svs")


def test_linked_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.svs")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "site").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "slides")
    assert names_in(tmp_path / "slides") == ["site/1"]


def test_what_belongs_to_a_slide_is_no_slide_and_no_image(tmp_path: Path) -> None:
    """The folder of an MRXS, the pictures of a VMS, and finished outputs, such as those of an --output beside."""
    touch(tmp_path, "a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "a/preview.png")
    touch(tmp_path, "v/b.vms", "v/b.jpg", "v/b_macro.jpg", "v/b.opt")
    touch(tmp_path, "out/a/summary.json", "out/a/cells.parquet", "out/a/overview.png")
    assert names_in(tmp_path) == ["a", "v/b"]
    assert [path.name for path in files_of(tmp_path / "a.mrxs")] == [
        "a.mrxs", "Data0000.dat", "Slidedat.ini", "preview.png",
    ]  # fmt: skip


def test_folders_of_training_images_are_no_slides(tmp_path: Path) -> None:
    for name in ("image.tif", "class1.tif"):
        (tmp_path / "1").mkdir(exist_ok=True)
        write_pyramid(tmp_path / "1" / name, picture(120, 120), 1)
    assert find_slides(tmp_path, 10_000) == []
    touch(tmp_path, "2/a.svs")
    with pytest.raises(InputError, match="small images, such as 1"):
        find_slides(tmp_path, 10_000)


def test_a_broken_tiff_among_slides_is_one_that_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no TIFF")
    assert find_slides(tmp_path, 10_000) == []  # who reads images names it
    touch(tmp_path, "site/a.svs")
    assert names_in(tmp_path) == ["broken", "site/a"]
    with pytest.raises(InputError, match=r"broken\.tif"):
        open_slide(tmp_path / "broken.tif")


def test_a_link_to_nothing_is_a_slide_that_fails_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs")
    for name in ("b.svs", "c.tif", "d.txt"):
        (tmp_path / name).symlink_to(tmp_path / "moved" / name)
    assert names_in(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("names", [("a.svs", "a.ndpi"), ("x/a.svs", "x/A.svs"), ("ü.svs", "u\u0308.ndpi")])
def test_slides_whose_outputs_would_have_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(tmp_path, *names)
    with pytest.raises(InputError) as refused:
        find_slides(tmp_path, 1)
    assert all(Path(name).name in str(refused.value) for name in names)


def test_a_slide_with_the_name_of_a_folder_of_slides_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "a/1.svs")
    with pytest.raises(InputError, match=r"a\.svs: .*1\.svs"):
        find_slides(tmp_path, 1)


def test_many_tiff_files_are_looked_at_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each header is read once, without the pages behind the first."""
    content = write_pyramid(tmp_path / "0.tif", picture(120, 120), 3).read_bytes()
    for number in range(1, 500):
        (tmp_path / f"{number}.tif").write_bytes(content)
    started = time.process_time()
    assert len(find_slides(tmp_path, 10_000)) == 500
    per_file = (time.process_time() - started) / 500
    with capsys.disabled():
        print(f" {1000 * per_file:.2f} ms per file", end="")
    assert per_file < 0.01


def dicom_slide(folder: Path, series: str, levels: int = 2) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    image = picture(300, 400)
    for number in range(levels):
        reduced = cv2.resize(image, (400 >> number, 300 >> number), interpolation=cv2.INTER_AREA)
        write_level(folder / f"{series}-{number}.dcm", reduced, series, number + 1, 0.5 * 2**number)
    return image


def test_dicom_files_of_a_series_are_one_slide(tmp_path: Path) -> None:
    for place, series in (("case1", "1.2.1"), ("both", "1.2.2"), ("both", "1.2.3"), (".", "1.2.4")):
        dicom_slide(tmp_path / place, series)
    assert names_in(tmp_path) == ["1.2.4-0", "both/1.2.2-0", "both/1.2.3-0", "case1"]
    touch(tmp_path, "case1/no.dcm", "case1/readme.txt")
    assert "case1/no" in names_in(tmp_path)  # and fails by its name


def test_a_slide_may_be_named_in_place_of_a_folder(tmp_path: Path) -> None:
    dicom_slide(tmp_path / "case1", "1.2.1")
    touch(tmp_path / "site_a", "b.svs", "c.svs")
    for slide, name in ((tmp_path / "case1", "case1"), (tmp_path / "site_a" / "b.svs", "b")):
        assert find_slides(slide, 10_000) == [slide] and slide_name(slide, slide) == name


def test_a_dicom_slide_is_read_by_openslide(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    image = dicom_slide(tmp_path / "case.1", "1.2.1")
    (found,) = find_slides(tmp_path, 1)
    slide = open_slide(found)
    assert [(level.height, level.width) for level in slide.levels] == [(300, 400), (150, 200)]
    assert slide.mpp == pytest.approx(0.5) and slide_name(found, tmp_path) == "case.1"
    assert (slide.read(0, 30, 50, 200, 300) == image[30:230, 50:350]).all()
    slide.close()
    before = identity(found)
    with (found / "1.2.1-1.dcm").open("ab") as file:
        file.write(b"\0")
    assert identity(found) != before


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("defined", [False, True])
def test_the_series_is_found_behind_sequences(tmp_path: Path, implicit: bool, defined: bool) -> None:
    """Which may name other series, with or without their lengths."""
    other = element(0x0020000E, "UI", "9.9", implicit)
    inner = sequence(0x00081140, other, defined=defined, implicit=implicit)
    elements = [
        element(0x00080016, "UI", "1.2", implicit),
        sequence(0x00081115, other + inner, other, defined=defined, implicit=implicit),
        element(0x00100010, "PN", "X" * 61, implicit),
        element(0x0020000E, "UI", "1.2.34", implicit),
    ]
    path = write(tmp_path / "a.dcm", *elements, syntax=IMPLICIT if implicit else EXPLICIT)
    assert series_of(path) == "1.2.34"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 9, 7):
        path.write_bytes(whole[:length])
        assert series_of(path) is None


def test_dicom_without_a_series_has_none(tmp_path: Path) -> None:
    assert series_of(write(tmp_path / "a.dcm", element(0x00280010, "US", 3))) is None
    assert series_of(write(tmp_path / "b.dcm", syntax="1.2.840.10008.1.2.2")) is None
    assert series_of(tmp_path / "missing.dcm") is None
    nested = b"".join(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" for _ in range(2000))
    assert series_of(write(tmp_path / "c.dcm", nested)) is None


class FakeOpenSlide:
    """In place of OpenSlide's class: a slide of which each px holds its place, in two levels."""

    properties: ClassVar[dict[str, str]] = {}
    dimensions = (100, 80)
    level_dimensions = ((100, 80), (25, 20))
    level_downsamples = (1.0, 4.0)
    alpha: ClassVar[list[int]] = [255]

    def __init__(self, path: object) -> None:
        self.path = path

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        pixels = np.zeros((size[1], size[0], 4), np.uint8)
        down = int(self.level_downsamples[level])
        pixels[..., 0] = corner[0] + down * np.arange(size[0])
        pixels[..., 1] = corner[1] + down * np.arange(size[1])[:, None]
        pixels[..., 3] = self.alpha
        return pixels

    def close(self) -> None:
        pass


def fake_slide(monkeypatch: pytest.MonkeyPatch) -> OpenSlideSlide:
    fake = SimpleNamespace(OpenSlide=FakeOpenSlide, OpenSlideError=RuntimeError)
    monkeypatch.setitem(sys.modules, "openslide", fake)
    return OpenSlideSlide(Path("a.mrxs"))


def test_levels_are_as_large_as_openslide_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeOpenSlide, "level_dimensions", ((100, 80), (26, 20)))
    assert list(fake_slide(monkeypatch).levels) == [Level(80, 100), Level(20, 26)]


def test_what_was_not_scanned_is_white(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeOpenSlide, "alpha", [255, 51, 0])
    assert fake_slide(monkeypatch).read(0, 7, 0, 1, 3).tolist() == [[[0, 7, 0], [204, 205, 204], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, (0, 0, 80, 100)),
        ({"x": "8", "y": "12", "width": "40", "height": "20"}, (8, 12, 20, 40)),
        ({"x": "8", "y": "12"}, (8, 12, 68, 92)),
        ({"width": "40"}, (0, 0, 80, 40)),
        ({"x": "8", "width": "1000", "y": "70", "height": "11"}, (8, 70, 10, 92)),  # cut to the slide
        ({"x": "-8", "width": "40", "y": "nan", "height": "20.0"}, (0, 0, 20, 32)),
        (
            {"x": "100", "width": "40", "y": "", "height": "0"},
            (0, 0, 80, 100),
        ),  # nothing is left, so it is not believed
    ],
)
def test_only_what_was_scanned_is_the_image(
    monkeypatch: pytest.MonkeyPatch, bounds: dict[str, str], expected: tuple[int, ...]
) -> None:
    properties = {f"openslide.bounds-{name}": value for name, value in bounds.items()}
    monkeypatch.setattr(
        FakeOpenSlide, "properties", {**properties, "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
    )
    slide = fake_slide(monkeypatch)
    left, top, height, width = expected
    assert slide.mpp == 0.25
    assert [(level.height, level.width) for level in slide.levels] == [
        (height, width), (max(height // 4, 1), max(width // 4, 1)),
    ]  # fmt: skip
    assert slide.read(0, 3, 5, 2, 2)[0, 0].tolist() == [left + 5, top + 3, 0]
    assert slide.read(1, 1, 2, 1, 1)[0, 0].tolist() == [left + 8, top + 4, 0]
