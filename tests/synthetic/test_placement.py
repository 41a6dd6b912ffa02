"""The synthetic data: what its files hold, that the seed decides every byte, and that a colour rule cannot solve it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from src.common.errors import run_command
from src.common.files import read_json
from src.data.classes import HOMEWORK_CLASSES
from src.data.images_to_predict import find_test_images
from src.data.masks import read_mask
from src.data.splits import read_split
from src.data.tiff import read_image
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import result_entries
from src.evaluation.scores import score
from src.geometry.instances import Instance, from_label_map
from src.sample import main
from src.synthetic.dataset import draw_size, write_sample
from src.synthetic.placement import MIN_FRAGMENT, MIN_SIZE, make_tissue
from src.synthetic.tissue import KINDS, Shape, distance_to_outline, reach
from tests.helpers import find_records

Tissues = list[tuple[np.ndarray, np.ndarray]]

ID_MAP = "test_image_name_to_ids.json"
NUM_CLASSES = len(HOMEWORK_CLASSES)
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])  # haematoxylin, eosin, the rest


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training and two test images, as small as they may be."""
    out = tmp_path_factory.mktemp("sample") / "data"
    write_sample(out, images=2, seed=3, size=MIN_SIZE)
    return out


@pytest.fixture(scope="module")
def tissues() -> Tissues:
    """Images and label maps in the sizes of the default."""
    generators = [np.random.default_rng([11, index]) for index in range(6)]
    return [make_tissue(rng, *draw_size(rng, None)) for rng in generators]


def without_neutrophils(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """In place of the generator: a black image with one cell of each class but the third."""
    label_map = np.zeros((NUM_CLASSES, height, width), np.int32)
    for channel in (0, 1, 3):
        label_map[channel, 5:20, 30 * channel : 30 * channel + 20] = 1
    return np.zeros((height, width, 3), np.uint8), label_map


def flat(label_map: np.ndarray) -> np.ndarray:
    """One map of all cells, with the count that reached each pixel checked to be at most one."""
    assert ((label_map > 0).sum(axis=0) <= 1).all()
    offsets = np.cumsum([0, *label_map.max(axis=(1, 2))])[:-1]
    return np.where(label_map > 0, label_map + offsets[:, None, None], 0).max(axis=0)


def touching(labels: np.ndarray) -> float:
    """The share of cells of which some pixel has another cell's pixel among its eight neighbours."""
    padded = np.pad(labels, 1)
    height, width = labels.shape
    found: set[int] = set()
    for row in range(3):
        for column in range(3):
            neighbour = padded[row : row + height, column : column + width]
            found.update(np.unique(labels[(labels > 0) & (neighbour > 0) & (neighbour != labels)]).tolist())
    return len(found) / labels.max()


def smallest_piece(cell: Instance) -> int:
    _, _, statistics, _ = cv2.connectedComponentsWithStats(cell.mask.astype(np.uint8))
    return int(statistics[1:, cv2.CC_STAT_AREA].min())


def test_touching_counts_corners_and_not_gaps() -> None:
    corner = np.array([[1, 0, 0, 0], [0, 2, 0, 3]])
    assert touching(corner) == pytest.approx(2 / 3)


def test_files_are_in_the_layout_that_the_readers_take(sample: Path) -> None:
    records = find_records(sample / "train", NUM_CLASSES)
    assert [record.name for record in records] == ["train_000", "train_001"]
    assert read_split(sample / "split.json") == {"train": ["train_000"], "val": ["train_001"]}
    images = find_test_images(sample / "test_release", sample / ID_MAP)
    assert [image.entry.id for image in images] == [2, 1]  # not in the order of the names
    assert all(set(entry) == {"file_name", "id", "height", "width"} for entry in read_json(sample / ID_MAP))
    truths = load_ground_truth(sample / "test_gt", NUM_CLASSES, sample / ID_MAP)
    assert all((truth.height, truth.width) == (MIN_SIZE, MIN_SIZE) for truth in truths)
    assert read_image(records[0].image).shape == (MIN_SIZE, MIN_SIZE, 3)


def test_ids_are_numbered_within_each_class_and_files_match_the_generator(sample: Path) -> None:
    rng = np.random.default_rng([3, 0, 1])
    image, label_map = make_tissue(rng, *draw_size(rng, MIN_SIZE))
    folder = sample / "train" / "train_001"
    assert (read_image(folder / "image.tif") == image).all()
    for class_id, labels in enumerate(label_map, start=1):
        assert (np.unique(labels) == np.arange(labels.max() + 1)).all()
        assert (read_mask(folder / f"class{class_id}.tif") == labels).all()


def test_class_without_cells_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.synthetic.dataset.make_tissue", without_neutrophils)
    assert write_sample(tmp_path, images=9, seed=0) == 3 * (9 + 2)
    files = sorted(path.name for path in (tmp_path / "train" / "train_000").iterdir())
    assert files == ["class1.tif", "class2.tif", "class4.tif", "image.tif"]
    assert [len(names) for names in read_split(tmp_path / "split.json").values()] == [7, 2]


def test_same_seed_gives_the_same_bytes_and_another_seed_another_image(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, images=2, seed=3, size=MIN_SIZE)
    files = sorted(path.relative_to(sample) for path in sample.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 2 * 5 + 2 * 5 + 2
    assert all((sample / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_every_image_is_another_one(sample: Path) -> None:
    images = [read_image(path) for path in [*sample.glob("train/*/image.tif"), *sample.glob("test_release/*.tif")]]
    other, _ = make_tissue(np.random.default_rng([4, 0, 0]), MIN_SIZE, MIN_SIZE)
    assert len({image.tobytes() for image in [*images, other]}) == 5


def test_images_are_dense_and_their_cells_touch(sample: Path, tissues: Tissues) -> None:
    folders = [*sample.glob("train/*"), *sample.glob("test_gt/*")]
    smallest = [np.stack([read_mask(folder / f"class{k}.tif") for k in (1, 2, 3, 4)]) for folder in folders]
    for label_map in [*smallest, *(label_map for _, label_map in tissues)]:
        labels = flat(label_map)
        assert labels.max() >= 150
        assert touching(labels) >= 0.3
        assert label_map.max(axis=(1, 2)).min() >= 4  # even a rare class can be learned
        assert min(smallest_piece(cell) for cell in from_label_map(label_map)) >= MIN_FRAGMENT


def test_sizes_and_stain_vary(tissues: Tissues) -> None:
    assert len({image.shape for image, _ in tissues}) > 1
    assert any(image.shape[0] != image.shape[1] for image, _ in tissues)
    means = np.array([image.mean(axis=(0, 1)) for image, _ in tissues])
    assert means.std(axis=0).min() > 2
    assert (means[:, 0] > means[:, 1]).all()  # pink and purple, in RGB order
    assert (means[:, 2] > means[:, 1]).all()


def test_macrophages_are_largest_and_neutrophils_smallest(tissues: Tissues) -> None:
    cells = [cell for _, label_map in tissues for cell in from_label_map(label_map)]
    area = [np.median([cell.area for cell in cells if cell.class_id == k]) for k in range(1, NUM_CLASSES + 1)]
    assert area[3] > 1.5 * max(area[:2])
    assert area[2] < 0.75 * min(area[:2])


def test_two_classes_differ_by_texture_alone(tissues: Tissues) -> None:
    """Size and colour leave a pair of cells of classes 1 and 2 at chance; the grain of the chromatin does not."""
    assert replace(KINDS[0], share=0, texture=KINDS[1].texture) == replace(KINDS[1], share=0)
    values: dict[str, list[list[float]]] = {"area": [[], []], "darkness": [[], []], "grain": [[], []]}
    for image, label_map in tissues:
        grey = image.astype(float).mean(axis=2)
        grain = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.5))
        for cell in from_label_map(label_map[:2]):
            inner = ndimage.binary_erosion(cell.mask, iterations=4)
            window = slice(cell.top, cell.bottom), slice(cell.left, cell.right)
            if inner.any():
                values["area"][cell.class_id - 1].append(cell.area)
                values["darkness"][cell.class_id - 1].append(grey[window][cell.mask].mean() - grey.mean())
                values["grain"][cell.class_id - 1].append(grain[window][inner].mean())
    assert 0.42 < chance_above(*values["area"]) < 0.58
    assert 0.40 < chance_above(*values["darkness"]) < 0.60
    assert chance_above(*values["grain"]) > 0.9


def chance_above(first: list[float], second: list[float]) -> float:
    """How often a member of ``second`` exceeds one of ``first``: the area under the ROC curve; 0.5 is chance."""
    return float((np.array(second)[:, None] > np.array(first)[None]).mean())


def test_outline_of_a_circle_is_its_distance_and_reach_its_radius() -> None:
    circle = Shape(row=20.0, column=30.0, radius=8.0, elongation=1.0, angle=0.3)
    (rows, columns), distance = distance_to_outline(circle, (60, 60))
    y, x = np.mgrid[rows, columns]
    assert np.allclose(distance, np.hypot(y - 20, x - 30) - 8, atol=1e-5)
    assert reach(circle, 1.0) == pytest.approx(8)
    assert reach(Shape(0, 0, 8.0, 4.0, 0.0), 0.0) == pytest.approx(16)  # stretched to twice, thinned to a half
    assert reach(Shape(0, 0, 8.0, 4.0, 0.0), np.pi / 2) == pytest.approx(4)
    assert reach(Shape(0, 0, 8.0, 1.0, 0.0, (0.25,), (0.0,)), 0.0) == pytest.approx(10)  # one harmonic, cos 2θ


def darkness(image: np.ndarray, channel: str) -> np.ndarray:
    """Optical density of haematoxylin, or of the red channel, as a multiple of the image's median."""
    density = -np.log((image + 1.0) / 256)
    if channel == "haematoxylin":
        density = density @ np.linalg.inv(RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True))
    return density[..., 0] / np.median(density[..., 0])


def threshold_cells(dark: np.ndarray) -> list[Instance]:
    """Otsu's threshold, holes filled, opened; each component is a cell and scores by how convex it is."""
    levels = cv2.normalize(cv2.GaussianBlur(dark, (0, 0), 1), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    _, binary = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    filled = ndimage.binary_fill_holes(binary).astype(np.uint8)
    opened = cv2.morphologyEx(filled, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    _, labels = cv2.connectedComponents(opened, connectivity=4)
    components = [cell for cell in from_label_map(labels[None]) if cell.area >= 40]
    return [replace(cell, score=cell.area / max(cell.area, hull_area(cell.mask))) for cell in components]


def hull_area(mask: np.ndarray) -> float:
    return cv2.contourArea(cv2.convexHull(np.argwhere(mask).astype(np.int32)))


def look(cell: Instance, dark: np.ndarray) -> np.ndarray:
    """Size and colour of a cell."""
    pixels = dark[cell.top : cell.bottom, cell.left : cell.right][cell.mask]
    return np.array([np.log(cell.area), pixels.mean(), pixels.std()])


def class_looks(tissues: Tissues, channel: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean look of each class, ``(K, 3)``, and the spread of looks over all cells, learned from ground truth."""
    looks, categories = [], []
    for image, label_map in tissues:
        dark, cells = darkness(image, channel), from_label_map(label_map)
        looks += [look(cell, dark) for cell in cells]
        categories += [cell.class_id for cell in cells]
    looks, categories = np.array(looks), np.array(categories)
    return np.array([looks[categories == k].mean(axis=0) for k in range(1, NUM_CLASSES + 1)]), looks.std(axis=0)


def classify(cell: Instance, dark: np.ndarray, means: np.ndarray, spread: np.ndarray) -> Instance:
    """Give a cell the class that it looks most like."""
    distances = np.linalg.norm((look(cell, dark) - means) / spread, axis=1)
    return replace(cell, class_id=int(np.argmin(distances)) + 1)


@pytest.mark.parametrize("channel", ["haematoxylin", "red"])
def test_a_colour_rule_finds_cells_but_scores_below_a_quarter(tissues: Tissues, channel: str) -> None:
    """A threshold can neither part cells that touch nor read texture, even with classes learned from the truth."""
    learned = class_looks(tissues[:3], channel)
    truths, majority, likeness = [], [], []
    for image_id, (image, label_map) in enumerate(tissues[3:], start=1):
        size, dark = image.shape[:2], darkness(image, channel)
        cells = threshold_cells(dark)
        truths.append(ImageTruth(image_id, f"{image_id}.tif", *size, from_label_map(label_map)))
        majority += result_entries(image_id, cells, *size)
        likeness += result_entries(image_id, [classify(cell, dark, *learned) for cell in cells], *size)
    scores = [score(truths, entries, HOMEWORK_CLASSES)["uncapped"]["AP50"] for entries in (majority, likeness)]
    agnostic = [replace(truth, instances=[replace(i, class_id=1) for i in truth.instances]) for truth in truths]
    assert score(agnostic, majority, HOMEWORK_CLASSES)["uncapped"]["AP50"] > 0.2  # the rule is no straw man
    assert max(scores) < 0.25
    assert scores[1] > scores[0]  # size and colour do tell some classes apart


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--out"),
        (["--out", "new", "--images", "1"], "--images must be at least 2"),
        (["--out", "new", "--seed", "-1"], "--seed must be at least 0"),
        (["--out", "new", "--size", "100"], "--size must be at least 304"),
        (["--out", "full"], "--out full: is not empty"),
        (["--out", "full/file"], "--out full/file: cannot be written"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, flags: list[str], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sample", *flags])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    lines = capsys.readouterr().err.splitlines()
    assert (stop.value.code, len(lines)) == (2, 1)
    assert message in lines[0]
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


def test_the_last_line_says_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.synthetic.dataset.make_tissue", without_neutrophils)
    monkeypatch.setattr("sys.argv", ["sample", "--out", "new", "--images", "8"])
    main()
    assert capsys.readouterr().out == "wrote new: 8 training and 2 test images with 30 cells\n"
    assert len(find_records(tmp_path / "new" / "train", NUM_CLASSES)) == 8


def test_the_demo_removes_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    script = Path(__file__).resolve().parents[2] / "script/demo.sh"
    answer = subprocess.run(["bash", str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert answer.returncode == 2 and str(tmp_path) in answer.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
