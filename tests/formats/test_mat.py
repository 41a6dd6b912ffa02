"""MATLAB files of Lizard, HoVer-Net, Kumar and CPM, built by the formats' definitions."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csr_matrix

from src.common.errors import InputError
from src.data.masks import cell_pixels
from src.data.tiff import read_image
from src.formats.readers.consep import CONSEP_MERGED
from src.formats.readers.mat import most_frequent
from tests.formats.test_conversion import PIXELS, A, B, convert, labels, masks_of, names_in, save

DATA = Path(__file__).parents[3] / "shared/data/CoNSeP/Train"
C = np.s_[36:39, 2:9]
IDS = labels(A, B, C).astype(np.float64) * 2  # 2, 4 and 6, with gaps as after a clean-up


def write(folder: Path, name: str = "x", image: str = "Images/{}.png", **content: object) -> Path:
    """A .mat file in ``Labels`` and its image."""
    save(folder / image.format(name), PIXELS)
    path = folder / f"Labels/{name}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"inst_map": IDS, **content})
    return path


def column(*values: float) -> np.ndarray:
    return np.array(values, float).reshape(-1, 1)


def types_file(folder: Path, types: object) -> Path:
    path = folder / "types.json"
    path.write_text(json.dumps(types))
    return path


def test_lizard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"id": column(6, 2, 4, 9), "class": column(1, 6, 3, 5)}  # in any order; 9 has no pixel
    boxes = {"bbox": np.zeros((4, 4)), "centroid": np.zeros((4, 2))}
    write(tmp_path / "in", image="Lizard_Images1/Lizard_Images1/{}.png", **content, **boxes)
    (tmp_path / "in/Labels/Labels").mkdir()
    (tmp_path / "in/Labels/x.mat").rename(tmp_path / "in/Labels/Labels/x.mat")
    save(tmp_path / "in/Overlay/x.png", PIXELS)
    said = convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    assert "1 image, 3 cells" in said and "Overlay/x.png" in said
    assert names_in(tmp_path / "out") == [
        "neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective tissue"
    ]  # fmt: skip
    found = masks_of(tmp_path / "out/x")
    assert sorted(found) == [1, 3, 6]
    assert [np.array_equal(found[k], labels(window)) for k, window in ((1, C), (3, B), (6, A))] == [True] * 3
    assert np.array_equal(read_image(tmp_path / "out/x/image.tif"), PIXELS)


TYPE_MAP = np.zeros((40, 50))
TYPE_MAP[A], TYPE_MAP[4:8, 5:10], TYPE_MAP[B], TYPE_MAP[C] = 7, 3, 3, 0
TYPE_MAP[36, 2] = 5  # most of C has no type


@pytest.mark.parametrize(
    ("content", "numbers"),
    [({"inst_type": column(7, 3, 5)}, "inst_type"), ({"type_map": TYPE_MAP}, "type_map")],
)
def test_numbers_name_the_classes_where_no_file_does(
    content: dict, numbers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", **content)
    convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    assert names_in(tmp_path / "out") == ["3", "5", "7"]
    found = masks_of(tmp_path / "out/x")
    assert all(np.array_equal(found[k], labels(window)) for k, window in ((1, B), (2, C), (3, A)))


def test_without_types_there_is_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", image="Images/{}.tif")
    convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    assert names_in(tmp_path / "out") == ["nucleus"]
    assert np.array_equal(masks_of(tmp_path / "out/x")[1], labels(A, B, C))
    with pytest.raises(InputError, match=r"--types: .*x\.mat holds no types"):
        types = types_file(tmp_path, {"1": "a"})
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "again", "--types", types)


def test_a_file_of_types_names_merges_and_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", inst_type=column(7, 3, 5))
    types = types_file(tmp_path, {"5": " b ", "7": "a", "3": "b", "8": "c"})
    convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out", "--types", types)
    assert names_in(tmp_path / "out") == ["b", "a", "c"]
    found = masks_of(tmp_path / "out/x")
    assert np.array_equal(found[1], labels(B, C)) and np.array_equal(found[2], labels(A))
    types = types_file(tmp_path, {"7": "a", "3": None, "5": None})
    said = convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "dropped", "--types", types)
    assert "1 x nucleus of type 3" in said and "1 x nucleus of type 5" in said and "1 cell;" in said
    with pytest.raises(InputError, match=r"x\.mat: holds nuclei of type 3, .*types\.json"):
        types = types_file(tmp_path, {"7": "a", "5": "b"})
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "none", "--types", types)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "types", [[], {}, {"1": None}, {"one": "a"}, {"1.5": "a"}, {"1": "a", "01": "b"}, {"1": "a", "2": 3}, {"1": " "}, 1]
)
def test_a_file_of_types_of_another_form_is_refused(
    types: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", inst_type=column(1, 1, 1))
    with pytest.raises(InputError, match=r"types\.json: "):
        given = ["--types", types_file(tmp_path, types)]
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out", *given)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"inst_map": IDS[..., None].repeat(2, axis=2)}, "inst_map is of shape"),
        ({"inst_map": IDS + 0.5}, "fractional ids"),
        ({"inst_map": -IDS}, "negative ids"),
        ({"inst_map": csr_matrix(IDS)}, "inst_map is no array of numbers"),
        ({"inst_map": IDS[:20]}, "is of 20 x 50 px"),
        ({"inst_type": column(1, 2)}, "3 nuclei, but 2 types"),
        ({"inst_type": column(1, 2, 2.5)}, "inst_type holds values"),
        ({"inst_type": column(1, 2, np.nan)}, "inst_type holds values"),
        ({"inst_type": np.array(["a", "b", "c"], object)}, "inst_type is no array of numbers"),
        ({"type_map": TYPE_MAP[:20]}, "type_map is of shape"),
        ({"class": column(1, 2, 3)}, "holds no id"),
        ({"id": column(2, 4, 4), "class": column(1, 2, 3)}, "2 different ids for 3"),
        ({"id": column(2, 4), "class": column(1, 2)}, "no class for 1 ids .*such as 6"),
        ({"id": column(2, 4, 6), "class": column(1, 2, 7)}, "type 7"),
        ({"inst_map": np.zeros((0, 0))}, "inst_map is of shape"),
    ],
)
def test_what_contradicts_itself_is_refused(
    content: dict, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", **content)
    with pytest.raises(InputError, match=rf"x\.mat: .*{reason}"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["mat", "consep"])
def test_files_of_version_7_3_and_damaged_ones_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "in", inst_type=column(1, 2, 2))
    content = path.read_bytes()
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    for damaged, reason in (
        (header + bytes(384) + b"\x89HDF\r\n\x1a\n", r"7\.3.*'-v7'"),
        (content[:200], ""),
        (b"", "cannot be read"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"x\.mat: .*{reason}") as caught:
            convert(capsys, "--from", kind, tmp_path / "in", tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_a_map_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in")
    with pytest.raises(InputError, match=r"x\.mat: its inst_map: is 40 x 50 px.*--max-pixels"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out", "--max-pixels", 1999)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", "x", inst_type=column(1, 1, 1))
    path = write(tmp_path / "in", "y")
    with pytest.raises(InputError, match=r"y\.mat: .*x\.mat holds inst_type"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    path.unlink()
    said = convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "out")
    assert "1 x image without a .mat file" in said and "y.png" in said
    save(tmp_path / "in/Images/x.jpg", PIXELS)
    with pytest.raises(InputError, match="is a second image of x"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "again")
    (tmp_path / "in/Images/x.jpg").unlink(), (tmp_path / "in/Images/x.png").unlink()
    with pytest.raises(InputError, match=r"x\.mat: has no image"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "again")
    savemat(tmp_path / "in/Labels/x.mat", {"type_map": TYPE_MAP})
    with pytest.raises(InputError, match=r"x\.mat: holds no inst_map but type_map"):
        convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "again")


def test_the_most_frequent_number_by_hand() -> None:
    ids = np.array([[1, 1, 1, 0], [2, 2, 2, 2], [3, 3, 0, 4]])
    numbers = np.array([[5, 0, 0, 9], [4, 3, 4, 3], [0, 0, 9, 1]])
    assert most_frequent(cell_pixels(ids), numbers).tolist() == [5, 3, 0, 1]
    assert most_frequent(cell_pixels(np.zeros((2, 2), int)), np.ones((2, 2))).tolist() == []


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are absent")
def test_a_file_of_types_gives_the_masks_of_consep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, suffix in (("Images", "png"), ("Labels", "mat")):
        (tmp_path / "in" / kind).mkdir(parents=True)
        (tmp_path / f"in/{kind}/train_1.{suffix}").symlink_to(DATA / kind / f"train_1.{suffix}")
    names = {1: "epithelial", 2: "inflammatory", 3: "spindle-shaped", 4: "other"}
    types = {str(k): names[v] for k, v in sorted(CONSEP_MERGED.items(), key=lambda item: item[1])}
    given = ["--types", types_file(tmp_path, types)]
    convert(capsys, "--from", "mat", tmp_path / "in", tmp_path / "mat", *given)
    convert(capsys, "--from", "consep", tmp_path / "in", tmp_path / "consep")
    found, wanted = (
        {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in (tmp_path / "mat", tmp_path / "consep")
    )
    assert found == wanted and len(found) == 6
