import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from src.data.images_to_predict import find_test_images
from src.data.splits import group_by_stain, make_split
from src.data.stain import decide_channel_order, red_contrast, stain_features, swapped_images
from src.data.tiff import read_image
from tests.helpers import find_records

DATA = Path(__file__).parents[3] / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are absent")

# Optical densities of the pure dyes for red, green and blue light (Ruifrok and Johnston, 2001).
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(seed: int, strength: float = 1.0, nuclei: float = 0.2) -> np.ndarray:
    """``(80, 90, 3)`` uint8 RGB: glass on the left, eosin with round spots of haematoxylin elsewhere."""
    rng = np.random.default_rng(seed)
    amounts = np.zeros((80, 90, 2))
    amounts[:, 20:, 1] = 0.5
    amounts[:, 20:, 0] = np.where(rng.random((80, 70)) < nuclei, 1.5, 0.1)
    amounts *= rng.normal(strength, 0.05, amounts.shape)
    density = amounts @ np.array([HAEMATOXYLIN, EOSIN])
    return np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def order_of(images: Iterable[np.ndarray]) -> tuple[str, float]:
    return decide_channel_order(map(red_contrast, images))


def test_the_channel_order_of_stained_tissue_is_decided() -> None:
    images = [stained(seed, strength) for seed, strength in enumerate((0.6, 1.0, 1.4))]
    assert order_of(images) == ("rgb", 1.0)
    assert order_of(image[..., ::-1] for image in images) == ("bgr", 1.0)


def test_the_set_decides_over_single_images() -> None:
    images = [stained(0), stained(1), stained(2), stained(3, strength=0.5)[..., ::-1]]
    assert order_of(images) == ("rgb", 0.75)


def test_single_images_that_clearly_disagree_are_counted() -> None:
    contrasts = [red_contrast(stained(seed)) for seed in range(3)] + [red_contrast(stained(3)[..., ::-1]), None]
    (warning,) = swapped_images(contrasts, "rgb")
    assert "1 of 4 images" in warning
    assert swapped_images([0.3, -0.12, None], "rgb") == swapped_images([-0.3, 0.12], "bgr") == []


def test_images_without_tissue_have_no_say() -> None:
    white, flat = np.full((30, 30, 3), 255, np.uint8), np.full((30, 30, 3), 90, np.uint8)
    tiny = np.zeros((3, 3, 3), np.uint8)
    assert order_of([]) == ("rgb", 0.0)
    assert order_of([white, flat, tiny]) == ("rgb", 0.0)
    assert order_of([white, stained(0)[..., ::-1], flat]) == ("bgr", 1.0)


def test_features_are_finite_for_any_image_and_near_for_like_stain() -> None:
    odd = [np.full((5, 5, 3), 255, np.uint8), np.zeros((5, 5, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), stained(0)]
    features = np.array([stain_features(image) for image in odd])
    assert features.shape == (4, 21) and features.dtype == np.float64 and np.isfinite(features).all()
    a, b, c = (stain_features(stained(seed, strength)) for seed, strength in ((1, 1.0), (2, 1.0), (3, 0.6)))
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(a - c)


def test_features_know_the_densities() -> None:
    image = np.full((10, 10, 3), (127, 63, 255), np.uint8)  # ln 2, ln 4 and 0
    np.testing.assert_allclose(stain_features(image)[:3], [np.log(2), np.log(4), 0])
    np.testing.assert_allclose(stain_features(image)[12:15], [1 / 3, 2 / 3, 0], atol=1e-12)


def test_images_of_one_stain_are_grouped() -> None:
    stains = [(strength, nuclei) for strength in (0.6, 1.0, 1.4) for nuclei in (0.1, 0.6)]
    images = [stained(seed, *stain) for stain in stains for seed in range(4)]
    labels = np.array(group_by_stain(np.array([stain_features(image) for image in images]))).reshape(6, 4)
    sets = [set(row) for row in labels]
    assert all(not a & b for i, a in enumerate(sets) for b in sets[:i])
    assert sum(len(row) == 1 for row in sets) >= 2  # ten groups for six stains: at most four are torn


@needs_data
def test_the_order_of_real_images_is_decided() -> None:
    mini = [read_image(record.image) for record in find_records(DATA / "consep-mini/train", 4)]
    homework = [read_image(record.image) for record in find_records(DATA / "hw3-format/train", 4)]
    homework += [read_image(image.image) for image in find_test_images(DATA / "hw3-format/test_release")]
    assert order_of(mini) == ("rgb", 1.0)
    assert order_of(homework) == ("bgr", 1.0)


@needs_data
@pytest.mark.slow
def test_stain_keeps_most_real_near_duplicates_together() -> None:
    stats = json.loads((DATA / "consep/stats.json").read_text())["images"]
    records = find_records(DATA / "consep/train", 4)
    images = [read_image(record.image) for record in records]
    order, agreeing = order_of(images)
    assert order == "rgb" and agreeing > 0.9
    names = [record.name for record in records]
    groups = dict(zip(names, group_by_stain(np.array([stain_features(image) for image in images])), strict=True))
    counts = {name: [stats[name]["instances"].get(str(k), 0) for k in (1, 2, 3, 4)] for name in names}
    split, _ = make_split(names, counts, groups, 0.2, 0)
    sources = {stats[name]["group"] for name in split["train"]}
    leaked = np.mean([stats[name]["group"] in sources for name in split["val"]])
    assert leaked < 0.5  # 0.97 where images are drawn at random
