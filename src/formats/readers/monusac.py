"""MoNuSAC: slides with ImageScope's regions."""

from functools import partial
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.data.classes import ANY_CLASS, HOMEWORK_CLASSES
from src.formats.imported import Imported, ImportSettings, Source, drop, files_in, read_stored, say_unread, with_readers
from src.formats.places import key_of, pair
from src.formats.readers.imagescope import draw_regions, read_regions

SLIDES = (".svs", ".tif", ".tiff")  # the first that is there


def import_monusac(folder: Path, settings: ImportSettings) -> Source:
    """MoNuSAC: ``x.svs`` or ``x.tif`` with ``x.xml``, whose annotations name the class of the regions drawn in them."""
    source = Source({}, HOMEWORK_CLASSES)
    numbers = {cell_class.name: cell_class.id for cell_class in HOMEWORK_CLASSES} | {"ambiguous": ANY_CLASS}
    everything = files_in(folder)
    files = {
        suffix: {key_of(folder, path, path.stem): path for path in everything if path.suffix.lower() == suffix}
        for suffix in (".xml", *SLIDES)
    }
    waiting, image_of = dict(files[".xml"]), {}
    for suffix in SLIDES:
        found = pair(waiting, files[suffix])
        image_of.update(found)
        waiting = {key: xml for key, xml in waiting.items() if key not in found}
    for xml in waiting.values():
        raise InputError(f"{xml}: has neither an .svs nor a .tif image beside it")

    def read(xml: Path, image: Path) -> Imported:
        pixels = read_stored(image, source, settings)
        height, width = pixels.shape[:2]
        return Imported(pixels, draw_regions(read_regions(xml), numbers, height, width, source.dropped))

    images = [path for suffix in SLIDES for path in files[suffix].values()]
    drop(source, "image without an .xml file", sorted(set(images) - set(image_of.values())))
    say_unread(source, everything, [*files[".xml"].values(), *images])
    return with_readers(
        source, [(PurePath(*key), xml, partial(read, xml, image_of[key])) for key, xml in files[".xml"].items()]
    )
