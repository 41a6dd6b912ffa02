"""Label images, as cellpose, StarDist and this program write them."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.common.values import plain
from src.data.classes import name_classes
from src.data.masks import cell_pixels, count_in_pieces, read_mask
from src.formats.imported import (
    NOTE_PIECES,
    Imported,
    ImportSettings,
    Source,
    drop,
    files_in,
    note_turned_mask,
    read_matching,
    say_unread,
    with_readers,
)
from src.formats.places import LAYOUT, PICTURES, key_of, keyed, pair
from src.formats.readers.described import read_described
from src.geometry.instances import from_label_map

LABELS = re.compile(r"_(cp_masks|masks?|labels?)$", re.IGNORECASE)
NO_IMAGES = re.compile(r"_(flows|outlines|seg|cp_output)$", re.IGNORECASE)  # what cellpose leaves beside its masks
SEG_NPY = "_seg.npy"  # the ending of what cellpose's window saves


def import_labels(folder: Path, settings: ImportSettings) -> Source:
    """Label images: ``x_masks.png`` beside ``x.png``, or ``masks/x.tif`` for ``images/x.tif``.

    Their cells are of one class, but for those of this program's export, which say the class of each.
    """
    everything = files_in(folder)
    files = [path for path in everything if PICTURES.search(path.name) and not NO_IMAGES.search(path.stem)]
    labels, images = (
        keyed(
            [
                (key_of(folder, path, LABELS.sub("", path.stem) if of_labels else path.stem), path)
                for path in files
                if is_label(folder, path) == of_labels
            ],
            what,
        )
        for of_labels, what in ((True, "label image"), (False, "image"))
    )
    label_of = pair(images, labels)
    described = read_described(label_of.values())
    first = next(iter(described.values()), None)
    source = Source({}, first.classes if first else name_classes(["cell"]))
    for key, path in images.items():
        if key not in label_of:
            refuse_seg(path.with_name(path.stem + SEG_NPY))
            raise InputError(
                f"{path}: has no label image ({path.stem}_masks.tif beside it, or masks/{path.name});"
                " --from pairs takes other names"
            )

    def read(path: Path, label: Path) -> Imported:
        imported = read_labelled(path, label, source, settings)
        if label not in described:
            return imported
        return replace(imported, instances=described[label].classified(label, imported.instances))

    drop(source, "label image without an image", sorted(set(labels.values()) - set(label_of.values())))
    say_unread(source, everything, files)
    return with_readers(
        source,
        [(PurePath(*key), path, partial(read, path, label_of[key])) for key, path in images.items()],
    )


def read_labelled(path: Path, label: Path, source: Source, settings: ImportSettings) -> Imported:
    """An image with the cells of its label image."""
    found = read_mask(label, settings.split_pieces)
    note_turned_mask(label, source)
    pixels = read_matching(path, label, found.shape, source, settings)
    source.notes["label image with one id alone: is it a mask of 0 and 255?"] += int(found.max()) == 1
    source.notes[NOTE_PIECES] += count_in_pieces(cell_pixels(found))
    return Imported(pixels, from_label_map(found[None]))


def refuse_seg(path: Path) -> None:
    """Refuse a file of cellpose's where it is there: it holds a pickle and reading one runs whatever is in it."""
    if path.is_file():
        raise InputError(
            f"{path}: holds a pickle and is not read, since that could run any program; save the masks as TIFF or"
            f' PNG, or, if you trust the files, run in {path.parent}: python -c "import glob, numpy, tifffile;'
            f" [tifffile.imwrite(p[:-8] + '_masks.tif', numpy.load(p, None, True).item()['masks'])"
            f" for p in glob.glob('*{SEG_NPY}')]\""
        )


def is_label(folder: Path, path: Path) -> bool:
    """Whether a picture below a folder is a label image, by its own name or by that of a folder it lies in."""
    kinds = [part for part in map(plain, path.relative_to(folder).parts[:-1]) if part in LAYOUT]
    return bool(LABELS.search(path.stem)) or (bool(kinds) and kinds[-1] != "images")
