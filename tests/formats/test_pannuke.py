"""PanNuke's folds, built by the format's definition."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.tiff import read_image
from src.formats.readers.pannuke import open_array
from tests.formats.test_conversion import A, B, convert, labels, masks_of, names_in

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3)).astype(np.float64)
MASKS = np.zeros((3, 40, 50, 6))
MASKS[0, ..., 0] = labels(A, B) * 7  # neoplastic, ids with gaps
MASKS[0, ..., 4] = labels(np.s_[10:14, 14:20])  # epithelial, over the edge of a neoplastic one
MASKS[2, ..., 3] = labels(B)
MASKS[..., 5] = (MASKS[..., :5] == 0).all(axis=3)


def write(folder: Path, images: np.ndarray = IMAGES, masks: np.ndarray = MASKS, layout: str = "{0}") -> Path:
    for name, array in (("images", images), ("masks", masks)):
        path = folder / layout.format(name) / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return folder


@pytest.mark.parametrize("layout", ["", "{0}", "{0}/fold1"])
def test_a_fold(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "Fold 1", layout=layout)
    np.save(tmp_path / "Fold 1" / layout.format("images") / "types.npy", np.array(["Breast", "Colon", "Breast"]))
    said = convert(capsys, "--from", "pannuke", tmp_path / "Fold 1", tmp_path / "out")
    assert "3 images, 4 cells" in said and "fold1: 2 Breast, 1 Colon" in said and "not read" not in said
    assert names_in(tmp_path / "out") == ["neoplastic", "inflammatory", "connective", "dead", "epithelial"]
    found = masks_of(tmp_path / "out/fold1_0000")
    assert sorted(found) == [1, 5] and np.array_equal(found[1], labels(A, B))
    assert np.array_equal(found[5], labels(np.s_[10:14, 14:20]))
    assert not masks_of(tmp_path / "out/fold1_0001") and list(masks_of(tmp_path / "out/fold1_0002")) == [4]
    assert np.array_equal(read_image(tmp_path / "out/fold1_0002/image.tif"), IMAGES[2])


def test_folds_of_the_download_are_read_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        write(tmp_path / f"in/Fold {number}", IMAGES[:number].astype(np.uint8), MASKS[:number].astype(np.uint16),
              f"{{0}}/fold{number}")  # fmt: skip
    (tmp_path / "in/Fold 1/README.md").write_text("")
    said = convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    assert "3 images" in said and "README.md" in said
    assert sorted(path.name for path in (tmp_path / "out").glob("*_*")) == ["fold1_0000", "fold2_0000", "fold2_0001"]


def test_images_are_mapped_and_not_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    assert isinstance(open_array(tmp_path / "images.npy", 3), np.memmap)


@pytest.mark.parametrize(
    ("images", "masks", "reason"),
    [
        (IMAGES[:2], MASKS, r"masks\.npy: is of shape \(3, 40, 50, 6\), but .*images\.npy of \(2,"),
        (IMAGES[..., :2], MASKS, r"images\.npy: holds float64 of shape"),
        (IMAGES, MASKS[..., :5], r"masks\.npy: holds float64 of shape"),
        (IMAGES[0], MASKS, r"images\.npy: holds"),
        (IMAGES[:0], MASKS[:0], r"images\.npy: holds"),
        (IMAGES.astype(complex), MASKS, r"images\.npy: holds complex"),
        (IMAGES + 1, MASKS, r"images\.npy: image 0 holds values from 1 to 256"),
        (IMAGES / 255, MASKS, r"images\.npy: image 0 holds fractions"),
        (IMAGES * np.nan, MASKS, r"images\.npy: image 0 holds values"),
        (IMAGES, MASKS + 0.5, r"masks\.npy: image 0: holds fractional"),
        (IMAGES, -MASKS, r"masks\.npy: image 0: holds negative"),
    ],
)
def test_other_arrays_are_refused(
    images: np.ndarray, masks: np.ndarray, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", images, masks)
    with pytest.raises(InputError, match=reason):
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    """The first bytes of a NumPy file, version 1.0."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("name", ["images", "masks"])
def test_damaged_files_and_pickles_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in") / f"{name}/{name}.npy"
    content, mark = path.read_bytes(), tmp_path / "ran"
    script = (
        "import numpy, pathlib, sys\n"
        "class Evil:\n def __reduce__(self): return pathlib.Path.touch, (pathlib.Path(sys.argv[2]),)\n"
        "numpy.save(sys.argv[1], numpy.array([Evil()], object))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "evil.npy"), str(mark)], check=True)
    np.savez(tmp_path / "many.npz", IMAGES)
    for damaged in (
        b"",
        content[:50],
        content[:-1],
        header((10**9, 256, 256, 3)),
        header((10**30, 256, 256, 3)),
        header((3, 40, 50, 3), "|O"),
        (tmp_path / "evil.npy").read_bytes(),
        (tmp_path / "many.npz").read_bytes(),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.npy: ") as caught:
            convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    with pytest.raises(InputError, match="--max-pixels"):
        path.write_bytes(content)
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out", "--max-pixels", 1999)


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in")
    np.save(tmp_path / "in/types.npy", np.array(["Breast"]))
    with pytest.raises(InputError, match=r"types\.npy: .*3 images"):
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/types.npy").unlink()
    (tmp_path / "in/masks/masks.npy").rename(tmp_path / "masks.npy")
    with pytest.raises(InputError, match=r"images\.npy: has no masks\.npy"):
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match=r"(masks|images)\.npy: has no (masks|images)\.npy"):
        (tmp_path / "masks.npy").rename(tmp_path / "in/masks/masks.npy")
        (tmp_path / "in/images/images.npy").rename(tmp_path / "images.npy")
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="holds nothing in the format pannuke"):
        (tmp_path / "in/masks/masks.npy").unlink()
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="--intensity: has no effect with --from pannuke"):
        convert(capsys, "--from", "pannuke", tmp_path / "in", tmp_path / "out", "--intensity", "percentile")
