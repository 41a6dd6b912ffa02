"""Which files of a folder, and of the folders in it, are slides, and which reader opens them."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from src.common.errors import InputError, counted, nearest_path, some
from src.common.values import plain
from src.data.folders import MOST_LEVELS
from src.data.names import IMAGE_SUFFIX
from src.data.records import is_known, list_folder
from src.data.tiff import first_page_size
from src.formats.slide_folder import SUMMARY, TABLE
from src.slides.dicom import DICOM_SUFFIXES, series_of
from src.slides.openslide_slide import OpenSlideSlide, scanner_of
from src.slides.slide import Slide
from src.slides.tiff_slide import TiffSlide

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
SLIDE_SUFFIXES = (*TIFF_SUFFIXES, *SCANNER_SUFFIXES, *DICOM_SUFFIXES)
WITH_PICTURES = (".vms", ".vmu")  # whose pixels lie in JPEG files beside
WITH_FOLDER = ".mrxs"  # whose pixels lie in a folder of the same name
NEEDS_OPENSLIDE = "pip install -r requirements-slides.txt"
OUTPUTS = {SUMMARY, TABLE}  # by which a folder of outputs is known
REGIONS = (".geojson", ".geojson.gz", ".json")  # endings of files of regions


@dataclass
class _Found:
    """Slides, images that are none, TIFF files that do not say their size, and the folders that were looked into."""

    slides: list[Path] = field(default_factory=list)
    small: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)


def find_slides(folder: Path, slide_pixels: int) -> list[Path]:
    """The slides of a folder and of the folders in it, sorted: files of scanners, and TIFF of more px than given.

    The DICOM files of a series are one slide: the folder that holds them and nothing else, or else the first of them.
    Where there are slides, a TIFF that cannot be read counts as one, so that it is named when it is opened.

    Args:
        folder: where to look, or one file, which is a slide whatever its size. What belongs to a slide, folders of
            outputs, and image folders with masks are left out.
        slide_pixels: TIFF of more px are slides.

    Raises:
        InputError: the slide is not there, or the folder holds slides and small images, or slides whose outputs would
            have one place.
    """
    if folder.is_file() and folder.suffix.lower() in SLIDE_SUFFIXES:
        return [folder]
    if folder.suffix.lower() in SLIDE_SUFFIXES and not folder.exists():
        raise InputError(f"{folder}: no such file or folder{nearest_path(folder)}")
    if not folder.is_dir():  # who looks for images says so
        return []
    found = _Found()
    _look_into(folder, slide_pixels, found)
    if not found.slides:
        return []
    if found.small:
        raise InputError(
            f"{folder}: holds slides, such as {found.slides[0].relative_to(folder)}, and small images, such as"
            f" {found.small[0].relative_to(folder)}; put them into folders of their own, or say with --slide-pixels"
            " from what size on a TIFF is a slide"
        )
    slides = sorted(found.slides + found.unread)
    _refuse_one_place(slides, folder)
    return slides


def _look_into(folder: Path, slide_pixels: int, found: _Found, level: int = 0) -> None:
    names = list_folder(folder, f"{folder}: no such folder")
    place = folder.resolve()
    if place in found.folders or set(names) >= OUTPUTS:
        return
    found.folders.add(place)
    if level and any(map(is_known, names)):  # an image with its masks
        found.small.append(folder)
        return
    paths = [folder / name for name in names]
    # No pipe, which would block; a link to nothing may be a slide, and is named when it is opened.
    files = [path for path in paths if path.is_file() or (path.is_symlink() and not path.exists())]
    before = len(found.slides)
    _sort(files, slide_pixels, found)
    owned = {path.stem for path in files if path.suffix.lower() == WITH_FOLDER}
    for path in paths if level < MOST_LEVELS else []:
        if path.is_dir() and path.name not in owned:
            _look_into(path, slide_pixels, found, level + 1)
    is_alone = len(found.slides) == before
    found.slides += _series_in(folder, [path for path in files if path.suffix.lower() in DICOM_SUFFIXES], is_alone)


def _sort(files: Sequence[Path], slide_pixels: int, found: _Found) -> None:
    """Sort the files of a folder into slides, small images and TIFF that cannot be read."""
    has_own_pictures = any(path.suffix.lower() in WITH_PICTURES for path in files)
    for path in files:
        suffix = path.suffix.lower()
        if suffix in SCANNER_SUFFIXES:
            found.slides.append(path)
        elif suffix in TIFF_SUFFIXES:
            height, width = first_page_size(path)
            kind = found.slides if height * width > slide_pixels else found.small if height else found.unread
            kind.append(path)
        elif not has_own_pictures and IMAGE_SUFFIX.search(path.name):
            found.small.append(path)


def _series_in(folder: Path, files: Sequence[Path], is_alone: bool) -> list[Path]:
    """The slides among DICOM files: the folder if it holds one slide, else the first file of each series."""
    series: dict[str, Path] = {}
    for path in files:
        series.setdefault(series_of(path) or f"file {path.name}", path)
    return [folder] if is_alone and len(series) == 1 else list(series.values())


def slide_name(slide: Path, root: Path) -> str:
    """The name of a slide: its place in the folder that was searched, without the ending, like ``site_a/1``.

    Where the slide is what was searched, it is its own name.
    """
    is_folder = os.path.isdir(slide)  # noqa: PTH112  # is_dir() fails where nobody may look
    place = slide if is_folder else slide.with_suffix("")
    return place.relative_to(slide.parent if slide == root else root).as_posix()


def _refuse_one_place(slides: Sequence[Path], root: Path) -> None:
    """Refuse slides whose outputs would lie in one folder, or in one another."""
    names: dict[str, Path] = {}
    for slide in slides:
        name = slide_name(slide, root)
        other = names.setdefault(plain(name), slide)
        if other != slide:
            raise InputError(f"{root}: slide {name} occurs twice, as {other.name} and as {slide.name}; rename one")
    for name, slide in names.items():
        for parent in Path(name).parents:
            if str(parent) in names:
                raise InputError(
                    f"{names[str(parent)]}: is a slide, and so is {slide}: the outputs of one would lie in those of"
                    " the other; rename one"
                )


def files_of(slide: Path) -> list[Path]:
    """The files that a slide consists of, as far as their names tell it."""
    if slide.is_dir():
        return sorted(path for path in slide.iterdir() if path.suffix.lower() in DICOM_SUFFIXES)
    beside = slide.with_suffix("")
    if slide.suffix.lower() == WITH_FOLDER and beside.is_dir():
        return [slide, *sorted(path for path in beside.iterdir() if path.is_file())]
    return [slide]


def why_no_slide(path: Path) -> str:
    """Why a path that somebody lists is no slide, as far as its ending tells; empty where it may be one.

    Only paths with other endings are looked up. Those that are not there may be folders of DICOM files.
    """
    if path.suffix.lower() not in SLIDE_SUFFIXES:
        with suppress(OSError):  # who opens it says what is wrong
            if path.is_file():
                return "is no slide; slides are TIFF, DICOM and files of scanners, such as .svs and .ndpi"
            if path.is_dir() and not files_of(path):
                return "is a folder without DICOM files"
    return ""


def find_regions(folder: Path, name: str) -> Path | None:
    """The GeoJSON file of a slide in a folder of them; ``None`` where it is missing."""
    return next((path for ending in REGIONS if (path := folder / f"{name}{ending}").is_file()), None)


def find_all_regions(folder: Path, names: Sequence[str]) -> list[Path]:
    """The GeoJSON file of each slide.

    Raises:
        InputError: some are missing.
    """
    found = {name: find_regions(folder, name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        wanted = f"NAME{REGIONS[0]} for {len(missing):,} of {counted(len(names), 'slide')}: {some(missing)}"
        raise InputError(f"--tissue {folder}: holds no {wanted}")
    return [path for path in found.values() if path]


def open_slide(path: Path) -> Slide:
    """Open a slide: files of scanners by OpenSlide where it is installed, other TIFF, and SVS without it, by tifffile.

    Raises:
        InputError: it cannot be read, or needs OpenSlide, which is not installed.
    """
    suffix = path.suffix.lower()
    has_openslide = find_spec("openslide") is not None
    is_other_tiff = suffix in TIFF_SUFFIXES and not (has_openslide and scanner_of(path))
    if is_other_tiff or (suffix == ".svs" and not has_openslide):
        return TiffSlide(path)
    if not has_openslide:
        raise InputError(f"{path}: needs OpenSlide ({NEEDS_OPENSLIDE})")
    return OpenSlideSlide(path, files_of(path)[0])


def shard_of(slides: Sequence[Path], shard: str | None) -> list[Path]:
    """Every n-th slide from the i-th on, for a ``shard`` of ``i/n``; all without one.

    Raises:
        InputError: the flag says something else.
    """
    if shard is None:
        return list(slides)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {shard}: expected i/n, like 3/10, with i in 1..n")
    return list(slides[int(found[1]) - 1 :: int(found[2])])
