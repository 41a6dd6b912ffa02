"""Readers of other formats. Each finds the images of a folder or file at once, and decodes them one by one."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.data.classes import ANY_CLASS, HOMEWORK_CLASSES, name_classes
from src.data.masks import cell_pixels, count_in_pieces, read_mask
from src.data.pictures import open_picture, read_picture, read_size
from src.formats.coco import import_coco
from src.formats.imagescope import draw_regions, read_regions
from src.formats.imported import (
    PICTURES,
    Imported,
    ImportSettings,
    Source,
    add,
    check_size,
    files_in,
    read_matching,
    with_suffix,
)
from src.geometry.instances import Instance, from_label_map

LABELS = re.compile(r"_(cp_masks|masks?|labels?)$", re.IGNORECASE)
NO_IMAGES = re.compile(r"_(flows|outlines|seg|cp_output)$", re.IGNORECASE)  # what cellpose leaves beside its masks
CONSEP_CLASSES = name_classes(["epithelial", "inflammatory", "spindle-shaped", "other"])
# The types of CoNSeP as the HoVer-Net paper merges them: other, inflammatory, healthy and malignant epithelial,
# fibroblast, muscle, endothelial.
CONSEP_MERGED = {1: 4, 2: 2, 3: 1, 4: 1, 5: 3, 6: 3, 7: 3}


def import_labels(folder: Path, settings: ImportSettings) -> Source:
    """Label images of one class: ``x_masks.png`` beside ``x.png``, or ``masks/x.tif`` for ``images/x.tif``."""
    files = [path for path in files_in(folder) if PICTURES.search(path.name) and not NO_IMAGES.search(path.stem)]
    labels: dict[str, Path] = {}
    for path in filter(partial(_is_label, folder), files):
        name = LABELS.sub("", path.stem)
        if name in labels:
            raise InputError(f"{path}: is a second label image of {name} beside {labels[name]}")
        labels[name] = path
    source = Source({}, name_classes(["cell"]))
    readers: dict[str, Callable[[], Imported]] = {}
    for path in sorted(set(files) - set(labels.values())):
        if path.stem not in labels:
            raise InputError(f"{path}: has no label image ({path.stem}_masks.tif beside it, or masks/{path.name})")

        def read(path: Path = path, label: Path = labels[path.stem]) -> Imported:
            found = read_mask(label, settings.split_pieces)
            pixels = read_matching(path, label, found.shape, source, settings)
            source.notes["label images with one id alone: are they masks of 0 and 255?"] += int(found.max()) == 1
            source.notes["cells in several pieces; --split-pieces makes each piece a cell"] += count_in_pieces(
                cell_pixels(found)
            )
            return Imported(pixels, from_label_map(found[None]))

        add(readers, path.stem, path, read)
    source.dropped["label image without an image"] = len(labels.keys() - readers.keys())
    return replace(source, readers=readers)


def _is_label(folder: Path, path: Path) -> bool:
    """Whether a picture below a folder is a label image, by its own name or by that of the folder it lies in."""
    parents = path.relative_to(folder).parts[-2:-1]
    return bool(LABELS.search(path.stem)) or parents in (("masks",), ("labels",))


def import_dsb2018(folder: Path, settings: ImportSettings) -> Source:
    """The layout of the Data Science Bowl 2018: ``<id>/images/<id>.png`` and one ``<id>/masks/*.png`` per nucleus."""
    source = Source({}, name_classes(["nucleus"]))
    readers: dict[str, Callable[[], Imported]] = {}
    for image in files_in(folder, "images/*"):
        if not PICTURES.search(image.name) or image.parents[1] == folder:
            continue
        if not (image.parents[1] / "masks").is_dir():
            source.dropped["image without a folder of masks"] += 1
            continue

        def read(image: Path = image) -> Imported:
            masks = {
                path: np.asarray(open_picture(path).convert("L")) > 0
                for path in files_in(image.parents[1] / "masks")
                if PICTURES.search(path.name)
            }
            instances = []
            for mask in masks.values():
                found = from_label_map(mask[None].astype(np.int32))
                source.dropped["empty mask"] += not found
                instances += found
            first = next(iter(masks), image)
            size = masks[first].shape if masks else read_size(image)
            pixels = read_matching(image, first, size, source, settings)
            for path, mask in masks.items():
                check_size(path, mask.shape, pixels)
            return Imported(pixels, instances)

        add(readers, image.parents[1].name, image, read)
    return replace(source, readers=readers)


def import_consep(folder: Path, settings: ImportSettings) -> Source:
    """CoNSeP as it is published: ``Images/x.png`` and ``Labels/x.mat`` with ``inst_map`` and ``inst_type``."""
    source = Source({}, CONSEP_CLASSES)
    readers: dict[str, Callable[[], Imported]] = {}
    for path in files_in(folder, "Labels/*"):
        if path.suffix.lower() != ".mat":
            continue
        plain = path.parents[1] / "Images" / f"{path.stem}.png"
        image = with_suffix(plain, [".png"]) or plain

        def read(path: Path = path, image: Path = image) -> Imported:
            labels, types = _read_mat(path)
            pixels = read_matching(image, path, labels.shape, source, settings)
            instances = [
                replace(instance, class_id=CONSEP_MERGED[types[int(_value(labels, instance))]])
                for instance in from_label_map(labels[None])
            ]
            return Imported(pixels, instances)

        add(readers, path.stem, path, read)
    return replace(source, readers=readers)


def _value(labels: np.ndarray, instance: Instance) -> int:
    rows, columns = np.nonzero(instance.mask)
    return int(labels[instance.top + rows[0], instance.left + columns[0]])


def _read_mat(path: Path) -> tuple[np.ndarray, dict[int, int]]:
    """``inst_map`` as int32 and the type of each id; ``inst_type`` holds one for each id that occurs, ascending."""
    from scipy.io import loadmat, whosmat

    try:
        for name, shape, _ in whosmat(path):
            if name in ("inst_map", "inst_type"):
                check_pixels(f"{path}: its {name}", shape[0], math.prod(shape[1:]))
        found = loadmat(path, variable_names=["inst_map", "inst_type"])
        labels, types = found["inst_map"].astype(np.int32), found["inst_type"].astype(int).ravel()
    except InputError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise InputError(f"{path}: cannot be read as CoNSeP labels ({type(error).__name__}: {error})") from error
    ids = np.unique(labels[labels > 0])
    if len(ids) != len(types) or not set(types.tolist()) <= CONSEP_MERGED.keys():
        raise InputError(f"{path}: holds {len(ids)} nuclei and {len(types)} types of 1 to 7")
    return labels, dict(zip(ids.tolist(), types.tolist(), strict=True))


def import_monusac(folder: Path, settings: ImportSettings) -> Source:
    """MoNuSAC: ``x.svs`` or ``x.tif`` with ``x.xml``, whose annotations name the class of the regions drawn in them."""
    source = Source({}, HOMEWORK_CLASSES)
    numbers = {cell_class.name: cell_class.id for cell_class in HOMEWORK_CLASSES} | {"ambiguous": ANY_CLASS}
    readers: dict[str, Callable[[], Imported]] = {}
    for xml in files_in(folder):
        if xml.suffix.lower() != ".xml":
            continue
        image = with_suffix(xml, [".svs", ".tif", ".tiff"])
        if image is None:
            raise InputError(f"{xml}: has neither an .svs nor a .tif image beside it")

        def read(xml: Path = xml, image: Path = image) -> Imported:
            pixels = read_picture(image, settings.intensity)
            height, width = pixels.shape[:2]
            return Imported(pixels, draw_regions(read_regions(xml), numbers, height, width, source.dropped))

        add(readers, xml.stem, xml, read)
    return replace(source, readers=readers)


IMPORTERS: Mapping[str, Callable[[Path, ImportSettings], Source]] = {
    "monusac": import_monusac,
    "consep": import_consep,
    "coco": import_coco,
    "labels": import_labels,
    "dsb2018": import_dsb2018,
}
