"""The layout of the Data Science Bowl 2018: one mask per nucleus."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.values import plain
from src.data.classes import name_classes
from src.data.masks import CellPixels, cell_pixels, connected_pieces, count_in_pieces, read_mask
from src.data.pictures import TIFF_SUFFIXES, open_mask, read_size
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
    say_unread,
    with_readers,
)
from src.formats.places import LAYOUT, PICTURES
from src.geometry.instances import Instance, from_label_map


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
