"""CoNSeP as it is published, in MATLAB files."""

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.common.values import plain
from src.data.classes import name_classes
from src.formats.imported import (
    Imported,
    ImportSettings,
    Source,
    drop,
    files_in,
    read_matching,
    say_unread,
    with_readers,
)
from src.formats.places import key_of, keyed, pair
from src.formats.readers.matlab import load_variables, nuclei_of
from src.geometry.instances import Instance

CONSEP_CLASSES = name_classes(["epithelial", "inflammatory", "spindle-shaped", "other"])
# The types of CoNSeP as the HoVer-Net paper merges them: other, inflammatory, healthy and malignant epithelial,
# fibroblast, muscle, endothelial.
CONSEP_MERGED = {1: 4, 2: 2, 3: 1, 4: 1, 5: 3, 6: 3, 7: 3}


def import_consep(folder: Path, settings: ImportSettings) -> Source:
    """CoNSeP as it is published: ``Images/x.png`` and ``Labels/x.mat`` with ``inst_map`` and ``inst_type``."""
    source = Source({}, CONSEP_CLASSES)
    everything = files_in(folder)
    labels, images = (
        keyed(
            [
                (key_of(folder, path, path.stem), path)
                for path in everything
                if path.parent != folder and plain(path.parent.name) == kind and path.suffix.lower() == suffix
            ],
            what,
        )
        for kind, suffix, what in (("labels", ".mat", ".mat file"), ("images", ".png", "image"))
    )

    def read(path: Path, image: Path) -> Imported:
        instances, size = _read_mat(path)
        return Imported(read_matching(image, path, size, source, settings), instances)

    image_of = pair(labels, images)
    for key, path in labels.items():
        if key not in image_of:
            raise InputError(f"{path}: has no image ({path.parents[1] / 'Images' / path.stem}.png)")
    drop(source, "image without a .mat file", sorted(set(images.values()) - set(image_of.values())))
    say_unread(source, everything, [*labels.values(), *images.values()])
    return with_readers(
        source, [(PurePath(*key), path, partial(read, path, image_of[key])) for key, path in labels.items()]
    )


def _read_mat(path: Path) -> tuple[list[Instance], tuple[int, int]]:
    """The nuclei of a file and the (H, W) of its image; ``inst_type`` holds a type for each id, ascending."""
    found = load_variables(path, ("inst_map", "inst_type"))
    nuclei, types = nuclei_of(found["inst_map"], path), found["inst_type"].ravel().tolist()
    if len(nuclei.ids) != len(types) or not set(types) <= CONSEP_MERGED.keys():
        raise InputError(f"{path}: holds {len(nuclei.ids)} nuclei and {len(types)} types of 1 to 7")
    instances = [
        replace(nucleus, class_id=CONSEP_MERGED[kind]) for nucleus, kind in zip(nuclei.instances, types, strict=True)
    ]
    return instances, nuclei.pixels.shape
