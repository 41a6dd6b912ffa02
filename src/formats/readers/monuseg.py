"""MoNuSeg: images with ImageScope's regions, all of which are nuclei."""

from collections.abc import Sequence
from pathlib import Path

from src.data.classes import name_classes
from src.formats.imported import ImportSettings, Source
from src.formats.readers.imagescope import Region, import_regions

IMAGES = (".tif", ".tiff", ".svs", ".png")
NOTE_LAYERS = "XML file with regions in several layers, all of which are read as nuclei"


def import_monuseg(folder: Path, settings: ImportSettings) -> Source:
    """MoNuSeg: ``Annotations/x.xml`` with an image ``Tissue Images/x.tif``, or both in one folder, as one class."""
    source = Source({}, name_classes(["nucleus"]))

    def numbers_of(regions: Sequence[Region]) -> dict[str, int]:
        source.notes[NOTE_LAYERS] += len({region.layer for region in regions}) > 1
        return dict.fromkeys((region.class_name for region in regions), 1)

    return import_regions(folder, IMAGES, numbers_of, source, settings)
