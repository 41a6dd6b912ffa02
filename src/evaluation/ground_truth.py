"""Load ground truth for scoring from a folder of masks or from a COCO JSON file."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.common.errors import InputError
from src.common.files import read_json
from src.data.classes import ANY_CLASS, UNKNOWN_CLASS, CellClass
from src.data.folders import named_folders, subfolders
from src.data.id_map import ImageId, read_id_map
from src.data.masks import count_in_pieces, read_cells, read_mask
from src.data.names import ImageNames
from src.data.pictures import read_header_of
from src.data.prepared import pieces_warnings
from src.data.records import ImageFiles, files_of, size_as_read, unread_warnings
from src.evaluation.categories import FileIds
from src.evaluation.coco_truth import names_in, read_coco, with_class_ids, with_sizes
from src.evaluation.image_truth import ImageTruth
from src.geometry.instances import Instance, from_label_map, tight


@dataclass(frozen=True)
class TruthSettings:
    """How ground truth is read.

    ``classes`` are the classes 1..K, which a COCO file's categories are matched with by name; without them by id. With
    ``split_pieces`` each connected piece of a mask's id is a cell. ``crowds`` tells what COCO's crowd annotations are,
    one of :data:`src.evaluation.crowds.CROWDS`. A match that is not by name, crowds, and what is left out are said on
    stderr; with ``checks_folder`` also files of a folder that are not read, and cells in several pieces.
    """

    classes: Sequence[CellClass] | None = None
    split_pieces: bool = False
    crowds: str = "auto"
    checks_folder: bool = False


@dataclass(frozen=True)
class GroundTruth:
    """The images that are to be scored, and the category ids of the COCO file, where it is one."""

    images: list[ImageTruth]
    file_ids: FileIds = field(default_factory=FileIds)


def load_ground_truth(
    path: str | Path,
    class_count: int,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
    settings: TruthSettings = TruthSettings(),
) -> list[ImageTruth]:
    """The images of :func:`read_ground_truth`, where no results can tell sizes."""
    return read_ground_truth(path, class_count, id_map, names, settings).images


def read_ground_truth(
    path: str | Path,
    class_count: int,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
    settings: TruthSettings = TruthSettings(),
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> GroundTruth:
    """Load the true objects of every image that is to be scored.

    Args:
        path: a folder ``<name>/class1.tif … classK.tif``, with or without an image, or a COCO JSON file whose
            segmentations are RLE (compressed or not) or polygons.
        class_count: K, without the background.
        id_map: path of the id map; it chooses the images and gives their ids. Without it a COCO file's own ids hold,
            and those of a folder are 1..N in the order of the names.
        names: only these images (file names with or without their ending, or folder names).
        settings: how files are read.
        sizes: (H, W) of images by the ids of results, for a COCO file that does not tell them.

    Raises:
        InputError: an image of the id map or of ``names`` that is not there, a size other than the id map's, or a
            file that is damaged or malformed.
    """
    path, entries = Path(path), None
    if id_map is not None:
        entries = _chosen(read_id_map(id_map), names, id_map)
        names = [entry.file_name for entry in entries]
    if names is not None and not names:
        raise InputError(f"{path}: no image is left to score, because the split's part or the id map names none")
    if path.is_dir():
        truth = GroundTruth(_read_folder(path, class_count, names, entries, settings))
    else:
        truth = _read_coco_file(path, class_count, names, entries, settings, sizes or {})
    return truth if entries is None else replace(truth, images=_renumber(truth.images, entries, id_map))


def _chosen(entries: list[ImageId], names: Collection[str] | None, id_map: str | Path) -> list[ImageId]:
    """The entries of an id map that have one of the names, in their order; all without names."""
    if names is None:
        return entries
    places = ImageNames(entry.name for entry in entries).find_all(names, id_map, "has no id for")
    return [entries[place] for place in sorted(places)]


def _renumber(truths: Sequence[ImageTruth], entries: Sequence[ImageId], id_map: str | Path | None) -> list[ImageTruth]:
    """The ground truth of the images of an id map, in its order, with its ids."""
    for truth, entry in zip(truths, entries, strict=True):
        if (truth.height, truth.width) != (entry.height, entry.width):
            raise InputError(
                f"{id_map}: says that {entry.file_name} is {entry.height} x {entry.width} px, but its ground truth"
                f" is {truth.height} x {truth.width} px"
            )
    return [
        replace(truth, id=entry.id, file_name=entry.file_name) for truth, entry in zip(truths, entries, strict=True)
    ]


def _read_coco_file(
    path: Path,
    class_count: int,
    names: Collection[str] | None,
    entries: Sequence[ImageId] | None,
    settings: TruthSettings,
    sizes: Mapping[int, tuple[int, int]],
) -> GroundTruth:
    data, file_ids, note = read_json(path), FileIds(), ""
    if settings.classes:
        data, file_ids, note = with_class_ids(data, settings.classes, path)
    found = read_coco(with_sizes(data, entries, sizes, path), path, class_count, settings.crowds)
    for line in [*filter(None, [note]), *(f"{path}: {line}" for line in found.lines())]:
        print(line, file=sys.stderr)
    if names is None:
        return GroundTruth(found.images, file_ids)
    known = names_in([image.file_name for image in found.images])
    places = known.find_all(names, path, "has no ground truth for")
    return GroundTruth([found.images[place] for place in places], file_ids)


def _read_folder(
    path: Path,
    class_count: int,
    names: Collection[str] | None,
    entries: Sequence[ImageId] | None,
    settings: TruthSettings,
) -> list[ImageTruth]:
    """Read masks, in the order of the id map's ``entries``, or else of the folders' names.

    The entries give the sizes of images that have neither a mask nor ``image.tif``.
    """
    listed = [folder.name for folder in subfolders(path)]
    if not listed:
        raise InputError(f"{path}: holds no folders of masks (<name>/class1.tif …)")
    folders = list(named_folders(path, listed).items())
    if names is not None:
        places = ImageNames(name for name, _ in folders).find_all(names, path, "has no ground truth for")
        folders = [folders[place] for place in (sorted(places) if entries is None else places)]
    images = [files_of(folder, class_count, needs_image=False, name=name) for name, folder in folders]
    sizes = [(entry.height, entry.width) for entry in entries] if entries else [None] * len(images)
    truths, in_pieces = [], 0
    for number, (files, size) in enumerate(zip(images, sizes, strict=True), start=1):
        truth, pieces = _read_image(files, size, number, settings)
        truths.append(truth)
        in_pieces += pieces
    if settings.checks_folder:
        cells = sum(len(truth.instances) for truth in truths)
        for line in [*unread_warnings(images), *pieces_warnings(in_pieces, cells)]:
            print(line, file=sys.stderr)
    return truths


def _read_image(
    files: ImageFiles, known_size: tuple[int, int] | None, number: int, settings: TruthSettings
) -> tuple[ImageTruth, int]:
    """The ground truth of one folder, and with ``checks_folder`` how many cells lie in several pieces."""
    folder, size = files.folder, None
    if files.image_name:
        size = size_as_read(files, read_header_of(folder / files.image_name))
    instances: list[Instance] = []
    ignored: list[Instance] = []
    in_pieces = 0
    for class_id, name in files.mask_names.items():
        pixels = read_cells(folder / name, settings.split_pieces)
        size = size or pixels.shape
        _check_size(folder / name, pixels.shape, size)
        cells = from_label_map(pixels.to_mask()[None])
        if class_id == UNKNOWN_CLASS:  # a detection of such a cell is neither right nor wrong, whatever its class
            ignored += [replace(cell, class_id=ANY_CLASS) for cell in cells]
        else:
            instances += [replace(cell, class_id=class_id) for cell in cells]
            in_pieces += count_in_pieces(pixels) if settings.checks_folder else 0
    size = size or known_size
    if size is None:
        raise InputError(f"{folder}: holds neither a mask nor image.tif, so its size is unknown; pass --id-map")
    if files.ambiguous:
        ignored += _read_ambiguous(folder / files.ambiguous, size)
    return ImageTruth(number, f"{files.name}.tif", *size, instances, ignored), in_pieces


def _read_ambiguous(path: Path, size: tuple[int, int]) -> list[Instance]:
    """What ``ambiguous.tif`` covers, as one region of any class, so that its ids do not divide a detection."""
    mask = read_mask(path)
    _check_size(path, mask.shape, size)
    region = tight(ANY_CLASS, 1.0, 0, 0, mask > 0)
    return [region] if region else []


def _check_size(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    if shape != size:
        raise InputError(f"{path}: is {shape[0]} x {shape[1]} px, but its image is {size[0]} x {size[1]} px")
