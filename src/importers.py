"""Readers of other formats. Each finds the images of a folder or file at once, and decodes them one by one."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.classes import HOMEWORK_CLASSES, CellClass, name_classes
from src.errors import InputError
from src.files import read_json
from src.ground_truth import read_coco
from src.instances import Instance, from_label_map
from src.polygons import fill
from src.records import check_component
from src.tiff import read_image, read_mask

PICTURES = re.compile(r"\.(tiff?|png|jpe?g|bmp)$", re.IGNORECASE)
LABELS = re.compile(r"_(cp_masks|masks?|labels?)$", re.IGNORECASE)
CONSEP_CLASSES = name_classes(["epithelial", "inflammatory", "spindle-shaped", "other"])
# The types of CoNSeP as the HoVer-Net paper merges them: other, inflammatory, healthy and malignant epithelial,
# fibroblast, muscle, endothelial.
CONSEP_CATEGORIES = {1: 4, 2: 2, 3: 1, 4: 1, 5: 3, 6: 3, 7: 3}
AMBIGUOUS = 0  # category of regions that are of no class; they are kept apart


@dataclass(frozen=True, eq=False)
class Imported:
    """An image ``(H, W, 3)`` uint8 RGB with its objects; those of category ``AMBIGUOUS`` are no cells."""

    image: np.ndarray
    instances: list[Instance]


@dataclass(frozen=True)
class Source:
    """What was found: a reader for each image's name, the classes, and what was dropped so far, by reason."""

    readers: Mapping[str, Callable[[], Imported]]
    classes: tuple[CellClass, ...]
    dropped: Counter[str] = field(default_factory=Counter)


def add(readers: dict[str, Callable[[], Imported]], name: str, path: Path, read: Callable[[], Imported]) -> None:
    """Add the reader of an image; names become folders, so they are plain and unique."""
    check_component(name, path)
    if name in readers:
        raise InputError(f"{path}: is a second image of the name {name}")
    readers[name] = read


def read_picture(path: Path, max_pixels: int) -> np.ndarray:
    """An image file of any common type as ``(H, W, 3)`` uint8; alpha is dropped."""
    if path.suffix.lower() in (".tif", ".tiff", ".svs"):
        return read_image(path, max_pixels=max_pixels, first_page=path.suffix.lower() == ".svs")
    return np.asarray(_open_picture(path, max_pixels).convert("RGB"))


def read_labels(path: Path, max_pixels: int) -> np.ndarray:
    """A label image, TIFF or PNG, as ``(H, W)`` int32 with ids 1..N."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return read_mask(path, max_pixels)
    labels = np.asarray(_open_picture(path, max_pixels))
    if labels.ndim != 2:
        raise InputError(f"{path}: has {labels.shape[2]} channels; a label image has one, holding ids")
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32) + int(labels.min() > 0)


def _open_picture(path: Path, max_pixels: int) -> Any:
    from PIL import Image

    try:
        picture = Image.open(path)
        if picture.width * picture.height > max_pixels:
            raise InputError(
                f"{path}: is {picture.height} x {picture.width} px; more than {max_pixels} px are not read"
            )
        picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error
    return picture


def import_coco(path: Path, max_pixels: int, images: Path | None = None) -> Source:
    """A COCO JSON file and its images, by default beside it or in ``images`` beside it; crowd regions are dropped."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("categories"), list) or not data["categories"]:
        raise InputError(f"{path}: expected a COCO JSON object with images, annotations and categories")
    numbers, classes = _coco_classes(data["categories"], path)
    crowds = 0
    if isinstance(annotations := data.get("annotations"), list):
        kept = [item for item in annotations if not (isinstance(item, dict) and item.get("iscrowd"))]
        crowds = len(annotations) - len(kept)
        data = {**data, "annotations": [_renumbered(item, numbers) for item in kept]}
    truths = read_coco(data, path, len(classes))
    readers: dict[str, Callable[[], Imported]] = {}
    for truth in truths:
        check_component(truth.file_name, path)
        folders = [images] if images else [path.parent, path.parent / "images"]
        file = next((folder / truth.file_name for folder in folders if (folder / truth.file_name).exists()), None)
        if file is None:
            raise InputError(f"{path}: names {truth.file_name}, which is not in {folders[0]} (see --images)")

        def read(file: Path = file, instances: list[Instance] = truth.instances) -> Imported:
            return Imported(read_picture(file, max_pixels), instances)

        add(readers, PICTURES.sub("", truth.file_name), file, read)
    return Source(readers, classes, Counter({"crowd region": crowds}))


def _renumbered(annotation: Any, numbers: Mapping[Any, int]) -> Any:
    """An annotation with its category as 1..K; what is malformed stays so, to be refused by its number."""
    if not isinstance(annotation, dict) or type(annotation.get("category_id")) is not int:
        return annotation
    return {**annotation, "category_id": numbers.get(annotation["category_id"], 0)}


def _coco_classes(categories: Sequence[Any], path: Path) -> tuple[dict[Any, int], tuple[CellClass, ...]]:
    """COCO's category ids, in their order, as 1..K, and the classes."""
    if not all(isinstance(c, dict) and type(c.get("id")) is int and isinstance(c.get("name"), str) for c in categories):
        raise InputError(f"{path}: a category needs an integer id and a name")
    ordered = sorted(categories, key=lambda category: category["id"])
    numbers = {category["id"]: number for number, category in enumerate(ordered, start=1)}
    if len(numbers) != len(categories):
        raise InputError(f"{path}: two categories have the same id")
    return numbers, name_classes([category["name"] for category in ordered])


def import_labels(folder: Path, max_pixels: int) -> Source:
    """Label images of one class: ``x_masks.png`` beside ``x.png``, or ``masks/x.tif`` for ``images/x.tif``."""
    files = [path for path in sorted(folder.rglob("*")) if PICTURES.search(path.name)]
    is_label = {path: bool(LABELS.search(path.stem) or path.parent.name in ("masks", "labels")) for path in files}
    labels = {LABELS.sub("", path.stem): path for path in files if is_label[path]}
    readers: dict[str, Callable[[], Imported]] = {}
    for path in files:
        if is_label[path]:
            continue
        if path.stem not in labels:
            raise InputError(f"{path}: has no label image ({path.stem}_masks.tif beside it, or masks/{path.name})")

        def read(path: Path = path, label: Path = labels[path.stem]) -> Imported:
            pixels, found = read_picture(path, max_pixels), read_labels(label, max_pixels)
            _check_size(label, found.shape, pixels)
            return Imported(pixels, from_label_map(found[None]))

        add(readers, path.stem, path, read)
    return Source(readers, name_classes(["cell"]))


def import_dsb2018(folder: Path, max_pixels: int) -> Source:
    """The layout of the Data Science Bowl 2018: ``<id>/images/<id>.png`` and one ``<id>/masks/*.png`` a nucleus."""
    source = Source({}, name_classes(["nucleus"]))
    readers: dict[str, Callable[[], Imported]] = {}
    for image in sorted(folder.glob("*/images/*")):
        if not PICTURES.search(image.name):
            continue

        def read(image: Path = image) -> Imported:
            pixels, instances = read_picture(image, max_pixels), []
            for path in sorted((image.parents[1] / "masks").glob("*.png")):
                mask = np.asarray(_open_picture(path, max_pixels).convert("L")) > 0
                _check_size(path, mask.shape, pixels)
                found = from_label_map(mask[None].astype(np.int32))
                source.dropped["empty mask"] += not found
                instances += found
            return Imported(pixels, instances)

        add(readers, image.parents[1].name, image, read)
    return replace(source, readers=readers)


def import_consep(folder: Path, max_pixels: int) -> Source:
    """CoNSeP as it is published: ``Images/x.png`` and ``Labels/x.mat`` with ``inst_map`` and ``inst_type``."""
    readers: dict[str, Callable[[], Imported]] = {}
    for path in sorted(folder.rglob("Labels/*.mat")):
        image = path.parents[1] / "Images" / f"{path.stem}.png"

        def read(path: Path = path, image: Path = image) -> Imported:
            pixels = read_picture(image, max_pixels)
            labels, types = _read_mat(path, max_pixels)
            _check_size(path, labels.shape, pixels)
            instances = [
                replace(instance, category_id=CONSEP_CATEGORIES[types[int(_value(labels, instance))]])
                for instance in from_label_map(labels[None])
            ]
            return Imported(pixels, instances)

        add(readers, path.stem, path, read)
    return Source(readers, CONSEP_CLASSES)


def _value(labels: np.ndarray, instance: Instance) -> int:
    rows, columns = np.nonzero(instance.mask)
    return int(labels[instance.top + rows[0], instance.left + columns[0]])


def _read_mat(path: Path, max_pixels: int) -> tuple[np.ndarray, dict[int, int]]:
    """``inst_map`` as int32 and the type of each id; ``inst_type`` holds one for each id that occurs, ascending."""
    from scipy.io import loadmat, whosmat

    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        if np.prod(shapes["inst_map"]) > max_pixels:
            raise InputError(f"{path}: is {shapes['inst_map']} px; more than {max_pixels} px are not read")
        found = loadmat(path, variable_names=["inst_map", "inst_type"])
        labels, types = found["inst_map"].astype(np.int32), found["inst_type"].astype(int).ravel()
    except InputError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise InputError(f"{path}: cannot be read as CoNSeP labels ({type(error).__name__}: {error})") from error
    ids = np.unique(labels[labels > 0])
    if len(ids) != len(types) or not set(types.tolist()) <= CONSEP_CATEGORIES.keys():
        raise InputError(f"{path}: holds {len(ids)} nuclei and {len(types)} types of 1 to 7")
    return labels, dict(zip(ids.tolist(), types.tolist(), strict=True))


def import_monusac(folder: Path, max_pixels: int) -> Source:
    """MoNuSAC: ``x.svs`` or ``x.tif`` with ``x.xml``, whose annotations name the class of the regions drawn in them."""
    source = Source({}, HOMEWORK_CLASSES)
    numbers = {cell_class.name: cell_class.id for cell_class in HOMEWORK_CLASSES} | {"ambiguous": AMBIGUOUS}
    readers: dict[str, Callable[[], Imported]] = {}
    for xml in sorted(folder.rglob("*.xml")):
        image = next((f for s in (".svs", ".tif", ".tiff") if (f := xml.with_suffix(s)).exists()), None)
        if image is None:
            raise InputError(f"{xml}: has neither an .svs nor a .tif image beside it")

        def read(xml: Path = xml, image: Path = image) -> Imported:
            pixels = read_picture(image, max_pixels)
            instances = []
            for name, corners in _regions(xml):
                if name not in numbers:
                    source.dropped[f"region of unknown class {name!r}"] += 1
                elif len(corners) < 3 or (found := fill(corners, numbers[name], *pixels.shape[:2])) is None:
                    source.dropped["region without a pixel"] += 1
                else:
                    instances.append(found)
            return Imported(pixels, instances)

        add(readers, xml.stem, xml, read)
    return replace(source, readers=readers)


def _regions(xml: Path) -> list[tuple[str, np.ndarray]]:
    """Class name (lower case) and corners (N, 2) of every region of an ImageScope XML file."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, parse

    try:
        regions = []
        for annotation in parse(xml).getroot().iter("Annotation"):
            attribute = annotation.find("Attributes/Attribute")
            name = (attribute.get("Name", "") if attribute is not None else "").strip().lower()
            for region in annotation.iter("Region"):
                corners = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
                regions.append((name, np.array(corners).reshape(-1, 2)))
    except (OSError, ParseError, DefusedXmlException, KeyError, ValueError) as error:
        raise InputError(f"{xml}: cannot be read as MoNuSAC annotations ({error or type(error).__name__})") from error
    if any(not np.isfinite(corners).all() for _, corners in regions):
        raise InputError(f"{xml}: holds a vertex that is no number")
    return regions


def _check_size(path: Path, shape: tuple[int, ...], image: np.ndarray) -> None:
    if shape != image.shape[:2]:
        raise InputError(f"{path}: is {shape} px, but its image is {image.shape[:2]} px")


IMPORTERS: Mapping[str, Callable[[Path, int], Source]] = {
    "monusac": import_monusac,
    "consep": import_consep,
    "coco": import_coco,
    "labels": import_labels,
    "dsb2018": import_dsb2018,
}
