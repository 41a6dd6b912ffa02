"""The cells of GeoJSON files without their images, which a slide's would be too large for."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.data.classes import UNKNOWN, CellClass
from src.data.id_map import ImageId
from src.evaluation.coco_polygons import ToldSize
from src.evaluation.probabilities import is_distribution
from src.formats.drawn import Drawn, class_ids, draw, number_classes
from src.formats.imported import ImportSettings, Source, plain_names, shown_size
from src.formats.readers.geojson import Survey, classes_in, noted, say_others, survey_files
from src.formats.readers.geojson_files import GeoJsonFile, find_files
from src.formats.readers.qupath import PROBABILITY, SCORE, Feature, read_objects
from src.formats.slide_folder import SUMMARY
from src.geometry.instances import Instance
from src.geometry.polygons import FAR

IGNORED_REGION = "region to ignore, which is no cell"


@dataclass(frozen=True)
class CellsOfImage:
    """An image, the file of its cells, and what draws them one by one; this fills the counts of the source."""

    image: ImageId
    path: Path
    cells: Callable[[], Iterator[Instance]]


@dataclass(frozen=True)
class CellSource:
    """What was found: the images, the source with their classes and with counts, and µm per px where that is known."""

    images: Sequence[CellsOfImage]
    source: Source
    mpp: float | None


def open_cells(path: Path, settings: ImportSettings, needs_size: bool) -> CellSource:
    """A file or a folder as :func:`import_geojson` reads it, without the pixels of the images.

    Without ``needs_size`` cells may reach beyond their image, whose size may not be known.

    Raises:
        InputError: a file is damaged, holds no features, or the size of its image is needed and not known, or not the
            one that a slide's summary says.
    """
    found = find_files(path, settings.images)
    survey = survey_files(found.files, settings.nuclei)
    source = Source({}, _with_unknown(path, classes_in(path, found.files, survey), survey))
    ids = class_ids(source.classes, bool(survey.colors), source) if found.files else {}
    if survey.colors and survey.has_unclassified:
        ids[None] = len(source.classes)
    say_others(path, found, source)
    names = plain_names(source, [(PurePath(*file.key), file.path) for file in found.files])
    images = []
    for number, (name, file) in enumerate(zip(names, found.files, strict=True), start=1):
        height, width = _size_of(file, survey.told[file.path], settings, needs_size, source)
        image = ImageId(f"{name}{_ending(file)}", number, height, width)
        images.append(CellsOfImage(image, file.path, partial(_cells, file, image, ids, settings.nuclei, source)))
    resolutions = {file.slide.mpp for file in found.files if file.slide}
    return CellSource(images, source, resolutions.pop() if len(resolutions) == 1 else None)


def _with_unknown(path: Path, classes: tuple[CellClass, ...], survey: Survey) -> tuple[CellClass, ...]:
    """The classes, and a last one for cells of no class, where others have one."""
    if not survey.colors or not survey.has_unclassified:
        return classes
    return number_classes([UNKNOWN.name], path, {UNKNOWN.name: UNKNOWN.color}, classes)


def _size_of(
    file: GeoJsonFile, told: ToldSize, settings: ImportSettings, needs_size: bool, source: Source
) -> tuple[int, int]:
    """The (H, W) of an image; where it need not be known, as far as its cells reach."""
    given = settings.image_size
    if file.slide and given not in (None, file.slide.size):
        (height, width), (of_height, of_width) = given, file.slide.size
        summary = file.path.with_name(SUMMARY)
        raise InputError(f"--image-size {width}x{height}: {summary} says {of_width}x{of_height}")
    if file.slide:
        return file.slide.size
    if given:
        return given
    if file.image and needs_size:
        return shown_size(file.image, told, source, settings.orientation)
    if needs_size:
        raise InputError(f"{file.path}: the size of its image is not known; pass --image-size, or --images")
    furthest_y, furthest_x = told.furthest
    return int(min(furthest_y, FAR)) + 1, int(min(furthest_x, FAR)) + 1


def _ending(file: GeoJsonFile) -> str:
    """The ending of an image's file, where that is known."""
    return PurePath(file.slide.file_name).suffix if file.slide else file.image.suffix if file.image else ""


def _cells(
    file: GeoJsonFile, image: ImageId, ids: Mapping[str | None, int], nuclei: bool, source: Source
) -> Iterator[Instance]:
    """The cells of a file, with their scores and, where all are known, the probabilities of their classes."""
    keys = [f"{PROBABILITY}{cell_class.name}" for cell_class in source.classes]
    waiting: deque[Feature] = deque()

    def drawn_cells() -> Iterator[Drawn]:
        for feature, drawn in noted(read_objects(file.path, nuclei, source.dropped), source):
            source.dropped[IGNORED_REGION] += feature.is_ignored
            if not feature.is_ignored:
                waiting.append(feature)
                yield drawn

    for cell in draw(drawn_cells(), ids, (image.height, image.width), file.path, source.dropped):
        feature = waiting.popleft()
        if cell:
            yield replace(cell, score=feature.measured.get(SCORE, 1.0), probabilities=_probabilities(feature, keys))


def _probabilities(feature: Feature, keys: Sequence[str]) -> tuple[float, ...]:
    found = [feature.measured[key] for key in keys if key in feature.measured]
    return tuple(found) if is_distribution(found, len(keys)) else ()
