"""CoNSeP as it is published, in MATLAB files."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from src.common.errors import InputError
from src.common.limits import check_pixels
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
from src.formats.places import key_of, pair
from src.geometry.instances import Instance, from_label_map

CONSEP_CLASSES = name_classes(["epithelial", "inflammatory", "spindle-shaped", "other"])
# The types of CoNSeP as the HoVer-Net paper merges them: other, inflammatory, healthy and malignant epithelial,
# fibroblast, muscle, endothelial.
CONSEP_MERGED = {1: 4, 2: 2, 3: 1, 4: 1, 5: 3, 6: 3, 7: 3}


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
