"""Readers of other formats. Each finds the images of a folder or file at once, and decodes them one by one."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
from src.common.values import plain
from src.data.classes import ANY_CLASS, HOMEWORK_CLASSES, name_classes
from src.data.masks import CellPixels, cell_pixels, connected_pieces, count_in_pieces, read_mask
from src.data.pictures import TIFF_SUFFIXES, open_mask, read_size
from src.formats.coco import import_coco
from src.formats.imagescope import draw_regions, read_regions
from src.formats.imported import (
    NOTE_PIECES,
    Imported,
    ImportSettings,
    Source,
    check_size,
    drop,
    files_in,
    note_turned_mask,
    read_matching,
    read_stored,
    say_unread,
    with_readers,
)
from src.formats.places import LAYOUT, PICTURES, Key, key_of, pair
from src.geometry.instances import Instance, from_label_map

SLIDES = (".svs", ".tif", ".tiff")  # of MoNuSAC, the first that is there
LABELS = re.compile(r"_(cp_masks|masks?|labels?)$", re.IGNORECASE)
NO_IMAGES = re.compile(r"_(flows|outlines|seg|cp_output)$", re.IGNORECASE)  # what cellpose leaves beside its masks
CONSEP_CLASSES = name_classes(["epithelial", "inflammatory", "spindle-shaped", "other"])
# The types of CoNSeP as the HoVer-Net paper merges them: other, inflammatory, healthy and malignant epithelial,
# fibroblast, muscle, endothelial.
CONSEP_MERGED = {1: 4, 2: 2, 3: 1, 4: 1, 5: 3, 6: 3, 7: 3}


def import_labels(folder: Path, settings: ImportSettings) -> Source:
    """Label images of one class: ``x_masks.png`` beside ``x.png``, or ``masks/x.tif`` for ``images/x.tif``."""
    everything = files_in(folder)
    files = [path for path in everything if PICTURES.search(path.name) and not NO_IMAGES.search(path.stem)]
    labels: dict[Key, Path] = {}
    images: dict[Key, Path] = {}
    for path in files:
        is_label = _is_label(folder, path)
        key = key_of(folder, path, LABELS.sub("", path.stem) if is_label else path.stem)
        chosen, what = (labels, "label image") if is_label else (images, "image")
        if key in chosen:
            raise InputError(f"{path}: is a second {what} of {key[-1]} beside {chosen[key]}")
        chosen[key] = path
    source = Source({}, name_classes(["cell"]))
    label_of = pair(images, labels)
    for key, path in images.items():
        if key not in label_of:
            raise InputError(f"{path}: has no label image ({path.stem}_masks.tif beside it, or masks/{path.name})")

    def read(path: Path, label: Path) -> Imported:
        found = read_mask(label, settings.split_pieces)
        note_turned_mask(label, source)
        pixels = read_matching(path, label, found.shape, source, settings)
        source.notes["label images with one id alone: are they masks of 0 and 255?"] += int(found.max()) == 1
        source.notes[NOTE_PIECES] += count_in_pieces(cell_pixels(found))
        return Imported(pixels, from_label_map(found[None]))

    drop(source, "label image without an image", sorted(set(labels.values()) - set(label_of.values())))
    say_unread(source, everything, files)
    return with_readers(
        source,
        [(PurePath(*key), path, partial(read, path, label_of[key])) for key, path in images.items()],
    )


def _is_label(folder: Path, path: Path) -> bool:
    """Whether a picture below a folder is a label image, by its own name or by that of a folder it lies in."""
    kinds = [part for part in map(plain, path.relative_to(folder).parts[:-1]) if part in LAYOUT]
    return bool(LABELS.search(path.stem)) or (bool(kinds) and kinds[-1] != "images")


def import_dsb2018(folder: Path, settings: ImportSettings) -> Source:
    """The layout of the Data Science Bowl 2018: ``<id>/images/<id>.png`` and one ``<id>/masks/*.png`` per nucleus."""
    source = Source({}, name_classes(["nucleus"]))
    everything = files_in(folder)
    masks_of: dict[Path, list[Path]] = {}
    images: dict[Path, Path] = {}
    for path in everything:
        kind, owner = plain(path.parent.name), path.parent.parent
        if not PICTURES.search(path.name) or path.parent == folder or owner == folder or kind not in LAYOUT:
            continue
        if kind != "images":
            masks_of.setdefault(owner, []).append(path)
        elif owner in images:
            raise InputError(f"{path}: is a second image in its folder beside {images[owner]}")
        else:
            images[owner] = path
    has_masks = {owner for owner in images if any(plain(p.name) in LAYOUT - {"images"} for p in owner.iterdir())}

    def read(image: Path, masks: Sequence[Path]) -> Imported:
        instances: list[Instance] = []
        sizes = []
        for path in masks:
            cells = _read_nucleus(path)
            sizes.append(cells.shape)
            note_turned_mask(path, source)
            in_pieces = count_in_pieces(cells)
            source.notes[NOTE_PIECES] += in_pieces if not settings.split_pieces else 0
            cells = connected_pieces(cells) if settings.split_pieces else cells
            source.dropped["empty mask"] += not len(cells.ids)
            instances += from_label_map(cells.to_mask()[None])
        first = masks[0] if masks else image
        pixels = read_matching(image, first, sizes[0] if masks else read_size(image), source, settings)
        for path, size in zip(masks, sizes, strict=True):
            check_size(path, size, pixels)
        return Imported(pixels, instances)

    found = {owner: image for owner, image in images.items() if owner in has_masks}
    drop(source, "image without a folder of masks", [path for owner, path in images.items() if owner not in found])
    masks = [path for owner, paths in masks_of.items() if owner in found for path in paths]
    say_unread(source, everything, [*images.values(), *masks])
    return with_readers(
        source,
        [
            (owner.relative_to(folder), image, partial(read, image, masks_of.get(owner, [])))
            for owner, image in found.items()
        ],
    )


def _read_nucleus(path: Path) -> CellPixels:
    """A mask of one nucleus, of any colours but black, as one cell."""
    mask = read_mask(path) if path.suffix.lower() in TIFF_SUFFIXES else np.asarray(open_mask(path).convert("L"))
    return cell_pixels(mask > 0)


def import_consep(folder: Path, settings: ImportSettings) -> Source:
    """CoNSeP as it is published: ``Images/x.png`` and ``Labels/x.mat`` with ``inst_map`` and ``inst_type``."""
    source = Source({}, CONSEP_CLASSES)
    everything = files_in(folder)
    of_folder = [(plain(path.parent.name), path) for path in everything if path.parent != folder]
    labels = {
        key_of(folder, path, path.stem): path
        for kind, path in of_folder
        if kind == "labels" and path.suffix.lower() == ".mat"
    }
    images = {
        key_of(folder, path, path.stem): path
        for kind, path in of_folder
        if kind == "images" and path.suffix.lower() == ".png"
    }

    def read(path: Path, image: Path) -> Imported:
        ids, types = _read_mat(path)
        pixels = read_matching(image, path, ids.shape, source, settings)
        instances = [
            replace(instance, class_id=CONSEP_MERGED[types[int(_value(ids, instance))]])
            for instance in from_label_map(ids[None])
        ]
        return Imported(pixels, instances)

    image_of = pair(labels, images)
    for key, path in labels.items():
        if key not in image_of:
            raise InputError(f"{path}: has no image ({path.parents[1] / 'Images' / path.stem}.png)")
    drop(source, "image without a .mat file", sorted(set(images.values()) - set(image_of.values())))
    say_unread(source, everything, [*labels.values(), *images.values()])
    return with_readers(
        source, [(PurePath(*key), path, partial(read, path, image_of[key])) for key, path in labels.items()]
    )


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


IMPORTERS: Mapping[str, Callable[[Path, ImportSettings], Source]] = {
    "monusac": import_monusac,
    "consep": import_consep,
    "coco": import_coco,
    "labels": import_labels,
    "dsb2018": import_dsb2018,
}
