"""Which files of a folder are slides, and which reader opens them."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from src.common.errors import InputError
from src.common.files import is_system_file
from src.data.id_map import refuse_repeats
from src.data.names import IMAGE_SUFFIX
from src.data.tiff import first_page_size
from src.slides.openslide_slide import OpenSlideSlide
from src.slides.slide import Slide
from src.slides.tiff_slide import TiffSlide

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
WITH_PICTURES = (".vms", ".vmu")  # whose pixels lie in JPEG files beside
NEEDS_OPENSLIDE = "pip install -r requirements-slides.txt"


def find_slides(folder: Path, slide_pixels: int) -> list[Path]:
    """The slides of a folder, sorted: files of scanners, and TIFF of more than ``slide_pixels`` px.

    In place of a folder, a file that is named is a slide, whatever its size.

    Raises:
        InputError: it holds slides and small images, or two slides of one name.
    """
    if folder.is_file() and folder.suffix.lower() in (*TIFF_SUFFIXES, *SCANNER_SUFFIXES):
        return [folder]
    if not folder.is_dir():  # who looks for images says so
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not is_system_file(path.name)]
    slides = [path for path in files if _is_slide(path, slide_pixels)]
    has_own_pictures = any(path.suffix.lower() in WITH_PICTURES for path in slides)
    small = [path for path in files if path not in slides and _is_image(path, has_own_pictures)]
    if slides and small:
        raise InputError(
            f"{folder}: holds slides, such as {slides[0].name}, and small images, such as {small[0].name}; put them"
            " into folders of their own, or say with --slide-pixels from what size on a TIFF is a slide"
        )
    refuse_repeats((path.stem for path in slides), f"{folder}: slide")  # each gets a folder of this name
    return slides


def _is_image(path: Path, tiff_alone: bool) -> bool:
    return path.suffix.lower() in TIFF_SUFFIXES or (not tiff_alone and bool(IMAGE_SUFFIX.search(path.name)))


def _is_slide(path: Path, slide_pixels: int) -> bool:
    suffix = path.suffix.lower()
    if suffix in SCANNER_SUFFIXES:
        return True
    if suffix not in TIFF_SUFFIXES:
        return False
    height, width = first_page_size(path)
    return height * width > slide_pixels


def open_slide(path: Path) -> Slide:
    """Open a slide: files of scanners by OpenSlide where it is installed, TIFF and SVS else by tifffile.

    Raises:
        InputError: it cannot be read, or needs OpenSlide, which is not installed.
    """
    suffix = path.suffix.lower()
    has_openslide = find_spec("openslide") is not None
    if suffix in TIFF_SUFFIXES or (suffix == ".svs" and not has_openslide):
        return TiffSlide(path)
    if not has_openslide:
        raise InputError(f"{path}: needs OpenSlide ({NEEDS_OPENSLIDE})")
    return OpenSlideSlide(path)


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
