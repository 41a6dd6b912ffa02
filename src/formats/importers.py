"""The formats that can be read."""

from collections.abc import Callable, Mapping
from pathlib import Path

from src.formats.imported import ImportSettings, Source
from src.formats.readers.coco import import_coco
from src.formats.readers.consep import import_consep
from src.formats.readers.dsb2018 import import_dsb2018
from src.formats.readers.geojson import import_geojson
from src.formats.readers.labelme import import_labelme
from src.formats.readers.labels import import_labels
from src.formats.readers.mat import import_mat
from src.formats.readers.monusac import import_monusac
from src.formats.readers.monuseg import import_monuseg
from src.formats.readers.pairs import import_pairs
from src.formats.readers.pannuke import import_pannuke
from src.formats.readers.supervisely import import_supervisely
from src.formats.readers.via import import_via

# Each finds the images of a folder or file at once, and decodes them one by one.
IMPORTERS: Mapping[str, Callable[[Path, ImportSettings], Source]] = {
    "monusac": import_monusac,
    "monuseg": import_monuseg,
    "consep": import_consep,
    "mat": import_mat,
    "pannuke": import_pannuke,
    "coco": import_coco,
    "labels": import_labels,
    "pairs": import_pairs,
    "dsb2018": import_dsb2018,
    "geojson": import_geojson,
    "labelme": import_labelme,
    "via": import_via,
    "supervisely": import_supervisely,
}
