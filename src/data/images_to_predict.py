"""Find the images to predict, with their ids."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath

from src.common.errors import InputError
from src.common.values import plain
from src.data.folders import MOST_LEVELS, refuse_data_folders
from src.data.id_map import ImageId, read_id_map, refuse_repeats
from src.data.names import ENDINGS, MASK_FOLDERS, PICTURE_ENDINGS, ImageNames, folder_names, stem
from src.data.pictures import QUARTER_TURNS, UPRIGHT, exif_orientation, read_header_of
from src.data.records import IMAGE_NAME, MASK_NAME, OWN_FILES, SAMPLE_HINT, find_image, is_known, list_folder
from src.data.tiff import Header

TIFF_NAME = re.compile(r".+\.tiff?", re.IGNORECASE)
PICTURE_NAME = re.compile(rf".+\.{PICTURE_ENDINGS}", re.IGNORECASE)
IMAGE_FILE = re.compile(rf".+\.{ENDINGS}", re.IGNORECASE)


@dataclass(frozen=True)
class TestImage:
    """An image to predict and its entry in the id map.

    ``orientation`` is the EXIF tag by which a picture is turned when it is read; ``is_turned`` tells that the file has
    such a tag, which this program does not follow in a TIFF.
    """

    __test__ = False  # the name makes pytest take it for a test case

    image: Path
    entry: ImageId
    is_turned: bool = False
    orientation: int = UPRIGHT

    @property
    def turned_file(self) -> Path | None:
        """The image where its tag is not followed."""
        return self.image if self.is_turned and self.orientation == UPRIGHT else None


def find_test_images(
    test_dir: str | Path,
    id_map: str | Path | None = None,
    names: Collection[str] | None = None,
) -> list[TestImage]:
    """Find the images to predict, each with its id, sorted by name.

    Pictures are turned by their EXIF tag as viewers turn them, unless the id map has the size that they are stored in.

    Args:
        test_dir: a folder of TIFF, PNG, JPEG, BMP or WebP files, or one in the training layout (``<name>/image.tif``),
            or one of such folders.
        id_map: path of the id map. Without it the ids are 1..N in the order of the names, and ``file_name`` is
            ``<name>.tif``, or the name of a picture.
        names: only these images (file names with or without their ending, or folder names).

    Raises:
        InputError: no such folder, no images, a name without an image, an image without an id, an id without
            an image, or a size other than the id map's.
    """
    images = images_by_name(test_dir)
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
    _, unread = _look_into(Path(test_dir))
    if not unread:
        return []
    return [
        f"warning: {len(unread)} files or folders are not read, such as {unread[0]};"
        " images are <name>.tif, .png, .jpg, .bmp or .webp, or else <name>/image.tif"
    ]


def _images_among(folder: Path, names: Collection[str]) -> list[str]:
    """The names in a folder of what is an image: its TIFF files and pictures, or else folders with ``image.tif``.

    Pictures alone beside such folders are no images but, say, plots of them.
    """
    folders = [name for name in names if (folder / name).is_dir()]
    files = set(names) - set(folders)
    pictures = sorted(name for name in files if PICTURE_NAME.fullmatch(name))
    tiffs = [name for name in files if TIFF_NAME.fullmatch(name)]
    if tiffs:
        return sorted(tiffs + pictures)
    if pictures and not any(_has_image(folder / name) for name in folders):
        return pictures
    return folders


def _has_image(folder: Path) -> bool:
    return any(IMAGE_NAME.fullmatch(path.name) for path in folder.iterdir())


def images_by_name(test_dir: str | Path) -> dict[str, Path]:
    """The path of each image of a folder by its name, in the order of the names.

    The images of a folder are its files, or else those of its folders. An image's name is that of its file without the
    ending, or of its image folder, and is made distinct by the folders around it.

    Raises:
        InputError: there is none, an image folder has none or two, two files of a folder differ in their ending alone,
            or the folders are those of masks or of several data folders.
    """
    test_dir = Path(test_dir)
    images, _ = _look_into(test_dir)
    if not images:
        raise InputError(f"{test_dir}: holds no test images (neither <name>.tif, .png, … nor <name>/image.tif)")
    places = [place.relative_to(test_dir) for place, _ in images]
    refuse_repeats((place.as_posix() for place in places), f"{test_dir}: image")
    _refuse_masks(test_dir, places)
    refuse_data_folders(test_dir, [place.parent for place in places])
    return dict(sorted(zip(folder_names(places), (image for _, image in images), strict=True)))


def _refuse_masks(test_dir: Path, places: Collection[PurePath]) -> None:
    for place in places:
        for length in range(1, len(place.parts)):
            if plain(place.parts[length - 1]) in MASK_FOLDERS:
                folder = test_dir.joinpath(*place.parts[:length])
                raise InputError(f"{folder}: holds masks, by its name; name the folder of the images instead")


def _look_into(folder: Path, level: int = 0) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """The images of a folder, each by its place without an ending and its file, and the files that are not read."""
    names = list_folder(folder, _missing(folder))
    if not level and any(map(IMAGE_NAME.fullmatch, names)) and any(map(MASK_NAME.fullmatch, names)):
        raise InputError(f"{folder}: is the folder of one image with its masks; name the folder around it")
    chosen = _images_among(folder, names)
    unread = [folder / name for name in sorted(set(names) - set(chosen) - OWN_FILES)]
    images: list[tuple[Path, Path]] = []
    for path in (folder / name for name in chosen):
        if not path.is_dir():
            images.append((path.with_name(stem(path.name)), path))
            continue
        inside = list_folder(path, str(path))
        is_group = level < MOST_LEVELS and not any(map(is_known, inside))
        below, others = _look_into(path, level + 1) if is_group else ([], _other_images(path, inside))
        images += below or [(path, path / find_image(path, inside))]
        unread += others
    return images, unread


def _other_images(folder: Path, names: Collection[str]) -> list[Path]:
    """The files of an image folder that look like images but are neither its image nor its masks."""
    return [folder / name for name in names if not is_known(name) and IMAGE_FILE.fullmatch(name)]


def _missing(test_dir: Path) -> str:
    return (
        f"{test_dir}: no such folder; the homework's test images belong at ./hw3-data-release/test_release/<name>.tif,"
        f" or {SAMPLE_HINT} and name the folder DIR/test_release"
    )


def _numbered(path: Path, name: str, number: int, header: Header) -> TestImage:
    """An image whose id is its number."""
    orientation = exif_orientation(path)
    sides = (header.width, header.height) if orientation in QUARTER_TURNS else (header.height, header.width)
    in_layout = IMAGE_NAME.fullmatch(path.name) and name != stem(path.name)
    file_name = f"{name}{path.suffix}" if PICTURE_NAME.fullmatch(path.name) and not in_layout else f"{name}.tif"
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
