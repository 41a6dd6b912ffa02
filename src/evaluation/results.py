"""The results file and the submission zip in COCO's format, and checks of them; ``rle`` encodes their masks."""

import sys
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr
from typing import Any

from src.common.errors import InputError
from src.common.files import read_json, replacing, write_json
from src.common.values import integer
from src.data.id_map import ImageId
from src.evaluation.probabilities import is_distribution
from src.evaluation.rle import RleError, decode_entries, decompress, encode
from src.evaluation.segmentations import plain_size
from src.geometry.instances import Instance

RESULTS_NAME = "test-results.json"


def result_entries(image_id: int, instances: Sequence[Instance], height: int, width: int) -> list[dict[str, Any]]:
    """The result entries of one image, JSON-ready; ``bbox`` is the tight box [x, y, w, h] of the mask in px."""
    return [
        {
            "image_id": int(image_id),
            "category_id": int(instance.class_id),
            "bbox": [int(instance.left), int(instance.top), instance.mask.shape[1], instance.mask.shape[0]],
            "score": float(instance.score),
            "segmentation": segmentation,
        }
        for instance, segmentation in zip(instances, encode(instances, height, width), strict=True)
    ]


def check_results(entries: Sequence[Any], id_map: Sequence[ImageId], class_count: int, source: str = "results") -> None:
    """Check result entries against the images they belong to, ``category_id`` being in 1..class_count.

    Raises:
        InputError: names ``source``, the index of the entry and what is wrong with it.
    """
    sizes = {image.id: [image.height, image.width] for image in id_map}
    for index, entry in enumerate(entries):
        fault = _fault(entry, sizes, class_count)
        if fault:
            raise InputError(f"{source}: entry {index}: {fault}")
    try:
        decompress([entry["segmentation"] for entry in entries])
    except RleError as error:
        raise InputError(f"{source}: entry {error.index}: {error}") from error


def write_results(path: str | Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write a results file (a JSON list of entries) atomically."""
    write_json(path, list(entries))


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Read a results file; anything but a list of objects is an :class:`InputError`. See :func:`check_results`.

    Whole numbers that were written as text or with a decimal point are ``int`` in what is returned.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a JSON list of result entries")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {index} is not a JSON object")
    return [_plain_entry(entry) for entry in entries]


def _plain_entry(entry: dict[str, Any]) -> dict[str, Any]:
    ids: dict[str, Any] = {key: integer(entry[key]) for key in ("image_id", "category_id") if key in entry}
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict) and "size" in segmentation:
        return {**entry, **ids, "segmentation": {**segmentation, "size": plain_size(segmentation)}}
    return {**entry, **ids}


def sizes_of(entries: Sequence[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """Image id → the size (H, W) that the RLE of its entries have; malformed entries tell none."""
    sizes = {}
    for entry in entries:
        image_id, size = integer(entry.get("image_id")), plain_size(entry.get("segmentation"))
        if type(image_id) is int and isinstance(size, list) and [type(side) for side in size] == [int, int]:
            sizes[image_id] = (size[0], size[1])
    return sizes


def cells_by_image(entries: Sequence[dict[str, Any]]) -> dict[int, list[Instance]]:
    """Image id → the objects of its entries, in order; entries with an empty mask are left out."""
    found: dict[int, list[Instance]] = defaultdict(list)
    for entry, instance in zip(entries, decode_entries(entries), strict=True):
        if instance is not None:
            known = tuple(entry.get("probabilities", ()))
            found[entry["image_id"]].append(replace(instance, probabilities=known))
    return found


def write_submission_zip(path: str | Path, results_path: str | Path) -> None:
    """Pack a results file as ``test-results.json`` at the root of a zip, atomically."""
    if not Path(results_path).is_file():
        raise InputError(f"{results_path}: there is no such file to pack")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(results_path, RESULTS_NAME)


def _fault(entry: Any, sizes: dict[int, list[int]], class_count: int) -> str | None:
    """What is wrong with an entry apart from its counts; ``None`` where nothing is."""
    keys = ("image_id", "category_id", "score", "segmentation")
    if not isinstance(entry, dict):
        return "is not a JSON object"
    for key in keys:
        if key not in entry:
            return f"{key} is missing"
    image_id, category_id, score, segmentation = (entry[key] for key in keys)
    if type(image_id) is not int or image_id not in sizes:
        return f"image_id {repr(image_id)} is not among the {len(sizes)} images"
    if type(category_id) is not int or not 1 <= category_id <= class_count:
        return f"category_id {repr(category_id)} is not in 1..{class_count} (see --classes)"
    if not _is_finite(score) or not 0 <= score <= 1:
        return f"score {repr(score)} is not in [0, 1]"
    box = entry.get("bbox")  # not needed: the mask is what counts
    if box not in (None, []) and not (isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_finite, box))):
        return f"bbox {repr(box)} is not four finite numbers"
    if "probabilities" in entry and not is_distribution(entry["probabilities"], class_count):
        return f"probabilities {repr(entry['probabilities'])} are not {class_count} numbers that sum to 1"
    if not isinstance(segmentation, dict) or segmentation.get("size") != sizes[image_id]:
        return f"the segmentation's size is not {sizes[image_id]}, the size of image {image_id}"
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
