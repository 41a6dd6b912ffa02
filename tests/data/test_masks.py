"""Masks are TIFF or PNG; what a mask cannot be is refused by file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label

from src.common.errors import InputError
from src.config.settings import DataSettings, ImageSettings
from src.data.masks import cell_pixels, connected_pieces, count_in_pieces, read_mask, read_mask_header
from src.data.prepared import prepare
from src.data.tiff import read_image, write_mask
from src.data.training_data import load_training_data
from src.evaluation.ground_truth import TruthSettings, load_ground_truth
from tests.helpers import find_records, write_dataset

IDS = np.array([[0, 3, 3], [900, 0, 70]])
RANKS = [[0, 1, 1], [3, 0, 2]]


@pytest.mark.parametrize(
    ("mode", "ids", "wanted"),
    [
        ("I;16", IDS, RANKS),
        ("L", IDS % 251, [[0, 1, 1], [3, 0, 2]]),
        ("P", IDS % 251, [[0, 1, 1], [3, 0, 2]]),
        ("1", IDS > 0, [[0, 1, 1], [1, 0, 1]]),
    ],
)
def test_a_png_of_one_channel_is_a_mask(mode: str, ids: np.ndarray, wanted: list[list[int]], tmp_path: Path) -> None:
    path = tmp_path / "class1.PNG"
    if mode == "P":
        picture = Image.fromarray(ids.astype(np.uint8), "L").convert("P")
        picture.putdata(ids.ravel().tolist())
        picture.save(path)
    else:
        Image.fromarray(ids if mode == "1" else ids.astype(np.uint16 if mode == "I;16" else np.uint8)).save(path)
    assert read_mask(path).tolist() == wanted
    header = read_mask_header(path)
    assert (header.height, header.width, header.channels) == (2, 3, 1)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("LA", 2)])
def test_coloured_masks_are_refused(mode: str, channels: int, tmp_path: Path) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "class1.png")
    with pytest.raises(InputError, match=rf"class1\.png: has {channels} channels"):
        read_mask(tmp_path / "class1.png")


@pytest.mark.parametrize("name", ["class1.jpg", "class1.JPEG"])
def test_lossy_masks_are_refused(name: str, tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / name, "JPEG")
    for read in (read_mask, read_mask_header):
        with pytest.raises(InputError, match=rf"{name}: JPEG"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["class1.png", "class1.bmp"])
def test_a_jpeg_of_another_name_is_refused(name: str, tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / name, "JPEG")
    for read in (read_mask, read_mask_header):
        with pytest.raises(InputError, match=rf"{name}: JPEG"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("codec", "options", "is_lossy"),
    [
        ("jpeg", {"level": 90}, True),
        ("jpeg2000", {"level": 40, "reversible": False}, True),
        ("jpeg2000", {"reversible": True, "level": 0}, False),
        ("zlib", {}, False),
        ("lzw", {}, False),
    ],
)
def test_lossy_compression_inside_a_tiff_is_refused(
    codec: str, options: dict[str, object], is_lossy: bool, tmp_path: Path
) -> None:
    path, ids = tmp_path / "class1.tif", np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((8, 8), np.uint8))
    tifffile.imwrite(path, ids, compression=codec, compressionargs=options)
    if not is_lossy:
        assert np.array_equal(read_mask(path), ids) and not read_mask_header(path).is_lossy
        return
    for read in (read_mask, read_mask_header):
        with pytest.raises(InputError, match=r"class1\.tif: .*lossy"):
            read(path)
    read_image(path)  # as an image it serves


def test_a_png_mask_with_an_exif_tag_is_noticed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "class1.png", exif=exif)
    assert read_mask_header(tmp_path / "class1.png").is_turned and read_mask(tmp_path / "class1.png").tolist() == RANKS


def as_png(path: Path) -> None:
    mask = read_mask(path).astype(np.uint16)
    Image.fromarray(mask).save(path.with_suffix(".png"))
    path.unlink()


def test_a_folder_with_png_masks_trains_on_the_same_cells(tmp_path: Path) -> None:
    plain, png = (find_records(write_dataset(tmp_path / name, "a"), 2)[0] for name in ("tif", "png"))
    for path in png.masks.values():
        as_png(path)
    (png,) = find_records(tmp_path / "png", 2)
    assert sorted(path.name for path in png.masks.values()) == ["class1.png", "class2.png"]
    one, other = (prepare(record, "full", 1.0) for record in (plain, png))
    assert np.array_equal(one.label_map, other.label_map) and np.array_equal(one.class_ids, other.class_ids)


def test_a_folder_with_jpeg_masks_or_two_of_a_class_is_refused(tmp_path: Path) -> None:
    (record,) = find_records(write_dataset(tmp_path / "data", "a"), 2)
    Image.new("L", (80, 96)).save(tmp_path / "data/a/class1.jpg")
    with pytest.raises(InputError, match=r"class1\.tif: is a second mask of class 1"):
        find_records(tmp_path / "data", 2)
    record.masks[1].unlink()
    with pytest.raises(InputError, match=r"class1\.jpg: JPEG"):
        find_records(tmp_path / "data", 2)


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "abc")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "data/a" / name).write_text("")
    (tmp_path / "data/@eaDir").mkdir()
    settings = DataSettings(str(tmp_path / "data"), num_classes=3, cache_dir=str(tmp_path / "cache"))
    assert not [note for note in load_training_data(settings, ImageSettings()).notes if "not read" in note]
    for name in ("class_1.tif", "cells.png"):
        (tmp_path / "data/b" / name).write_text("")
    (note,) = [note for note in load_training_data(settings, ImageSettings()).notes if "not read" in note]
    assert "2 files" in note and f"{tmp_path}/data/b/cells.png" in note


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_the_connected_parts_of_each_id(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 14, 2).tolist())
    mask = rng.integers(0, 4, shape) * (rng.random(shape) < rng.choice([0.3, 0.6, 0.9]))
    found = connected_pieces(cell_pixels(mask)).to_mask()
    wanted = label(mask, background=0, connectivity=2)
    assert np.array_equal(found, wanted)  # both number pieces in the order of their first pixels
    in_several = [len(np.unique(wanted[mask == number])) > 1 for number in np.unique(mask[mask > 0])]
    assert count_in_pieces(cell_pixels(mask)) == sum(in_several)


def test_pieces_of_a_mask_without_cells() -> None:
    empty = cell_pixels(np.zeros((4, 5), int))
    assert len(connected_pieces(empty).ids) == 0 and count_in_pieces(empty) == 0


def test_training_says_and_splits_masks_without_an_id_per_cell(tmp_path: Path) -> None:
    for record in find_records(write_dataset(tmp_path / "data", "abc"), 2):
        write_mask(record.masks[1], np.where(read_mask(record.masks[1]) > 0, 255, 0))
    settings = DataSettings(str(tmp_path / "data"), num_classes=3, val_fraction=0.0, cache_dir=str(tmp_path / "cache"))
    plain, split = (load_training_data(settings, ImageSettings(split_pieces=flag)) for flag in (False, True))
    (note,) = [note for note in plain.notes if "--split-pieces" in note]
    assert "3 of " in note and plain.class_counts[0] == 3
    assert not [note for note in split.notes if "--split-pieces" in note] and split.class_counts[0] > 6
    truths = load_ground_truth(tmp_path / "data", 2, settings=TruthSettings(split_pieces=True))
    assert sum(cell.class_id == 1 for truth in truths for cell in truth.instances) == split.class_counts[0]
