"""Results that are exported and imported again, beside their images, have the same masks and classes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile

from src.common.errors import InputError
from src.convert import main
from src.data.masks import read_mask
from src.data.tiff import write_image
from src.evaluation.results import result_entries, write_results
from src.geometry.instances import Instance, from_label_map, tight
from src.geometry.outlines import outlines

SIZES = {"a": (40, 50), "Körper 1.b": (30, 64)}
CLASSES = [
    {"id": 1, "name": "zweite Art", "color": "#ff0000"},
    {"id": 2, "name": "Tumor: Positive", "color": "#0000ff"},
    {"id": 3, "name": "none here", "color": "#00ff00"},
]


def odd_cells() -> list[Instance]:
    """Cells that do not overlap: with holes, in pieces, touching at corners and sides, at the border, of one pixel."""
    ring = np.ones((7, 8), bool)
    ring[2:4, 2:4] = ring[4, 4] = ring[5, 5] = False  # holes that touch at a corner
    closed = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)  # its hole and what is outside touch at a corner
    island = np.zeros((9, 9), bool)
    island[[0, -1]] = island[:, [0, -1]] = island[4, 4] = True
    pieces = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0]], bool)
    return [
        Instance(1, 0.9, 0, 0, ring),  # in the corner of the image
        Instance(2, 0.8, 7, 8, np.ones((3, 3), bool)),  # touches it at a corner
        Instance(1, 0.7, 10, 11, closed),
        Instance(2, 0.75, 15, 0, island),
        Instance(1, 0.6, 17, 2, np.ones((2, 2), bool)),  # within its hole
        Instance(1, 0.95, 2, 20, pieces),
        Instance(2, 0.65, 25, 30, np.ones((1, 1), bool)),
        Instance(2, 0.55, 29, 49, np.ones((1, 1), bool)),  # at the border
        Instance(1, 0.5, 25, 31, np.ones((5, 1), bool)),
    ]


def noise() -> list[Instance]:
    """Cells of random pixels, which fill the image."""
    rng = np.random.default_rng(0)
    label_map = np.kron(rng.integers(1, 3, (3, 8)), np.ones((10, 8), int)) * 0
    for number in range(24):
        row, column = divmod(number, 8)
        label_map[row * 10 : row * 10 + 10, column * 8 : column * 8 + 8] = number + 1
    label_map[rng.random(label_map.shape) < 0.3] = 0
    return [Instance(1 + n % 2, 0.9, c.top, c.left, c.mask) for n, c in enumerate(from_label_map(label_map[None]))]


CELLS = {"a": odd_cells(), "Körper 1.b": noise()}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two images with their id map and classes, and the images in a folder of their own."""
    ids, entries = [], []
    for number, (name, (height, width)) in enumerate(SIZES.items(), start=4):
        ids.append({"file_name": f"{name}.tif", "id": number, "height": height, "width": width})
        entries += result_entries(number, CELLS[name], height, width)
        (tmp_path / "images").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        write_image(tmp_path / f"images/{name}.tif", pixels)
    write_results(tmp_path / "r.json", entries)
    (tmp_path / "r.id-map.json").write_text(json.dumps(ids))
    (tmp_path / "r.classes.json").write_text(json.dumps(CLASSES))
    return tmp_path / "r.json"


def wanted(name: str, class_id: int, of_one_class: bool = False) -> np.ndarray:
    """The mask of a class, in which ids are the cells in the order of the results."""
    mask = np.zeros(SIZES[name], np.int32)
    chosen = [cell for cell in CELLS[name] if of_one_class or cell.class_id == class_id]
    for number, cell in enumerate(chosen, start=1):
        mask[cell.top : cell.bottom, cell.left : cell.right][cell.mask] = number
    return mask


def check_masks(out: Path, of_one_class: bool) -> None:
    for name in SIZES:
        masks = {path.name: read_mask(path) for path in (out / name).glob("*.tif") if path.name != "image.tif"}
        assert set(masks) == ({"class1.tif"} if of_one_class else {"class1.tif", "class2.tif"})
        for file, mask in masks.items():
            assert np.array_equal(mask, wanted(name, int(file[5]), of_one_class)), (name, file)


def beside(out: Path, images: Path) -> Path:
    for image in images.iterdir():
        shutil.copy(image, out / image.name)
    return out


def in_masks(out: Path, images: Path) -> Path:
    both = out.with_name(f"{out.name}-both")
    shutil.copytree(images, both / "images")
    shutil.copytree(out / "masks" if (out / "masks").is_dir() else out, both / "masks")
    return both


PAIRS: list[tuple[str, str, list[str], Callable[[Path, Path], Path]]] = [
    ("labels", "labels", [], in_masks),
    ("cellpose", "labels", [], beside),
    ("stardist", "labels", [], in_masks),
    ("geojson", "geojson", [], beside),
    ("geojson", "geojson", ["--gzip"], beside),
    ("coco", "coco", [], lambda out, images: out),
]


@pytest.mark.parametrize(("written", "read", "flags", "arrange"), PAIRS)
def test_masks_and_classes_come_back(
    written: str, read: str, flags: list[str], arrange: Callable[[Path, Path], Path], results: Path
) -> None:
    folder = results.parent
    out = folder / written if written != "coco" else folder / "coco/cells.json"
    main(["--from", "results", str(results), str(out), "--to", written, *flags])
    given = arrange(out, folder / "images")
    main(["--from", read, str(given), str(folder / "back")])
    is_one_class = written in ("cellpose", "stardist")
    check_masks(folder / "back", is_one_class)
    if not is_one_class:
        named = json.loads((folder / "back/classes.json").read_text())
        assert [entry["name"] for entry in named] == [entry["name"] for entry in CLASSES]
    if written in ("labels", "geojson"):
        assert named == CLASSES


def test_images_of_a_folder_of_their_own_are_found(results: Path) -> None:
    folder = results.parent
    main(["--from", "results", str(results), str(folder / "geojson"), "--to", "geojson"])
    main(["--from", "geojson", str(folder / "geojson"), str(folder / "back"), "--images", str(folder / "images")])
    check_masks(folder / "back", of_one_class=False)


def test_outlines_in_parquet_are_the_cells(results: Path) -> None:
    out = results.parent / "parquet"
    main(["--from", "results", str(results), str(out), "--to", "parquet"])
    rows = pq.read_table(out / "cells.parquet").to_pylist()
    cells = [(name, cell) for name in SIZES for cell in CELLS[name]]
    assert [(row["image"], row["class_id"], row["area"]) for row in rows] == [
        (name, cell.class_id, cell.area) for name, cell in cells
    ]
    for row, (_, cell) in zip(rows, cells, strict=True):
        shape = shapely.from_wkb(row["geometry"])
        wanted_shape = shapely.union_all(
            [shapely.box(cell.left + x, cell.top + y, cell.left + x + 1, cell.top + y + 1)
             for y, x in np.argwhere(cell.mask)]
        )  # fmt: skip
        assert shape.is_valid and shape.area == cell.area and shape.equals(wanted_shape)
        parts = shape.geoms if shape.geom_type == "MultiPolygon" else [shape]
        assert len(parts) == len(outlines(cell))


def test_rings_of_random_cells_are_valid() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        cell = tight(1, 1.0, 3, 5, rng.random((9, 9)) < rng.uniform(0.3, 0.95))
        if cell:
            shape = shapely.MultiPolygon([(rings[0], rings[1:]) for rings in outlines(cell)])
            assert shape.is_valid and shape.area == cell.area


@pytest.mark.parametrize(
    ("description", "names"),
    [
        ({"classes": CLASSES, "class_of_label": [2, 1]}, [entry["name"] for entry in CLASSES]),
        ({"classes": CLASSES[:2], "class_of_label": [2, 1]}, ["cell"]),  # not the classes of the other image
        ({"classes": CLASSES, "class_of_label": [2, 4]}, ["cell"]),
        ({"classes": CLASSES, "class_of_label": 3}, ["cell"]),
        ({"shape": [40, 50]}, ["cell"]),
        ("ImageJ=1.54", ["cell"]),
    ],
)
def test_label_images_have_classes_where_all_describe_the_same(
    description: dict | str, names: list[str], tmp_path: Path
) -> None:
    label_map = np.zeros((40, 50), np.uint16)
    label_map[2:5, 2:5], label_map[2:5, 8:12] = 1, 2
    given = {"classes": CLASSES, "class_of_label": [1, 1]}
    for name, described in (("a", given), ("b", description)):
        text = described if isinstance(described, str) else json.dumps(described)
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", label_map, description=text, metadata=None)
        write_image(tmp_path / f"{name}.tif", np.zeros((40, 50, 3), np.uint8))
    main(["--from", "labels", str(tmp_path), str(tmp_path / "out")])
    assert [entry["name"] for entry in json.loads((tmp_path / "out/classes.json").read_text())] == names
    found = sorted(path.name for path in (tmp_path / "out/b").glob("class*"))
    assert found == (["class1.tif", "class2.tif"] if len(names) > 1 else ["class1.tif"])


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    label_map = np.full((40, 50), 2, np.uint16)
    text = json.dumps({"classes": CLASSES, "class_of_label": [1]})
    tifffile.imwrite(tmp_path / "a_masks.tif", label_map, description=text, metadata=None)
    write_image(tmp_path / "a.tif", np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(InputError, match=r"a_masks\.tif: its description names no class for the label 2"):
        main(["--from", "labels", str(tmp_path), str(tmp_path / "out")])
