"""MoNuSAC: slides with ImageScope's regions."""

from pathlib import Path

from src.data.classes import ANY_CLASS, HOMEWORK_CLASSES
from src.formats.imported import ImportSettings, Source
from src.formats.readers.imagescope import import_regions

SLIDES = (".svs", ".tif", ".tiff")  # the first that is there


def import_monusac(folder: Path, settings: ImportSettings) -> Source:
    """MoNuSAC: ``x.svs`` or ``x.tif`` with ``x.xml``, whose annotations name the class of the regions drawn in them."""
    numbers = {cell_class.name: cell_class.id for cell_class in HOMEWORK_CLASSES} | {"ambiguous": ANY_CLASS}
    return import_regions(folder, SLIDES, lambda _: numbers, Source({}, HOMEWORK_CLASSES), settings)
