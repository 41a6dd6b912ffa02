"""Find the images to predict, with their ids."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, counted
from src.data.id_map import ImageId, read_id_map, refuse_repeats
from src.data.names import ImageNames, stem
from src.data.pictures import QUARTER_TURNS, UPRIGHT, exif_orientation, read_header_of
from src.data.records import IMAGE_NAME, OWN_FILES, SAMPLE_HINT, find_image, list_folder
from src.data.tiff import Header

TIFF_NAME = re.compile(r".+\.tiff?", re.IGNORECASE)
PICTURE_NAME = re.compile(r".+\.(png|jpe?g|bmp)", re.IGNORECASE)


@dataclass(frozen=True)
class TestImage:
    """An image to predict and its entry in the id map.

    ``orientation`` is the EXIF tag by which a PNG or JPEG is turned when it is read; ``is_turned`` tells that a TIFF
    has such a tag, by which viewers turn it and this program does not.
    """

    __test__ = False  # the name makes pytest take it for a test case

    image: Path
    entry: ImageId
    is_turned: bool = False
    orientation: int = UPRIGHT


def find_test_images(
    test_dir: str | Path,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
) -> list[TestImage]:
    """Find the images to predict, each with its id, sorted by name.

    Pictures are turned by their EXIF tag as viewers turn them, unless the id map has the size that they are stored in.

    Args:
        test_dir: a folder of TIFF, PNG, JPEG or BMP files, or one in the training layout (``<name>/image.tif``).
        id_map: path of the id map. Without it the ids are 1..N in the order of the names, and ``file_name`` is
            ``<name>.tif``, or the name of a picture.
        names: only these images (file names with or without their ending, or folder names).

    Raises:
        InputError: no such folder, no images, a name without an image, an image without an id, an id without
            an image, or a size other than the id map's.
    """
    images = _list_images(Path(test_dir))
    known = ImageNames(images)
    chosen = list(range(len(images)))
    if names is not None:
        chosen = sorted(known.find_all(names, test_dir, "has no image"))
    listed = list(images.items())
    headers = {listed[place][0]: read_header_of(listed[place][1]) for place in chosen}
    if id_map is None:
        return [
            _numbered(images[name], name, number, header)
            for number, (name, header) in enumerate(headers.items(), start=1)
        ]
    entries: dict[str, ImageId] = {}
    for entry in read_id_map(id_map):
        place = known.find(entry.name, id_map)
        if place is None and names is None:
            raise InputError(f"{id_map}: names {entry.file_name}, which is missing in {test_dir}")
        if place is not None and entries.setdefault(listed[place][0], entry) != entry:
            other = entries[listed[place][0]].file_name
            raise InputError(f"{id_map}: {other} and {entry.file_name} both name {listed[place][1]}")
    return [_pair(images[name], header, entries.get(name), id_map) for name, header in headers.items()]


def unread_test_files(test_dir: str | Path) -> list[str]:
    """A warning where a folder of images to predict holds files or folders that are not read."""
    folder = Path(test_dir)
    names = list_folder(folder, _missing(folder))
    unread = sorted(set(names) - set(_images_among(folder, names)) - OWN_FILES)
    if not unread:
        return []
    return [
        f"warning: {len(unread)} files or folders are not read, such as {folder / unread[0]};"
        " images are <name>.tif, .png, .jpg or .bmp, or else <name>/image.tif"
    ]


def turned_pictures(images: Collection[TestImage]) -> list[str]:
    """A line where pictures are turned by their EXIF tag."""
    turned = [image.image for image in images if image.orientation != UPRIGHT]
    if not turned:
        return []
    return [f"turned by the EXIF tag, as viewers show them: {counted(len(turned), 'picture')}, such as {turned[0]}"]


def _images_among(folder: Path, names: Collection[str]) -> list[str]:
    """The names in a folder of what is an image: its TIFF files and pictures, or else folders with ``image.tif``.

    Pictures alone beside such folders are no images but, say, plots of them.
    """
    pictures = [name for name in names if PICTURE_NAME.fullmatch(name)]
    tiffs = [name for name in names if TIFF_NAME.fullmatch(name)]
    folders = [name for name in names if (folder / name).is_dir()]
    if tiffs:
        return sorted(tiffs + pictures)
    if pictures and not any(_has_image(folder / name) for name in folders):
        return pictures
    return folders


def _has_image(folder: Path) -> bool:
    return any(IMAGE_NAME.fullmatch(path.name) for path in folder.iterdir())


def _list_images(test_dir: Path) -> dict[str, Path]:
    """The path of each image by its name, in the order of the names."""
    names = _images_among(test_dir, list_folder(test_dir, _missing(test_dir)))
    if not names:
        raise InputError(f"{test_dir}: holds no test images (neither <name>.tif, .png, … nor <name>/image.tif)")
    found = []
    for path in (test_dir / name for name in names):
        is_folder = path.is_dir()
        image = path / find_image(path, list_folder(path, str(path))) if is_folder else path
        found.append((path.name if is_folder else stem(path.name), image))
    refuse_repeats((name for name, _ in found), f"{test_dir}: image")
    return dict(sorted(found))


def _missing(test_dir: Path) -> str:
    return (
        f"{test_dir}: no such folder; the homework's test images belong at ./hw3-data-release/test_release/<name>.tif,"
        f" or {SAMPLE_HINT} and name the folder DIR/test_release"
    )


def _numbered(path: Path, name: str, number: int, header: Header) -> TestImage:
    """An image whose id is its number."""
    orientation = exif_orientation(path)
    sides = (header.width, header.height) if orientation in QUARTER_TURNS else (header.height, header.width)
    file_name = path.name if PICTURE_NAME.fullmatch(path.name) else f"{name}.tif"
    return TestImage(path, ImageId(file_name, number, *sides), header.is_turned, orientation)


def _pair(path: Path, header: Header, entry: ImageId | None, id_map: str | Path) -> TestImage:
    if entry is None:
        raise InputError(f"{path}: has no id in {id_map}")
    orientation, size = exif_orientation(path), (entry.height, entry.width)
    if orientation in QUARTER_TURNS and size == (header.width, header.height):
        return TestImage(path, entry, header.is_turned, orientation)
    if size != (header.height, header.width):
        raise InputError(
            f"{path}: is {header.height} x {header.width} px, but {id_map} says {entry.height} x {entry.width}"
        )
    return TestImage(path, entry, header.is_turned, UPRIGHT if orientation in QUARTER_TURNS else orientation)
