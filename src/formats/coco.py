"""Import of COCO JSON files, as annotation tools export them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.common.errors import InputError
from src.common.files import read_json
from src.common.values import plain
from src.data.classes import ANY_CLASS, name_classes, parse_classes, to_json
from src.data.id_map import check_component
from src.data.names import plain_names
from src.data.pictures import QUARTER_TURNS, exif_orientation, read_size
from src.evaluation.categories import read_categories, renumbered
from src.evaluation.coco_truth import has_size, read_coco
from src.evaluation.image_truth import ImageTruth
from src.formats.imported import Imported, ImportSettings, Source, add, is_there, read_matching


def import_coco(path: Path, settings: ImportSettings) -> Source:
    """A COCO JSON file and its images.

    An image is looked for by its ``file_name``, whose folders may be those of another machine: below
    ``settings.images``, or else below the file's own folder and the one above, never outside of these. Where two images
    of different folders have the same name, their folders become part of the names. Sizes that are missing are those of
    the image files. Annotations and polygons without an area are dropped and counted. Crowds are cells, or regions
    that are kept apart, as ``settings.crowds`` says.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("categories"), list) or not data["categories"]:
        raise InputError(f"{path}: expected a COCO JSON object with images, annotations and categories")
    categories, roots = read_categories(data, path)
    numbers = {category.id: number for number, category in enumerate(categories, start=1)}
    classes = parse_classes(to_json(name_classes([category.name for category in categories])), str(path))
    dropped = Counter(f"category {name!r}, which only stands above the others" for name in roots)

    files = _find_images(data.get("images"), path, settings.images)
    if isinstance(items := data.get("images"), list):
        data = {**data, "images": [_with_size(item, files, settings.orientation) for item in items]}
    if isinstance(annotations := data.get("annotations"), list):
        data = {**data, "annotations": _cells(annotations, numbers, path, dropped)}
    found = read_coco(data, path, len(classes), settings.crowds)
    source = Source({}, classes, dropped + found.dropped, lines=[found.note] if found.note else [])
    readers: dict[str, Callable[[], Imported]] = {}
    for name, truth in zip(plain_names([truth.file_name for truth in found.images]), found.images, strict=True):
        file = files[truth.file_name]

        def read(file: Path = file, truth: ImageTruth = truth) -> Imported:
            pixels = read_matching(file, path, (truth.height, truth.width), source, settings)
            regions = [replace(region, class_id=ANY_CLASS) for region in truth.ignored]
            return Imported(pixels, [*truth.instances, *regions])

        add(readers, name, file, read)
    return replace(source, readers=readers)


def _cells(
    annotations: Sequence[Any], numbers: Mapping[int, int], path: Path, dropped: Counter[str]
) -> list[dict[str, Any]]:
    """The annotations that have a segmentation, their categories as 1..K; the others are counted in ``dropped``."""
    kept = []
    for index, item in enumerate(annotations):
        if isinstance(item, dict) and item.get("segmentation") in (None, []):
            dropped["annotation without a segmentation"] += 1
        else:
            kept.append(renumbered(item, numbers, f"{path}: annotation {index}"))
    return kept


def _find_images(items: Any, path: Path, images: Path | None) -> dict[str, Path]:
    """The file of each image by its ``file_name``; what is malformed is left to be refused by its reader."""
    folder = path.absolute().parent
    roots = [images] if images else [folder, folder / "images", folder.parent]
    found: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    listings: dict[Path, dict[str, Path]] = {}
    for item in items if isinstance(items, list) else []:
        name = item.get("file_name") if isinstance(item, dict) else None
        if isinstance(name, str):
            parts = _parts(name, path)
            candidates = [root.joinpath(*parts[start:]) for start in range(len(parts)) for root in roots]
            file = next((file for file in candidates if is_there(file)), None)
            file = file or next(filter(None, (_of_like_name(file, listings) for file in candidates)), None)
            if file is None:
                raise InputError(f"{path}: names {name}, which is not in {roots[0]} (see --images)")
            owner = owners.setdefault(file, name)
            if owner != name:
                raise InputError(f"{path}: names {owner} and {name}, but there is only {file} for both (see --images)")
            found[name] = file
    return found


def _of_like_name(file: Path, listings: dict[Path, dict[str, Path]]) -> Path | None:
    """The file whose name differs in case or Unicode form alone, as between file systems; ``None`` without one."""
    folder = file.parent
    if folder not in listings:
        entries = sorted(folder.iterdir()) if is_there(folder) and folder.is_dir() else []
        listings[folder] = {plain(entry.name): entry for entry in entries}
    return listings[folder].get(plain(file.name))


def _parts(name: str, path: Path) -> tuple[str, ...]:
    """The folders and the name of a ``file_name``, with either slash, without a drive; each a plain file name."""
    parts = [part for part in re.split(r"[/\\]", re.sub(r"^[a-zA-Z]:", "", name)) if part not in ("", ".")]
    for part in parts or [name]:
        check_component(part, path)
    return tuple(parts)


def _with_size(item: Any, files: Mapping[str, Path], orientation: str) -> Any:
    """An image's entry with the size of its file where it has none, turned by its EXIF tag unless that is ``raw``."""
    name = item.get("file_name") if isinstance(item, dict) else None
    if not isinstance(name, str) or name not in files:
        return item
    if has_size(item):
        return item
    height, width = read_size(files[name])
    if orientation != "raw" and exif_orientation(files[name]) in QUARTER_TURNS:
        height, width = width, height
    return {**item, "height": height, "width": width}
