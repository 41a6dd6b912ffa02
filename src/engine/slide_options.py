"""How slides are predicted, and the checks of it before the first one begins."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError, some
from src.common.files import writing
from src.config.settings import ImageSettings
from src.data.data_shift import DataStatistics
from src.data.records import list_folder
from src.formats.slide_folder import CELLS, OTHERS
from src.slides.finding import OUTPUTS, REGIONS, find_all_regions, find_regions, open_slide, slide_name
from src.slides.slide import Slide
from src.slides.tissue import Tissue, all_tissue, find_tissue
from src.slides.tissue_file import Regions, check_regions, read_regions, read_tissue


@dataclass(frozen=True)
class SlideOptions:
    """How slides are predicted: ``mpp`` or ``scale`` where a flag gives one, ``trained`` is how training read images.

    ``tissue`` is ``auto``, ``all``, a GeoJSON file, or a folder with one for each slide. ``job`` is what else the cells
    depend on, as JSON. Slides lie in ``root``, and their outputs in ``output`` likewise; without it each slide is known
    by its file name alone. ``statistics`` are those of the training images.
    """

    output: Path
    tissue: str
    mpp: float | None
    scale: float | None
    trained: ImageSettings
    job: Any
    root: Path | None = None
    statistics: DataStatistics | None = None

    def name_of(self, slide: Path) -> str:
        """The name of a slide."""
        return slide_name(slide, self.root or slide.parent)

    def folder_of(self, slide: Path) -> Path:
        """Where the outputs of a slide lie."""
        return self.output / self.name_of(slide)

    def regions_of(self, slide: Path) -> Path | None:
        """The file of a slide's regions; ``None`` where none is asked for, or where it is missing in the folder."""
        if self.tissue in ("auto", "all"):
            return None
        given = Path(self.tissue)
        return find_regions(given, self.name_of(slide)) if given.is_dir() else given


def check_start(slides: Sequence[Path], options: SlideOptions) -> None:
    """Refuse what cannot work for any slide, before the first one begins. Slides that do not open are left for later.

    Raises:
        InputError: the resolution of the training is not known, a name cannot be written, outputs cannot be written or
            would replace other files, or regions are missing, malformed or outside of their slide.
    """
    if options.scale is None and options.trained.mpp is None:
        raise InputError("--scale: is needed, because the checkpoint does not say the resolution of its training")
    trial = options.output / ".can-be-written"
    with writing(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink(missing_ok=True)  # another process may have been faster
    for slide in slides:
        _check_name(slide)
        check_place(options.folder_of(slide))
    if options.tissue not in ("auto", "all"):
        _check_regions(slides, options)


def _check_name(slide: Path) -> None:
    try:
        slide.name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{slide}: its name is not UTF-8, which outputs are written in; rename it") from error


def check_place(folder: Path) -> None:
    """Refuse to replace what is no folder of outputs.

    Raises:
        InputError: naming it.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not set(_names_in(folder)) >= OUTPUTS)):
        raise InputError(f"{folder}: is not a folder of this program's outputs; move it, or name another --output")


def check_other_files(folder: Path) -> None:
    """Refuse to replace outputs that other files lie beside, such as corrections of cells.

    Raises:
        InputError: naming some of them.
    """
    others = set(_names_in(folder) if folder.exists() else []) - {CELLS, *OTHERS}
    if others:
        raise InputError(f"{folder}: holds {some(others)}, which would be lost when the outputs are replaced; move it")


def _names_in(folder: Path) -> list[str]:
    return list_folder(folder, f"{folder}: no such folder")


def _check_regions(slides: Sequence[Path], options: SlideOptions) -> None:
    given = Path(options.tissue)
    if given.is_dir():
        find_all_regions(given, [options.name_of(slide) for slide in slides])
    known: dict[Path, Regions] = {}
    for slide in slides:
        path = options.regions_of(slide)
        if path is None:
            continue
        if path not in known:
            known = {path: read_regions(path)}
        try:
            opened = open_slide(slide)
        except Exception:  # who predicts it says what is wrong
            continue
        with closing(opened):
            check_regions(known[path], path, opened)


def scale_of_slide(slide: Slide, options: SlideOptions) -> float:
    """The factor by which a slide is resized, so that cells are as large as in training.

    Raises:
        InputError: the resolution of the slide or of the training is not known; it names the flag that says it.
    """
    if options.scale is not None:
        return options.scale
    mpp, trained = options.mpp or slide.mpp, options.trained
    if mpp is None:
        raise InputError(f"{slide.path}: its resolution is not known, or not plausible; pass --mpp, in µm per px")
    if trained.mpp is None:
        raise InputError(f"{slide.path}: the checkpoint does not say the resolution of its training; pass --scale")
    return trained.scale * mpp / trained.mpp


def tissue_of(slide: Slide, options: SlideOptions) -> Tissue:
    """Where a slide is predicted.

    Raises:
        InputError: its regions are missing, or as :func:`read_tissue`.
    """
    if options.tissue == "auto":
        return find_tissue(slide)
    if options.tissue == "all":
        return all_tissue(slide)
    path = options.regions_of(slide.path)
    if path is None:
        raise InputError(f"--tissue {options.tissue}: holds no {options.name_of(slide.path)}{REGIONS[0]}")
    return read_tissue(slide, path)
