"""Images of all common types, in folders of any depth: names are the same wherever they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.check import main as check
from src.common.errors import InputError
from src.config.settings import DataSettings, ImageSettings
from src.data.folders import image_folders
from src.data.images_to_predict import find_test_images, images_by_name, unread_test_files
from src.data.orientation import turned_warnings
from src.data.prepared import prepare
from src.data.training_data import load_training_data
from src.evaluation.ground_truth import load_ground_truth
from tests.helpers import find_records, write_dataset, write_record

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[3:9, 4:15], MASK[12:19, 20:29] = 1, 2


def save(path: Path, pixels: np.ndarray = PIXELS, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_record(folder: Path, suffix: str = ".png", **options: object) -> Path:
    save(folder / f"image{suffix}", **options)
    save(folder / "class1.png", MASK)
    return folder


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp"])
def test_training_images_may_be_of_any_type(suffix: str, tmp_path: Path) -> None:
    save_record(tmp_path / "a", suffix, **({"lossless": True} if suffix == ".webp" else {"quality": 100}))
    (record,) = find_records(tmp_path, 2)
    assert (record.name, record.height, record.width) == ("a", 20, 30) and not record.is_tiff
    prepared = prepare(record, "full", 1.0)
    with Image.open(record.image) as decoded:
        assert np.array_equal(prepared.image, np.asarray(decoded.convert("RGB")))
    assert suffix.lower().startswith(".jp") or np.array_equal(prepared.image, PIXELS)
    assert np.array_equal(prepared.label_map[..., 0], MASK)
    assert load_ground_truth(tmp_path, 2)[0].height == 20


def test_two_images_of_different_types_in_a_folder_are_refused(tmp_path: Path) -> None:
    save(save_record(tmp_path / "a") / "image.tif")
    refused(lambda: find_records(tmp_path, 2), f"{tmp_path}/a: ", "image.png", "image.tif")


def test_16_bits_are_kept_and_noticed(tmp_path: Path) -> None:
    save_record(tmp_path / "a")
    save(tmp_path / "a/image.png", np.full((20, 30), 0x1234, np.uint16))
    (record,) = find_records(tmp_path, 2)
    assert record.is_wide and (record.read("full") == round(0x1234 / 257)).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("drawn", ["stored", "turned"])
def test_pictures_are_turned_as_their_masks_are(orientation: int, drawn: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_record(tmp_path / "a", exif=exif)
    is_quarter = orientation > 4
    if is_quarter and drawn == "turned":
        save(tmp_path / "a/class1.png", np.ascontiguousarray(MASK.T))
    (record,) = find_records(tmp_path, 2)
    is_turned = drawn == "turned" or not is_quarter
    shape = (30, 20) if is_quarter and is_turned else (20, 30)
    pixels = prepare(record, "full", 1.0).image
    assert pixels.shape[:2] == (record.height, record.width) == shape
    assert np.array_equal(pixels, np.rot90(PIXELS, {3: 2, 6: 3, 8: 1}[orientation])) == is_turned
    truth = load_ground_truth(tmp_path, 2)[0]
    assert (truth.height, truth.width) == shape
    (line,) = turned_warnings([record])
    assert f"{tmp_path}/a/image.png" in line and line.startswith("warning") == (not is_turned)


def test_a_turned_picture_without_masks_is_as_viewers_show_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a/image.jpg", exif=exif)
    assert find_records(tmp_path, 2)[0].height == find_test_images(tmp_path)[0].entry.height == 30


def names_everywhere(folder: Path) -> list[list[str]]:
    """The names by which training, prediction and scoring know the images of a folder."""
    return [
        [record.name for record in find_records(folder, 2)],
        [image.entry.name for image in find_test_images(folder)],
        [truth.name for truth in load_ground_truth(folder, 2)],
        list(images_by_name(folder)),
    ]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["b", "a.tif"], ["a.tif", "b"]),
        (["slideA/x", "slideB/y", "z"], ["x", "y", "z"]),
        (["slideA/1", "slideB/1", "slideB/2"], ["2", "slideA_1", "slideB_1"]),
        (["A/deep/er/1", "B/1"], ["A_deep_er_1", "B_1"]),
        (["a/b_c", "a_b/c", "c"], ["a_b_c", "b_c", "c"]),
        (["K\u00f6ln/1", "Ulm, west/1", "x.y/Z.TIF"], ["K\u00f6ln_1", "Ulm, west_1", "Z.TIF"]),
    ],
)
def test_names_are_the_same_wherever_images_are_read(places: list[str], names: list[str], tmp_path: Path) -> None:
    for place in places:
        save_record(tmp_path / place)
    assert names_everywhere(tmp_path) == [names] * 4
    for name, folder in image_folders(tmp_path).items():
        assert folder.relative_to(tmp_path).as_posix() in places and folder.name in name


def test_a_nested_folder_without_an_image_is_named(tmp_path: Path) -> None:
    save_record(tmp_path / "slide/1")
    save(tmp_path / "slide/2/class1.png", MASK)
    refused(lambda: find_records(tmp_path, 2), f"{tmp_path}/slide/2: has no image.tif")
    refused(lambda: find_test_images(tmp_path), f"{tmp_path}/slide/2: has no image.tif")
    assert [truth.name for truth in load_ground_truth(tmp_path, 2)] == ["1", "2"]
    (tmp_path / "slide/2/class1.png").rename(tmp_path / "slide/class1.png")
    refused(lambda: find_records(tmp_path, 2), f"{tmp_path}/slide: has no image.tif")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    save_record(tmp_path / "data/slide/1")
    (tmp_path / "data/slide/back").symlink_to(tmp_path / "data")
    refused(lambda: find_records(tmp_path / "data", 2), "data")


@pytest.mark.parametrize("name", ["Train", "val", "slides"])
def test_several_data_folders_are_not_read_as_one(name: str, tmp_path: Path) -> None:
    save_record(tmp_path / name / "1")
    if name == "slides":
        (tmp_path / name / "classes.json").write_text("[]")
    for read in (lambda: find_records(tmp_path, 2), lambda: find_test_images(tmp_path)):
        refused(read, f"did you mean {tmp_path}/{name}", "classes.json" if name == "slides" else "name")
    assert len(find_records(tmp_path / name, 2)) == 1


def test_test_images_in_folders_are_found_and_get_ids(tmp_path: Path) -> None:
    for name in ("A/x.png", "A/y.webp", "B/x.png", "B/deep/x.png", "C/image.png"):
        save(tmp_path / "in" / name)
    found = find_test_images(tmp_path / "in")
    assert [image.entry.file_name for image in found] == ["A_x.png", "B_x.png", "C.tif", "y.webp"]
    (warning,) = unread_test_files(tmp_path / "in")
    assert f"{tmp_path}/in/B/deep" in warning and "1 files" in warning
    ids = [vars(image.entry) | {"id": 9 - image.entry.id} for image in found]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    again = find_test_images(tmp_path / "in", tmp_path / "ids.json")
    assert [(image.image, image.entry.id) for image in again] == [(one.image, 9 - one.entry.id) for one in found]
    save(tmp_path / "in/A/x.jpg")
    refused(lambda: find_test_images(tmp_path / "in"), "image A/x occurs twice")


def test_masks_are_not_taken_for_test_images(tmp_path: Path) -> None:
    for folder in ("Images", "Masks"):
        save(tmp_path / "in" / folder / "x.png")
    refused(lambda: find_test_images(tmp_path / "in"), f"{tmp_path}/in/Masks: holds masks")
    assert len(find_test_images(tmp_path / "in/Images")) == 1
    save_record(tmp_path / "one")
    refused(lambda: find_test_images(tmp_path / "one"), f"{tmp_path}/one: is the folder of one image")
    save(tmp_path / "train/a/image.png"), save(tmp_path / "train/a/other.png")
    assert "a/other.png" in unread_test_files(tmp_path / "train")[0]


def load(folder: Path, **settings: object) -> object:
    data = DataSettings(data_path=str(folder), num_classes=3, cache_gb=0, cache_dir=str(folder.parent / "cache"))
    return load_training_data(data, ImageSettings(**settings))


def test_pictures_hold_red_first(tmp_path: Path) -> None:
    for name in "ab":
        write_record(tmp_path / "data" / name, seed=ord(name))
        with Image.open(tmp_path / "data" / name / "image.tif") as image:
            swapped = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        (tmp_path / "data" / name / "image.tif").unlink()
        save(tmp_path / "data" / name / "image.png", swapped)
    data = load(tmp_path / "data")
    assert data.channel_order == "rgb" and any("channel order: rgb" in note for note in data.notes)
    refused(lambda: load(tmp_path / "data", channel_order="bgr"), "a/image.png", "--channel-order")


def test_the_check_reads_nested_pictures_and_keeps_their_digests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("s/1", "t/1"):
        save_record(tmp_path / "data" / place)
    check([str(tmp_path / "data"), "--write-manifest", "--digest", "--html", str(tmp_path / "page.html")])
    said = capsys.readouterr().out
    assert "no problems found" in said and "4 files" in said and "channel order: rgb" in said
    assert all(name in (tmp_path / "page.html").read_text() for name in ("s_1", "t_1"))
    check([str(tmp_path / "data"), "--verify"])
    save(tmp_path / "data/t/1/image.png", PIXELS[::-1].copy())
    with pytest.raises(SystemExit):
        check([str(tmp_path / "data"), "--verify"])
    assert f"problem: {tmp_path}/data/t/1/image.png: has changed" in capsys.readouterr().out


def test_nested_images_are_chosen_by_a_split_and_groups(tmp_path: Path) -> None:
    for slide in ("s", "t"):
        write_dataset(tmp_path / "data" / slide, "ab")
    split, groups = {"train": ["s_a", "t_b"], "val": ["t_a.tif"]}, {f"{s}_{n}": s for s in "st" for n in "ab"}
    (tmp_path / "split.json").write_text(json.dumps(split))
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    data = DataSettings(data_path=str(tmp_path / "data"), num_classes=3, cache_gb=0, split=str(tmp_path / "split.json"))
    assert load_training_data(data, ImageSettings()).split == {"train": ["s_a", "t_b"], "val": ["t_a"]}
    data = DataSettings(
        data_path=str(tmp_path / "data"), num_classes=3, cache_gb=0, groups=str(tmp_path / "groups.json")
    )
    found = load_training_data(data, ImageSettings()).split
    assert {name[0] for name in found["train"]} ^ {name[0] for name in found["val"]} == {"s", "t"}
