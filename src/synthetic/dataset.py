"""A data set of synthetic images in the homework's own layout, with the ground truth of the test images.

Every image is a pure function of (seed, part, index). Two of the four classes differ in nothing but their texture.
"""

from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.files import write_json, writing
from src.common.progress import ProgressBar
from src.data.id_map import ImageId, write_id_map
from src.data.tiff import write_image, write_mask
from src.synthetic.placement import make_tissue

SIZES = (304, 432)


def write_sample(out: Path, images: int, seed: int, size: int | None = None) -> int:
    """Write the data set and return the number of its cells.

    ``out`` gets ``train/<name>/``, ``split.json`` (its parts train and val), ``test_release/``, ``test_gt/<name>/``
    and, last, ``test_image_name_to_ids.json``. Images are uint8 RGB; masks hold the ids 1..N of their class, and a
    class without cells has no file.

    Raises:
        InputError: ``out`` is not empty, is a file, or cannot be written.
    """
    with writing(f"--out {out}"):
        out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty; remove it or name another folder")
    train = [f"train_{index:03d}" for index in range(images)]
    test = [f"test_{index:03d}" for index in range(max(2, images // 4))]
    num_val = max(1, images // 4)
    ids, cells = [], 0
    for index, name in enumerate(ProgressBar(train + test, "sample")):
        is_test = index >= images
        rng = np.random.default_rng([seed, int(is_test), index - images if is_test else index])
        image, label_map = make_tissue(rng, *draw_size(rng, size))
        write_image(out / "test_release" / f"{name}.tif" if is_test else out / "train" / name / "image.tif", image)
        _write_masks(out / ("test_gt" if is_test else "train") / name, label_map)
        if is_test:  # in the homework, too, ids do not follow the order of the names
            ids.append(ImageId(f"{name}.tif", images + len(test) - index, *image.shape[:2]))
        cells += int(label_map.max(axis=(1, 2)).sum())
    write_json(out / "split.json", {"train": train[:-num_val], "val": train[-num_val:]}, indent=2)
    write_id_map(out / "test_image_name_to_ids.json", sorted(ids, key=lambda entry: entry.id))
    return cells


def _write_masks(folder: Path, label_map: np.ndarray) -> None:
    for class_id, labels in enumerate(label_map, start=1):
        if labels.any():
            write_mask(folder / f"class{class_id}.tif", labels)


def draw_size(rng: np.random.Generator, size: int | None) -> tuple[int, int]:
    """Height and width in px: ``size`` both, or drawn apart from each other."""
    height, width = (int(side) for side in rng.integers(*SIZES, 2, endpoint=True))
    return (height, width) if size is None else (size, size)
