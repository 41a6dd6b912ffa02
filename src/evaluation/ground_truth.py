"""Load ground truth for scoring from a folder of masks or from a COCO JSON file."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.common.errors import InputError
from src.common.files import is_system_file, read_json
from src.data.classes import ANY_CLASS, UNKNOWN_CLASS, CellClass
from src.data.id_map import ImageId, read_id_map, refuse_repeats
from src.data.masks import read_mask
from src.data.records import find_ambiguous, find_masks, read_record
from src.evaluation.coco_truth import read_coco, with_class_ids
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, from_label_map, tight


@dataclass(frozen=True)
class TruthSettings:
    """How ground truth is read.

    ``classes`` are the classes 1..K, which a COCO file's categories are matched with by name; without them by id. With
    ``split_pieces`` each connected piece of a mask's id is a cell. ``crowds`` tells what COCO's crowd annotations are,
    one of :data:`src.evaluation.crowds.CROWDS`. A match that is not by name, and crowds, are said on stderr.
    """

    classes: Sequence[CellClass] | None = None
    split_pieces: bool = False
    crowds: str = "auto"


def load_ground_truth(
    path: str | Path,
    class_count: int,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
    settings: TruthSettings = TruthSettings(),
) -> list[ImageTruth]:
    """Load the true objects of every image that is to be scored.

    Args:
        path: a folder ``<name>/class1.tif … classK.tif``, with or without ``image.tif``, or a COCO JSON file whose
            segmentations are RLE (compressed or not) or polygons.
        class_count: K, without the background.
        id_map: path of the id map; it chooses the images and gives their ids. Without it a COCO file's own ids hold,
            and those of a folder are 1..N in the order of the names.
        names: only these images (file names without ``.tif``, or folder names).
        settings: how files are read.

    Raises:
        InputError: an image of the id map or of ``names`` that is not there, a size other than the id map's, or a
            file that is damaged or malformed.
    """
    path, entries = Path(path), None
    if id_map is not None:
        entries = [entry for entry in read_id_map(id_map) if names is None or entry.name in names]
        _require(names or (), {entry.name for entry in entries}, f"{id_map}: has no id for")
        names = [entry.name for entry in entries]
    if names is not None and not names:
        raise InputError(f"{path}: no image is left to score, because the split's part or the id map names none")
    if path.is_dir():
        sizes = {entry.name: (entry.height, entry.width) for entry in entries or ()}
        truths = _read_folder(path, class_count, names, sizes, settings.split_pieces)
    else:
        data = read_json(path)
        data = with_class_ids(data, settings.classes, path) if settings.classes else data
        truths, note = read_coco(data, path, class_count, settings.crowds)
        if note:
            print(f"{path}: {note}", file=sys.stderr)
        truths = _select(truths, names, path)
    return truths if entries is None else _renumber(truths, entries, id_map)


def _require(names: Collection[str], known: Collection[str], problem: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{problem} {name}")


def _renumber(truths: Sequence[ImageTruth], entries: Sequence[ImageId], id_map: str | Path | None) -> list[ImageTruth]:
    """The ground truth with the ids of the id map, in its order."""
    by_name = {truth.name: truth for truth in truths}
    for entry in entries:
        truth = by_name[entry.name]
        if (truth.height, truth.width) != (entry.height, entry.width):
            raise InputError(
                f"{id_map}: says that {entry.file_name} is {entry.height} x {entry.width} px, but its ground truth"
                f" is {truth.height} x {truth.width} px"
            )
    return [replace(by_name[entry.name], id=entry.id, file_name=entry.file_name) for entry in entries]


def _read_folder(
    path: Path,
    class_count: int,
    names: Collection[str] | None,
    sizes: Mapping[str, tuple[int, int]],
    split_pieces: bool,
) -> list[ImageTruth]:
    """Read masks; ``sizes`` serves the images that have neither a mask nor ``image.tif``."""
    folders = {folder.name: folder for folder in path.iterdir() if folder.is_dir() and not is_system_file(folder.name)}
    if not folders:
        raise InputError(f"{path}: holds no folders of masks (<name>/class1.tif …)")
    _require(names or (), folders, f"{path}: has no ground truth for")
    chosen = sorted(folders if names is None else names)
    has_images = any(path.glob("*/[iI]mage.tif*"))
    list_masks = _masks_and_size if has_images else _masks_alone
    return [
        _read_image(folders[name], *list_masks(folders[name], class_count), sizes, number, split_pieces)
        for number, name in enumerate(chosen, start=1)
    ]


def _masks_and_size(folder: Path, class_count: int) -> tuple[dict[int, Path], tuple[int, int] | None]:
    """The masks of an image by class id, and its size, which ``image.tif`` tells."""
    record = read_record(folder, class_count, check_masks=False)
    return record.masks, (record.height, record.width)


def _masks_alone(folder: Path, class_count: int) -> tuple[dict[int, Path], tuple[int, int] | None]:
    """The masks by class id in a folder without the image, whose size they tell."""
    names = sorted(path.name for path in folder.iterdir())
    return {class_id: folder / name for class_id, name in find_masks(folder, names, class_count).items()}, None


def _read_image(
    folder: Path,
    masks: Mapping[int, Path],
    size: tuple[int, int] | None,
    sizes: Mapping[str, tuple[int, int]],
    number: int,
    split_pieces: bool,
) -> ImageTruth:
    instances: list[Instance] = []
    ignored: list[Instance] = []
    for class_id, mask_path in masks.items():
        mask = read_mask(mask_path, split_pieces)
        size = size or mask.shape
        if mask.shape != size:
            height, width = mask.shape
            raise InputError(f"{mask_path}: is {height} x {width} px, but its image is {size[0]} x {size[1]} px")
        cells = from_label_map(mask[None])
        if class_id == UNKNOWN_CLASS:  # a detection of such a cell is neither right nor wrong, whatever its class
            ignored += [replace(cell, class_id=ANY_CLASS) for cell in cells]
        else:
            instances += [replace(cell, class_id=class_id) for cell in cells]
    size = size or sizes.get(folder.name)
    if size is None:
        raise InputError(f"{folder}: holds neither a mask nor image.tif, so its size is unknown; pass --id-map")
    ignored += _read_ambiguous(folder, size)
    return ImageTruth(number, f"{folder.name}.tif", *size, instances, ignored)


def _read_ambiguous(folder: Path, size: tuple[int, int]) -> list[Instance]:
    """What ``ambiguous.tif`` covers, as one region of any class, so that its ids do not divide a detection."""
    name = find_ambiguous(folder, sorted(path.name for path in folder.iterdir()))
    if name is None:
        return []
    mask = read_mask(folder / name)
    if mask.shape != size:
        height, width = mask.shape
        raise InputError(f"{folder / name}: is {height} x {width} px, but its image is {size[0]} x {size[1]} px")
    region = tight(ANY_CLASS, 1.0, 0, 0, mask > 0)
    return [region] if region else []


def _select(truths: list[ImageTruth], names: Collection[str] | None, path: Path) -> list[ImageTruth]:
    """The images of these names, in their order; all without any."""
    by_name = {truth.name: truth for truth in truths}
    if names is not None:
        refuse_repeats((truth.name for truth in truths), f"{path}: image")
    _require(names or (), by_name, f"{path}: has no ground truth for")
    return truths if names is None else [by_name[name] for name in names]
