"""Images to predict: which files they are, their names, and how pictures are turned."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import InputError
from src.data.images_to_predict import find_test_images, unread_test_files
from src.data.orientation import turned_warnings
from src.data.pictures import read_rgb
from src.data.tiff import write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def save(path: Path, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


def test_pictures_of_all_types_are_found_beside_tiff(tmp_path: Path) -> None:
    write_image(tmp_path / "d.tif", PIXELS)
    for name in ("a.png", "b.JPG", "c.bmp"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    found = find_test_images(tmp_path)
    assert [image.entry.file_name for image in found] == ["a.png", "b.JPG", "c.bmp", "d.tif"]
    assert [image.entry.name for image in found] == list("abcd") and [image.entry.id for image in found] == [1, 2, 3, 4]
    for image in (found[0], found[2], found[3]):
        assert np.array_equal(read_rgb(image.image, "full", False, image.orientation), PIXELS)
    (warning,) = unread_test_files(tmp_path)
    assert "1 files" in warning and "notes.txt" in warning
    assert [image.entry.name for image in find_test_images(tmp_path, names=["b", "c.bmp"])] == ["b", "c"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="image a"):
        find_test_images(tmp_path)


def test_pictures_beside_folders_of_images_are_no_images(tmp_path: Path) -> None:
    save(tmp_path / "overview.png")
    (tmp_path / "plots").mkdir()
    assert [image.entry.name for image in find_test_images(tmp_path)] == ["overview"]
    for name in ("x", "y.png"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "image.tif", PIXELS)
    (tmp_path / "plots").rmdir()
    assert [image.entry.file_name for image in find_test_images(tmp_path)] == ["x.tif", "y.png.tif"]
    assert "overview.png" in unread_test_files(tmp_path)[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_viewers_turn_them(orientation: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", orientation)
    (found,) = images = find_test_images(tmp_path)
    wanted = PIXELS if orientation < 5 else PIXELS.swapaxes(0, 1)
    assert (found.entry.height, found.entry.width) == wanted.shape[:2]
    pixels = read_rgb(path, "full", False, found.orientation)
    assert pixels.shape == wanted.shape and np.array_equal(pixels, PIXELS) == (orientation == 1)
    assert bool(turned_warnings(images)) == (orientation > 1)


def test_an_id_map_tells_whether_a_picture_is_turned(tmp_path: Path) -> None:
    path, ids = save(tmp_path / "images/a.jpg", 6), tmp_path / "ids.json"
    for size, orientation in (((20, 30), 1), ((30, 20), 6)):
        ids.write_text(json.dumps([{"file_name": "a.jpg", "id": 7, "height": size[0], "width": size[1]}]))
        (found,) = find_test_images(path.parent, ids)
        assert found.orientation == orientation
        assert read_rgb(path, "full", False, found.orientation).shape == (*size, 3)
    ids.write_text(json.dumps([{"file_name": "a.jpg", "id": 7, "height": 9, "width": 9}]))
    with pytest.raises(InputError, match=r"a\.jpg: is 20 x 30 px.*9 x 9"):
        find_test_images(path.parent, ids)


def test_colours_are_swapped_in_tiff_alone(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", PIXELS)
    assert np.array_equal(read_rgb(tmp_path / "a.tif", "full", True), PIXELS[..., ::-1])
    assert np.array_equal(read_rgb(save(tmp_path / "b.png"), "full", True), PIXELS)
