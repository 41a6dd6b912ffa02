"""Images and label images that two patterns name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from src.common.errors import InputError
from src.formats.readers.pairs import parse_pattern
from tests.formats.test_conversion import PIXELS, A, B, convert, labels, masks_of, names_in, save

DATA = Path(__file__).parents[3] / "shared/data/dsb-he/train"


def pairs(capsys: pytest.CaptureFixture[str], folder: Path, out: Path, image: str, mask: str, *more: object) -> str:
    return convert(capsys, "--from", "pairs", folder, out, "--image-pattern", image, "--mask-pattern", mask, *more)


def save_tiff(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array)
    return path


@pytest.mark.parametrize(
    ("given", "glob"),
    [
        ("_img.png", "*_img.png"),
        ("*_img.png", "*_img.png"),
        ("tissue images", "tissue images/*.*"),
        ("tissue images/", "tissue images/*.*"),
        ("tissue images/*", "tissue images/*.*"),
        ("tissue images/*.*", "tissue images/*.*"),
        ("./tissue images\\*.png", "tissue images/*.png"),
        ("**/images/*.png", "images/*.png"),
        ("*/images/*.png", "images/*.png"),
        ("*/image.png", "*/image.png"),
        ("*/*/image.png", "*/image.png"),
        ("a/_img.tif", "a/*_img.tif"),
        ("x_*.*", "x_*.*"),
        ("*/image.*", "*/image.*"),
        ("**/a/*/image.*", "a/*/image.*"),
        ("_img.*", "*_img.*"),
        ("_seg.npy", "*_seg.npy"),
    ],
)
def test_patterns_as_people_type_them(given: str, glob: str) -> None:
    assert parse_pattern("--image-pattern", given).glob == glob


@pytest.mark.parametrize("given", [None, "", " ", "/", "/data/*.png", "../*.png", "a/../*.png", "a*b*.png", "**"])
def test_patterns_that_say_nothing_are_refused(given: str | None) -> None:
    with pytest.raises(InputError, match="--mask-pattern"):
        parse_pattern("--mask-pattern", given)


def test_folders_of_an_organ_each_are_paired_by_organ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for organ, window in (("human bladder", A), ("mouse K\u00f6rper", B)):
        save(tmp_path / f"in/{organ}/tissue images/1.png", PIXELS)
        save_tiff(tmp_path / f"in/{organ}/label masks/1.tif", labels(window, dtype=np.int32))
    save(tmp_path / "in/human bladder/tissue images/only image.png", PIXELS)
    save_tiff(tmp_path / "in/mouse K\u00f6rper/label masks/only mask.tif", labels(A))
    said = pairs(capsys, tmp_path / "in", tmp_path / "out", "tissue images/*.png", "LABEL masks/*.tif")
    assert "1 x image without a mask" in said and "only image.png" in said
    assert "1 x mask without an image" in said and "only mask.tif" in said
    assert "2 images, 2 cells" in said and names_in(tmp_path / "out") == ["cell"]
    assert np.array_equal(masks_of(tmp_path / "out/human bladder_1")[1], labels(A))
    assert np.array_equal(masks_of(tmp_path / "out/mouse K\u00f6rper_1")[1], labels(B))


def test_an_image_is_not_paired_with_the_mask_of_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in/a/images/1.png", PIXELS)
    save(tmp_path / "in/b/masks/1.png", labels(A))
    with pytest.raises(InputError, match=r"a/images/1\.png and .*b/masks/1\.png differ in name or folder"):
        pairs(capsys, tmp_path / "in", tmp_path / "out", "images", "masks")


@pytest.mark.parametrize(
    ("image", "mask", "patterns"),
    [
        ("x_img.png", "x_masks.png", ("*_img.png", "*_masks.png")),
        ("X_img.png", "x_masks.PNG", ("_IMG.png", "_masks.png")),
        ("x.ome.tif", "x_mask.ome.tif", ("*.ome.tif", "*_mask.ome.tif")),
        ("x_raw.tif", "x.tif", ("*_raw.tif", "*.tif")),
        ("x/image.png", "x/mask.png", ("*/image.png", "*/mask.png")),
        ("x/image.jpg", "x/mask.png", ("*/image.*", "*/mask.*")),
        ("images/s/x_img.png", "masks/s/x_mask.png", ("_img.png", "_mask.png")),
        ("x.jpg", "gt_x.png", ("*.*", "gt_*.*")),
        ("x.ome.tif", "x_mask.ome.tif", ("*", "*_mask.*")),
        ("x.png", "x_mask.ome.tif", ("*.*", "*_mask.*")),
    ],
)
def test_endings_folders_and_beginnings(
    image: str, mask: str, patterns: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in" / image, PIXELS)
    save(tmp_path / "in" / mask, labels(A, B))
    pairs(capsys, tmp_path / "in", tmp_path / "out", *patterns)
    assert [path.name.lower() for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["x"]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert np.array_equal(masks_of(folder)[1], labels(A, B))


def test_what_the_patterns_leave_open_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a_img.png", "a_mask.png", "a_img_mask.png"):
        save(tmp_path / "in" / name, labels(A) if "mask" in name else PIXELS)
    (tmp_path / "in/a_mask.txt").write_text("")
    for patterns, reason in (
        (("*.jpg", "*_mask.png"), r"--image-pattern \*\.jpg: .*matches none of 4 files"),
        (("*_img.png", "*.jpg"), r"--mask-pattern \*\.jpg: .*matches none"),
        (("*.png", "*.png"), r"a_img\.png: is matched by both"),
        (("a_*.png", "*_mask.png"), r"no image has a mask"),
        (("*_img.png", "*_mask.txt"), r"a_mask\.txt: is matched by --mask-pattern"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            pairs(capsys, tmp_path / "in", tmp_path / "out", *patterns)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    save(tmp_path / "in/b_mask.png", labels(A))
    with pytest.raises(InputError, match=r"is matched by both"):
        pairs(capsys, tmp_path / "in", tmp_path / "out", "a_*.png", "*_mask.png")
    for name in ("x/1_img.png", "x/1_mask.png", "x/1_mask.tif"):
        save(tmp_path / "two" / name, labels(A))
    with pytest.raises(InputError, match=r"x/1_mask\.tif: is a second mask of 1 beside .*x/1_mask\.png"):
        pairs(capsys, tmp_path / "two", tmp_path / "out", "*_img.png", "*_mask.*")
    with pytest.raises(InputError, match="--image-pattern is missing"):
        convert(capsys, "--from", "pairs", tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="--image-pattern: has no effect with --from labels"):
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out", "--image-pattern", "*.png")


@pytest.mark.parametrize("name", ["x_mask.webp", "x_mask.jpg"])
def test_masks_with_loss_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x_img.png", PIXELS)
    Image.fromarray(labels(A, dtype=np.uint8)).save(tmp_path / "in" / name)
    with pytest.raises(InputError, match=rf"{name}: JPEG, WebP"):
        pairs(capsys, tmp_path / "in", tmp_path / "out", "*_img.png", "*_mask.*")


def write_seg(path: Path) -> Path:
    """A file as cellpose's window saves it: a dictionary, pickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = (
        "import numpy, sys; masks = numpy.zeros((40, 50), numpy.uint16); masks[4:12, 5:15] = 1;"
        " numpy.save(sys.argv[1], {'masks': masks})"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    return path


def test_pickles_of_cellpose_are_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x.png", PIXELS)
    write_seg(tmp_path / "in/x_seg.npy")
    with pytest.raises(InputError, match=r"x_seg\.npy: holds a pickle") as caught:
        convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    for mask in ("*_seg.npy", "*_masks.tif"):
        with pytest.raises(InputError, match=r"x_seg\.npy: holds a pickle"):
            pairs(capsys, tmp_path / "in", tmp_path / "out", "*.png", mask)
    command = str(caught.value).split(" -c ")[1].strip('"')
    subprocess.run([sys.executable, "-c", command], check=True, cwd=tmp_path / "in")
    convert(capsys, "--from", "labels", tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A))


def test_a_mask_of_255_is_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/x_img.png", PIXELS)
    save(tmp_path / "in/x_mask.png", (labels(A, B) > 0).astype(np.uint8) * 255)
    said = pairs(capsys, tmp_path / "in", tmp_path / "one", "*_img.png", "*_mask.png")
    assert "--split-pieces" in said
    pairs(capsys, tmp_path / "in", tmp_path / "two", "*_img.png", "*_mask.png", "--split-pieces")
    assert np.array_equal(masks_of(tmp_path / "two/x")[1], labels(A, B))


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are absent")
def test_a_training_folder_is_read_as_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.parent.name for path in DATA.glob("*/class1.tif"))[:3]
    for name in names:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(DATA / name)
    pairs(capsys, DATA, tmp_path / "out", "*/image.tif", "*/class1.tif")
    for name in names:
        assert np.array_equal(masks_of(tmp_path / "out" / name)[1], masks_of(DATA / name)[1])
