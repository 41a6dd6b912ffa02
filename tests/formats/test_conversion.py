"""Each format's own library or definition makes a small file, which is read; what is written is read back."""

import csv
import json
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from scipy.io import savemat
from skimage.draw import polygon

from src.common.errors import InputError
from src.convert import main
from src.data.masks import read_mask
from src.data.splits import read_split
from src.data.tiff import read_image
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import result_entries, write_results
from src.formats.conversion import rectangles
from src.geometry.instances import Instance, from_label_map, to_label_map
from src.geometry.outlines import outlines
from src.geometry.polygons import fill
from tests.helpers import find_records

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
A, B = np.s_[4:12, 5:15], np.s_[20:33, 22:40]


def labels(*windows: tuple[slice, slice], dtype: type = np.uint16, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    found = np.zeros(shape, dtype)
    for number, window in enumerate(windows, start=1):
        found[window] = number
    return found


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, lossless=True)  # WebP alone asks for it
    return path


def convert(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def masks_of(folder: Path) -> dict[int, np.ndarray]:
    return {int(path.stem[5:]): read_mask(path) for path in sorted(folder.glob("class*.tif"))}


def names_in(folder: Path) -> list[str]:
    return [entry["name"] for entry in json.loads((folder / "classes.json").read_text())]


# --- in --------------------------------------------------------------------------------------------------------------


def test_dsb2018(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "stage1/3f2a"
    save(folder / "images/3f2a.png", np.dstack([PIXELS, np.full((40, 50), 255, np.uint8)]))
    save(folder / "masks/a.png", (labels(A) * 255).astype(np.uint8))
    save(folder / "masks/b.png", (labels(B) * 255).astype(np.uint8))
    save(folder / "masks/c.png", np.zeros((40, 50), np.uint8))
    said = convert(capsys, "--from", "dsb2018", tmp_path / "stage1", tmp_path / "out")
    assert "dropped: 1 x empty mask" in said and said.endswith(
        f"wrote {tmp_path}/out: 1 image, 2 cells; classes 1 nucleus\n"
    )
    assert np.array_equal(read_image(tmp_path / "out/3f2a/image.tif"), PIXELS)
    assert np.array_equal(masks_of(tmp_path / "out/3f2a")[1], labels(A, B))
    assert [record.name for record in find_records(tmp_path / "out", 1)] == ["3f2a"]


@pytest.mark.parametrize("layout", ["cellpose", "stardist"])
def test_label_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str) -> None:
    folder = tmp_path / "in"
    sparse = labels(A, B) * 700
    if layout == "cellpose":
        save(folder / "x.png", PIXELS)
        save(folder / "x_cp_masks.png", sparse)
    else:
        save(folder / "images/x.png", PIXELS)
        (folder / "masks").mkdir()
        tifffile.imwrite(folder / "masks/x.tif", sparse)
    convert(capsys, "--from", "labels", folder, tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A, B)) and names_in(tmp_path / "out") == ["cell"]


def test_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/images/x.png", PIXELS)
    counts = coco_mask.encode(np.asfortranarray(labels(B).astype(np.uint8)))["counts"].decode()
    rle, everything = {"size": [40, 50], "counts": counts}, {"size": [40, 50], "counts": [0, 2000]}
    outline = [5, 4, 15, 4, 15, 12, 5, 12]
    data = {
        "images": [{"id": 7, "file_name": "x.png", "height": 40, "width": 50}],
        "categories": [{"id": 90, "name": "small"}, {"id": 3, "name": "large"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "segmentation": [outline], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "segmentation": rle},
            {"id": 3, "image_id": 7, "category_id": 3, "segmentation": everything, "iscrowd": 1},
        ],
    }
    (tmp_path / "in/x.json").write_text(json.dumps(data))
    said = convert(capsys, "--from", "coco", tmp_path / "in/x.json", tmp_path / "out")
    assert "--crowds" in said and "kept apart: 1 " in said and names_in(tmp_path / "out") == ["large", "small"]
    assert read_mask(tmp_path / "out/x/ambiguous.tif").all()
    found = masks_of(tmp_path / "out/x")
    assert np.array_equal(found[1], labels(B)) and np.array_equal(found[2], labels(A))
    (tmp_path / "in/images").rename(tmp_path / "pictures")
    path = tmp_path / "in/deep/deeper/x.json"
    path.parent.mkdir(parents=True)
    (tmp_path / "in/x.json").rename(path)
    given = ["--from", "coco", path, tmp_path / "again"]
    with pytest.raises(InputError, match=r"names x\.png, which is not in .*/in/deep/deeper \(see --images\)"):
        convert(capsys, *given)
    convert(capsys, *given, "--images", tmp_path / "pictures")
    assert sorted(masks_of(tmp_path / "again/x")) == [1, 2]


def test_consep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "Train/Images/train_1.png", PIXELS)
    (tmp_path / "Train/Labels").mkdir()
    inst_map = labels(A, B, np.s_[36:39, 2:9]).astype(np.float64) * 2  # ids with gaps, as after their clean-up
    types = np.array([[4.0], [7.0], [1.0]])
    savemat(tmp_path / "Train/Labels/train_1.mat", {"inst_map": inst_map, "inst_type": types, "type_map": inst_map})
    convert(capsys, "--from", "consep", tmp_path / "Train", tmp_path / "out")
    found = masks_of(tmp_path / "out/train_1")
    assert sorted(found) == [1, 3, 4] and np.array_equal(found[1], labels(A)) and np.array_equal(found[3], labels(B))
    assert names_in(tmp_path / "out") == ["epithelial", "inflammatory", "spindle-shaped", "other"]


def test_rectangles_make_up_their_image_and_stay_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = np.random.default_rng(1).integers(0, 255, (100, 120, 3), np.uint8)
    ids = np.kron(np.arange(1, 31).reshape(5, 6), np.ones((20, 20), int))  # every pixel is of a cell
    for number in range(1, 6):
        save(tmp_path / f"in/Images/train_{number}.png", large)
        (tmp_path / "in/Labels").mkdir(exist_ok=True)
        content = {"inst_map": ids.astype(float), "inst_type": np.full((30, 1), 2.0)}
        savemat(tmp_path / f"in/Labels/train_{number}.mat", content)
    said = convert(capsys, "--from", "consep", tmp_path / "in", tmp_path / "out", "--rectangles", 3)
    assert "20 images" in said
    for number in range(1, 6):
        parts = [read_image(tmp_path / f"out/train_{number}_q{k}/image.tif") for k in range(4)]
        whole = np.hstack([np.vstack(parts[:2]), np.vstack(parts[2:])])
        assert np.array_equal(whole, large)
        assert sum(len(np.unique(masks_of(tmp_path / f"out/train_{number}_q{k}")[2])) - 1 for k in range(4)) > 30
    split, groups = read_split(tmp_path / "out/split.json"), json.loads((tmp_path / "out/groups.json").read_text())
    assert len(split["train"]) == 16 and len({groups[name] for name in split["val"]}) == 1
    again = rectangles(100, 120, np.random.default_rng(5))
    assert again == rectangles(100, 120, np.random.default_rng(5)) and sum(t.height * t.width for t in again) == 12_000


XML = """<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">
{annotations}</Annotations>"""
ANNOTATION = """<Annotation Id="1"><Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes><Regions>
<RegionAttributeHeaders/><Region Id="1"><Attributes/><Vertices>{vertices}</Vertices></Region></Regions></Annotation>"""


def annotation(name: str, corners: np.ndarray) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    return ANNOTATION.format(name=name, vertices=vertices)


def test_monusac(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = np.array([[5.2, 4.1], [14.9, 4.8], [13.0, 11.7], [6.5, 12.0]])
    drawn = [("Lymphocyte", cell), ("Ambiguous", cell + 20), ("Neutrophil", cell[:2]), ("Plasma", cell)]
    (tmp_path / "in/TCGA-1").mkdir(parents=True)
    path = tmp_path / "in/TCGA-1/a.xml"
    path.write_text(XML.format(annotations="".join(annotation(*item) for item in drawn)))
    with tifffile.TiffWriter(path.with_suffix(".svs")) as file:  # a level and a smaller copy of it
        file.write(PIXELS, photometric="rgb", tile=(16, 16), compression="jpeg", compressionargs={"level": 100})
        file.write(PIXELS[::2, ::2], photometric="rgb")
    said = convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "out")
    for words in ("1 x region of unknown class 'plasma'", "1 x region without a pixel", "kept apart: 1 ambiguous"):
        assert words in said
    wanted = np.zeros((40, 50), np.int32)
    wanted[polygon(cell[:, 1], cell[:, 0], wanted.shape)] = 1  # as the data set's own code draws it
    assert np.array_equal(masks_of(tmp_path / "out/a")[2], wanted)
    assert np.array_equal(read_mask(tmp_path / "out/a/ambiguous.tif")[20:, 20:], wanted[:-20, :-20])
    assert read_image(tmp_path / "out/a/image.tif").shape == PIXELS.shape
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><Annotations>&a;</Annotations>')
    with pytest.raises(InputError, match=r"a\.xml: cannot be read as ImageScope's annotations"):
        convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "again")


def region(corners: list[tuple[float, float]], **attributes: object) -> str:
    values = "".join(f' {name}="{value}"' for name, value in attributes.items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    return f"<Region{values}><Vertices>{vertices}</Vertices></Region>"


def box(left: int, top: int, right: int, bottom: int) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_holes_and_other_shapes_of_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = region(box(4, 4, 20, 16)) + region(box(8, 8, 12, 12), NegativeROA=1)
    shapes = region([(24, 4), (34, 12)], Type=1) + region([(24, 20), (44, 30)], Type=2)
    lines = region([(1, 1), (30, 30)], Type=3) + region([(1, 1), (30, 30)], Type=4)
    lost = region(box(2, 30, 4, 32), NegativeROA=1)
    layer = '<Annotation><Attributes><Attribute Name="Lymphocyte"/></Attributes><Regions>{}</Regions></Annotation>'
    save(tmp_path / "in/a.tif", PIXELS)
    (tmp_path / "in/a.XML").write_text(XML.format(annotations=layer.format(ring + shapes + lines + lost)))
    said = convert(capsys, "--from", "monusac", tmp_path / "in", tmp_path / "out")
    mask = masks_of(tmp_path / "out/a")[2]
    wanted = np.zeros((40, 50), np.int32)
    wanted[4:17, 4:21], wanted[8:13, 8:13] = 1, 0
    wanted[4:13, 24:35] = 2
    assert np.array_equal(np.where(mask < 3, mask, 0), wanted)
    assert abs((mask == 3).sum() - np.pi * 10 * 5) < 25 and mask[25, 34] == 3 and mask[20, 24] == 0
    for words in ("1 x arrow", "1 x ruler", "1 x hole outside", "1 image, 3 cells"):
        assert words in said


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    for arguments, words in (
        (["--from", "labels", tmp_path / "in", tmp_path / "out"], r"x\.png: has no label image"),
        (["--from", "dsb2018", tmp_path / "in", tmp_path / "out"], "holds nothing in the format dsb2018"),
        (["--from", "consap", tmp_path / "in", tmp_path / "out"], r"got consap; did you mean consep\?"),
        (["--from", "labels", tmp_path / "no", tmp_path / "out"], "no such file or folder"),
        (["--from", "labels", tmp_path, tmp_path / "in"], "is not empty"),
        (["--form", "labels", tmp_path, tmp_path / "in"], r"unknown flag --form; did you mean --from\?"),
    ):
        with pytest.raises(InputError, match=words):
            convert(capsys, *arguments)
    save(tmp_path / "in/x_masks.png", labels(A)[:-1])
    with pytest.raises(InputError, match=r"x_masks\.png: is of 39 x 50 px, but .* is 40 x 50 px"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")


def test_a_second_import_needs_force_and_leaves_no_mask_of_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "xy":
        save(tmp_path / f"in/{name}.png", PIXELS)
        save(tmp_path / f"in/{name}_masks.png", labels(A))
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    save(tmp_path / "in/x_masks.png", labels())
    with pytest.raises(InputError, match="--force"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force")
    assert not masks_of(tmp_path / "out/x")


def test_an_import_without_rectangles_leaves_no_split_of_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    save(tmp_path / "in/x_masks.png", labels(A))
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--rectangles", 0)
    assert (tmp_path / "out/split.json").is_file()
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--force")
    assert not (tmp_path / "out/split.json").exists() and not (tmp_path / "out/groups.json").exists()
    assert f"4 folders in {tmp_path / 'out'} are not of this import: x_q0, x_q1, x_q2, …" in said


def coco_file(path: Path, **changes: object) -> Path:
    """A COCO file of one image with one square cell, beside its image."""
    save(path.parent / "x.png", PIXELS)
    data = {
        "images": [{"id": 7, "file_name": "x.png", "height": 40, "width": 50}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[5, 4, 15, 4, 15, 12, 5, 12]]}],
    }
    path.write_text(json.dumps({**data, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": [{"id": 7, "file_name": "x.png", "height": 20, "width": 25}]}, "is of 20 x 25 px, but .* 40 x 50"),
        ({"images": [{"id": 7, "file_name": "x.png", "height": 80, "width": 100}]}, "is of 80 x 100 px, but .* 40 x"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 3, "name": "a "}]}, "two classes have the same name"),
        ({"categories": [{"id": 3, "name": "all"}]}, r"x\.json: .* all, which is the name of the totals"),
        ({"categories": [{"id": 4, "name": "a"}]}, "annotation 0: category_id 3 is not among the file's categories"),
    ],
)
def test_a_coco_file_that_contradicts_itself_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        convert(capsys, "--from", "coco", coco_file(tmp_path / "x.json", **changes), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.png"]


def test_annotations_without_a_segmentation_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco_file(tmp_path / "x.json")
    data = json.loads(path.read_text())
    data["annotations"] += [{"id": n, "image_id": 7, "category_id": 3, "segmentation": []} for n in (2, 3)]
    path.write_text(json.dumps(data))
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert "dropped: 2 x annotation without a segmentation" in said and "1 image, 1 cell" in said


def test_an_import_that_leaves_no_cell_is_refused_with_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [{"id": n, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": []} for n in (1, 2)]
    coco_file(tmp_path / "coco/x.json", annotations=boxes)
    save(tmp_path / "xml/a.tif", PIXELS)  # MoNuSeg's regions have no class
    outline = np.array([[5.2, 4.1], [14.9, 4.8], [13.0, 11.7], [6.5, 12.0]])
    (tmp_path / "xml/a.xml").write_text(XML.format(annotations=annotation("", outline)))
    save(tmp_path / "labels/x.png", PIXELS)
    save(tmp_path / "labels/x_masks.png", labels())
    for kind, path, reason in (
        ("coco", "coco/x.json", "2 x annotation without a segmentation"),
        ("monusac", "xml", "1 x region of unknown class ''"),
        ("labels", "labels", "1 image whose labels hold no object"),
    ):
        with pytest.raises(InputError, match=rf"{path}: holds no cells in its 1 image; .*{reason}"):
            convert(capsys, "--from", kind, tmp_path / path, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def write_coco(path: Path, files: dict[str, Path], **changes: object) -> Path:
    """A COCO file of images by their ``file_name``, each with the cell A, and the image files."""
    for file in files.values():
        save(file, PIXELS)
    images = [{"id": n, "file_name": name, "height": 40, "width": 50, **changes} for n, name in enumerate(files)]
    ring = [5, 4, 15, 4, 15, 12, 5, 12]
    cells = [{"id": n, "image_id": n, "category_id": 3, "segmentation": [ring]} for n in range(len(files))]
    data = {"images": images, "categories": [{"id": 3, "name": "cell"}], "annotations": cells}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("file_name", "place"),
    [
        ("images/x.png", "in/images/x.png"),  # as Label Studio writes it
        ("images/x.png", "in/x.png"),
        ("x.png", "in/images/x.png"),
        ("train/images/x.png", "images/x.png"),  # beside the folder of the JSON file
        ("C:\\Users\\me\\set 1\\x.png", "in/set 1/x.png"),
        ("/home/me/data/set/x.png", "in/x.png"),
        ("X.PNG", "in/x.png"),
    ],
)
def test_images_are_found_by_the_folders_of_their_names(
    file_name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coco(tmp_path / "in/cells.json", {file_name: tmp_path / place})
    convert(capsys, "--from", "coco", path, tmp_path / "out")
    (found,) = (folder for folder in (tmp_path / "out").iterdir() if folder.is_dir())
    assert found.name.lower() == "x" and np.array_equal(masks_of(found)[1], labels(A))


def test_a_name_in_another_unicode_form_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/cells.json", {"K\u00f6rper.png": tmp_path / "in/Ko\u0308rper.png"})
    convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert (tmp_path / "out/K\u00f6rper/class1.tif").is_file()


def save_turned(path: Path, pixels: np.ndarray, tag: int) -> Path:
    """A picture with an EXIF tag of orientation, its pixels stored as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_pictures_are_turned_where_their_masks_are(
    tag: int, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_turned(tmp_path / f"stored/x.{suffix}", PIXELS, tag)
    with Image.open(path) as picture:
        raw, turned = (np.asarray(one.convert("RGB")) for one in (picture, ImageOps.exif_transpose(picture)))
    for name, shown in (("raw", raw), ("turned", turned)):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "stored", folder / "in")
        save(folder / "in/x_masks.png", labels(A, shape=shown.shape[:2]))
        said = convert(capsys, "--from", "labels", folder / "in", folder / "out")
        fits_both = raw.shape == turned.shape
        assert np.array_equal(read_image(folder / "out/x/image.tif"), turned if fits_both else shown)
        assert ("--orientation" in said) == (fits_both and tag > 1)
        for way in ("raw", "turned"):
            if fits_both or way == name:
                convert(capsys, "--from", "labels", folder / "in", folder / way, "--orientation", way)
                assert np.array_equal(read_image(folder / way / "x/image.tif"), turned if way == "turned" else raw)


def test_a_tiff_with_a_tag_of_orientation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x_masks.png", labels(A))
    tifffile.imwrite(
        tmp_path / "in/x.tif", PIXELS, photometric="rgb", extratags=[(274, "H", 1, 6, False)], metadata=None
    )
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    assert f"{tmp_path}/in/x.tif" in said and np.array_equal(read_image(tmp_path / "out/x/image.tif"), PIXELS)


def test_images_outside_are_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../../x.png", str(tmp_path / "x.png"), "..\\..\\x.png"):
        path = write_coco(tmp_path / "a/b/cells.json", {name: tmp_path / "x.png"})
        with pytest.raises(InputError, match=r"cells\.json: "):
            convert(capsys, "--from", "coco", path, tmp_path / "out")


def test_one_name_in_two_folders_is_two_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / "in" / name for name in ("1/x.png", "2/x.png", "2/y.png")}
    convert(capsys, "--from", "coco", write_coco(tmp_path / "in/cells.json", files), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"1_x", "2_x", "y"}


def test_one_file_for_two_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = dict.fromkeys(("1/x.png", "2/x.png"), tmp_path / "in/x.png")
    with pytest.raises(InputError, match=r"cells\.json: names 1/x\.png and 2/x\.png, but .*x\.png"):
        convert(capsys, "--from", "coco", write_coco(tmp_path / "in/cells.json", files), tmp_path / "out")


def test_malformed_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/cells.json", {"x.png": tmp_path / "in/x.png"})
    data = json.loads(path.read_text())
    for images in (5, [{"id": 0, "file_name": ["x.png"]}], [3], None):
        path.write_text(json.dumps({**data, "images": images}))
        with pytest.raises(InputError, match=r"cells\.json: "):
            convert(capsys, "--from", "coco", path, tmp_path / "out")


def test_cells_outside_of_their_image_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/cells.json", {"x.png": tmp_path / "in/x.png"})
    data = json.loads(path.read_text())
    data["annotations"].append({**data["annotations"][0], "segmentation": [[52, 44, 60, 44, 60, 50, 52, 50]]})
    path.write_text(json.dumps(data))
    assert "1 x annotation without a pixel" in convert(capsys, "--from", "coco", path, tmp_path / "out")


@pytest.mark.parametrize(("way", "wanted"), [(None, (50, 40)), ("turned", (50, 40)), ("raw", (40, 50))])
def test_a_missing_size_is_that_of_the_turned_picture(
    way: str | None, wanted: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_coco(tmp_path / "in/cells.json", {"x.jpg": tmp_path / "in/x.jpg"}, height=None)
    save_turned(tmp_path / "in/x.jpg", PIXELS, 6)
    said = convert(capsys, "--from", "coco", path, tmp_path / "out", *(["--orientation", way] if way else []))
    assert read_image(tmp_path / "out/x/image.tif").shape[:2] == wanted and ("--orientation" in said) == (way is None)


def test_numbers_as_tools_write_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "in/cells.json", {"x.png": tmp_path / "in/x.png"}, height=None)
    data = json.loads(path.read_text())
    del data["images"][0]["width"]  # the size is that of the file
    data["images"][0]["id"], data["annotations"][0]["image_id"] = "7", 7.0
    data["annotations"][0]["category_id"] = "3"
    data["annotations"][0]["segmentation"].append([1.0, 2.0, 3.0, 4.0])  # no polygon, beside a good one
    data["annotations"].append({**data["annotations"][0], "segmentation": [[1, 2]]})
    path.write_text("\ufeff" + json.dumps(data), encoding="utf-8")  # with a byte-order mark
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A))
    assert "1 x polygon of fewer than three points" in said and "1 x annotation whose polygons" in said


def test_a_root_above_the_categories_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    categories = [{"id": 0, "name": "nuclei", "supercategory": "none"}]
    categories.append({"id": 3, "name": "cell", "supercategory": "nuclei"})
    path = coco_file(tmp_path / "x.json", categories=categories)
    said = convert(capsys, "--from", "coco", path, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["cell"] and "1 x category 'nuclei'" in said


def test_what_lies_beside_label_images_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "masks"  # its own name makes no labels of what it holds
    for name in ("x.png", "._x.png", "x_flows.png", "x_outlines.png", "__MACOSX/y.png"):
        save(folder / name, PIXELS)
    for name in ("x_masks.png", "z_masks.png"):
        save(folder / name, labels(A).astype(np.uint8) * 255)
    said = convert(capsys, "--from", "labels", folder, tmp_path / "out")
    assert "dropped: 1 x label image without an image" in said and "1 image, 1 cell" in said
    assert "1 x label image with one id alone" in said
    save(folder / "x_labels.png", labels(B))
    with pytest.raises(InputError, match=r"x_masks\.png: is a second label image of x beside .*x_labels\.png"):
        convert(capsys, "--from", "labels", folder, tmp_path / "out", "--force")


def test_an_import_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "xy":
        save(tmp_path / f"in/{name}.png", PIXELS)
        save(tmp_path / f"in/{name}_masks.png", labels(A, B))
    (tmp_path / "in/y_masks.png").write_bytes(b"no image")
    for out in (tmp_path / "out", tmp_path / "new/out"):
        with pytest.raises(InputError, match=r"y_masks\.png: cannot be read as an image"):
            convert(capsys, "--from", "labels", tmp_path / "in", out)
        assert not out.exists() and not list(out.parent.glob(".*"))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["labels", "in", "out", "--rectangles", "-1"], "--rectangles must be at least 0, got -1"),
        (["labels", "in", "out", "--to", "csv"], "--to: has no effect with --from labels"),
        (
            ["results", "in", "out", "--to", "csv", "--rectangles", "1"],
            "--rectangles: has no effect with --from results",
        ),
        (
            ["results", "in", "out", "--to", "csv", "--score-thresh", "nan"],
            "--min-score must be at least 0, got nan",
        ),
        (["results", "reslts.json", "out", "--to", "csv"], r"reslts\.json: no such file .* did you mean results\.json"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(InputError, match=reason):
        main(["--from", *flags])


def test_a_mask_without_an_id_per_cell_is_said_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    save(tmp_path / "in/x_masks.png", (labels(A, B) > 0).astype(np.uint8) * 255)
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "one")
    assert "1 x cell in several pieces" in said and "--split-pieces" in said and "1 image, 1 cell" in said
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "two", "--split-pieces")
    assert "1 image, 2 cells" in said and "--split-pieces" not in said
    assert np.array_equal(masks_of(tmp_path / "two/x")[1], labels(A, B))
    with pytest.raises(InputError, match="--split-pieces: has no effect with --from consep"):
        convert(capsys, "--from", "consep", tmp_path / "in", tmp_path / "no", "--split-pieces")


DEEP = np.random.default_rng(1).integers(0, 65536, (40, 50, 4), np.uint16)


@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("intensity", ["full", "percentile"])
def test_a_png_of_16_bits_gives_the_values_of_the_same_tiff(
    channels: int | None, intensity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = DEEP[..., 0] if channels is None else DEEP[..., :channels]
    bgr = deep if channels is None else deep[..., [2, 1, 0, 3][:channels]]
    for suffix in ("png", "tif"):
        save(tmp_path / suffix / "x_masks.png", labels(A, B))
    tifffile.imwrite(tmp_path / "tif/x.tif", deep, photometric="minisblack" if channels is None else "rgb")
    assert cv2.imwrite(str(tmp_path / "png/x.png"), bgr)
    for suffix in ("png", "tif"):
        convert(capsys, "--from", "labels", tmp_path / suffix, tmp_path / f"out-{suffix}", "--intensity", intensity)
    read = read_image(tmp_path / "out-png/x/image.tif")
    assert np.array_equal(read, read_image(tmp_path / "out-tif/x/image.tif")) and len(np.unique(read)) > 200
    if intensity == "full":
        assert np.array_equal(read[..., 0], np.rint(DEEP[..., 0] / 257.0))


def test_few_bits_in_a_deep_file_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x_masks.png", labels(A, B))
    tifffile.imwrite(tmp_path / "in/x.tif", DEEP[..., 0] >> 4)
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    assert "1 of 1 image " in said and "6.3%" in said and "--intensity percentile" in said
    said = convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "again", "--intensity", "percentile")
    assert "--intensity" not in said and read_image(tmp_path / "again/x/image.tif").max() == 255


def test_a_corner_far_away_is_a_corner() -> None:
    found = fill(np.array([[2.0, 2.0], [1e300, 2.0], [1e300, 1e300]]), 1, 6, 6)
    assert found is not None and (found.top, found.left) == (2, 2)
    assert np.array_equal(found.mask, np.triu(np.ones((4, 4), bool)))


def test_outlines_of_many_pieces_take_no_time_each_of_the_whole_mask() -> None:
    noise = np.random.default_rng(0).random((300, 300)) < 0.5
    started = time.process_time()
    polygons = outlines(Instance(1, 1.0, 7, 9, noise))
    assert time.process_time() - started < 20  # 50 s and more where each piece is as large as the mask
    drawn = np.zeros((320, 320), np.uint8)
    for rings in polygons:  # each pixel's centre is inside an odd number of rings
        for ring in rings:
            rows, columns = polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, drawn.shape)
            inside = np.zeros_like(drawn)
            inside[rows, columns] = 1
            drawn ^= inside
    assert len(polygons) > 3000 and np.array_equal(drawn[7:307, 9:309], noise)


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Cells of odd shapes in two images, one beneath another, one below the threshold; with the files beside."""
    rng = np.random.default_rng(2)
    blobs = [rng.random((9, 9)) < 0.8 for _ in range(6)]
    for blob in blobs:
        blob[[0, -1], 4] = blob[4, [0, -1]] = True
    ring = np.ones((7, 7), bool)
    ring[2:5, 2:5] = False
    first = [
        Instance(1 + k % 2, 0.9 - k / 10, 2 + 12 * (k // 3), 3 + 13 * k % 39, blob) for k, blob in enumerate(blobs[:4])
    ]
    second = [
        Instance(2, 0.8, 10, 10, ring),
        Instance(1, 0.7, 14, 14, np.ones((6, 6), bool)),
        Instance(1, 0.1, 0, 0, ring),
    ]
    entries = result_entries(1, first, 40, 50) + result_entries(2, second, 30, 30)
    path = tmp_path / "r.json"
    write_results(path, entries)
    ids = [
        {"file_name": "a.tif", "id": 1, "height": 40, "width": 50},
        {"file_name": "b.tif", "id": 2, "height": 30, "width": 30},
    ]
    (tmp_path / "r.id-map.json").write_text(json.dumps(ids))
    classes = [{"id": 1, "name": "one", "color": "#ff0000"}, {"id": 2, "name": "two", "color": "#0000ff"}]
    (tmp_path / "r.classes.json").write_text(json.dumps(classes))
    np.savez(tmp_path / "truth.npz", a=to_label_map(first, 40, 50), b=to_label_map(second[:2], 30, 30))
    return path


def test_labels_are_exact_and_say_what_is_covered(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, truth = results.parent / "labels", np.load(results.parent / "truth.npz")
    said = convert(capsys, "--from", "results", results, out, "--to", "labels")
    assert said.splitlines()[0].startswith("1 cells are covered in part")
    assert said.splitlines()[1] == f"wrote {out}: 6 of 7 detections (score >= 0.5, the default) in 2 images"
    for name in "ab":
        with tifffile.TiffFile(out / f"{name}.tif") as file:
            assert file.pages[0].dtype == np.uint32 and np.array_equal(file.asarray(), truth[name])
            described = json.loads(file.pages[0].description)
        assert [entry["name"] for entry in described["classes"]] == ["one", "two"]
        assert len(described["class_of_label"]) == truth[name].max()
    assert names_in(out) == ["one", "two"]


def test_geojson_outlines_are_exact(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results.parent / "geojson"
    convert(capsys, "--from", "results", results, out, "--to", "geojson")
    truths = {t.name: t for t in load_ground_truth(coco_of(results, capsys), 2)}
    for name in "ab":
        collection = json.loads((out / f"{name}.geojson").read_text())
        assert collection["type"] == "FeatureCollection"
        for feature, cell in zip(collection["features"], truths[name].instances, strict=True):
            properties = feature["properties"]
            assert properties["objectType"] == "detection" and properties["measurements"]["Area px"] == cell.area
            wanted = {1: ("one", [255, 0, 0]), 2: ("two", [0, 0, 255])}[cell.class_id]
            assert (properties["classification"]["name"], properties["classification"]["color"]) == wanted
            drawn = draw(feature["geometry"], truths[name].height, truths[name].width)
            assert np.array_equal(drawn, to_label_map([cell], *drawn.shape) > 0)


def draw(geometry: dict, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie in a GeoJSON geometry, holes left out."""
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    mask = np.zeros((height, width), bool)
    for rings in polygons:
        for index, ring in enumerate(rings):
            assert ring[0] == ring[-1]
            corners = np.array(ring[:-1]) - 0.5
            inside = np.zeros_like(mask)
            inside[polygon(corners[:, 1], corners[:, 0], mask.shape)] = True
            mask = mask | inside if index == 0 else mask & ~inside
    return mask


def coco_of(results: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = results.parent / "coco.json"
    convert(capsys, "--from", "results", results, path, "--to", "coco")
    return path


def test_coco_holds_the_same_masks(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads(coco_of(results, capsys).read_text())
    given = [entry for entry in json.loads(results.read_text()) if entry["score"] >= 0.5]
    assert [(a["segmentation"], a["score"], a["bbox"]) for a in written["annotations"]] == [
        (entry["segmentation"], entry["score"], entry["bbox"]) for entry in given
    ]
    assert all(a["area"] == coco_mask.area(a["segmentation"]) for a in written["annotations"])
    assert [category["name"] for category in written["categories"]] == ["one", "two"]


def test_the_table_measures_the_masks(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results.parent / "csv"
    convert(capsys, "--from", "results", results, out, "--to", "csv")
    rows = list(csv.DictReader((out / "b.csv").read_text().splitlines()))
    assert [(row["class"], row["area"]) for row in rows] == [("two", "40"), ("one", "36")]
    square = rows[1]
    assert float(square["centroid_x"]) == 16.5 and float(square["centroid_y"]) == 16.5
    assert float(square["major_axis"]) == pytest.approx(4 * np.sqrt(35 / 12), abs=1e-3)  # of a square of 6 pixels
    assert float(square["eccentricity"]) == 0 and square["left"] == "14" and square["width"] == "6"


def test_results_without_their_id_map_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results.parent / "r.id-map.json").unlink()
    with pytest.raises(InputError, match=r"r\.id-map\.json: no such file; name an id map with --id-map"):
        convert(capsys, "--from", "results", results, results.parent / "out", "--to", "csv")
    with pytest.raises(
        InputError, match="--to is missing: one of labels, cellpose, stardist, geojson, csv, parquet, coco"
    ):
        convert(capsys, "--from", "results", results, results.parent / "out")


def test_instances_of_labels_are_what_was_painted() -> None:
    assert [cell.area for cell in from_label_map(labels(A, B)[None].astype(np.int32))] == [80, 234]
