import albumentations as A
import numpy as np
import pytest

from src.config.settings import AugmentSettings
from src.engine.augmentation import RgbAffine, SquareSymmetry, StainJitter, augmentation, zoom_factor, zoomed
from src.geometry.tiles import FILL

pytestmark = pytest.mark.torch


def test_the_eight_symmetries_turn_image_and_mask_alike() -> None:
    image = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    mask = np.arange(36, dtype=np.uint16).reshape(6, 6, 1)
    symmetry, seen = SquareSymmetry(p=1), set()
    for element in range(8):
        turned, label_map = symmetry.apply(image, element), symmetry.apply_to_mask(mask, element)
        assert turned.shape == image.shape and label_map.shape == mask.shape and label_map.dtype == np.uint16
        assert np.array_equal(turned[..., 0] // 3, label_map[..., 0])  # both count the pixels
        seen.add(label_map.tobytes())
        row, column = np.argwhere(label_map[..., 0] == 0)[0]
        assert row in (0, 5) and column in (0, 5)
    assert len(seen) == 8


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("layers", [1, 2, 4, 5, 7, 8, 9, 10, 11, 17, 33, 513])
def test_any_number_of_layers_is_turned_alike(layers: int, dtype: type) -> None:
    label_map = np.random.default_rng(0).integers(0, 60_000, (6, 6, layers)).astype(dtype)
    for element in range(8):
        wanted = label_map.swapaxes(0, 1) if element & 1 else label_map
        flipped = [axis for axis, bit in ((0, 2), (1, 4)) if element & bit]
        turned = SquareSymmetry(p=1).apply_to_mask(label_map, element)
        assert turned.dtype == dtype and np.array_equal(turned, np.flip(wanted, flipped))


@pytest.mark.parametrize("layers", [5, 9, 11, 33])
def test_any_number_of_layers_is_warped(layers: int) -> None:
    layer = np.kron(np.arange(1, 17, dtype=np.uint16).reshape(4, 4), np.ones((16, 16), np.uint16))
    chain = augmentation(AugmentSettings(affine_prob=1.0, jitter_prob=0.0))
    for seed in range(10):
        chain.set_random_seed(seed)
        mask = np.repeat(layer[..., None], layers, axis=2)
        warped = chain(image=np.zeros((64, 64, 3), np.uint8), mask=mask)["mask"]
        assert warped.shape == mask.shape and (warped == warped[..., :1]).mean() > 0.99  # at edges a pixel may differ


def test_the_faster_warp_is_albumentations_own() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    mask = np.tile(np.arange(64, dtype=np.uint16)[:, None, None], (1, 64, 1))
    chains = [A.Compose([kind(rotate=(-15, 15), scale=(0.9, 1.1), fill=FILL, p=1)]) for kind in (A.Affine, RgbAffine)]
    for seed in range(5):
        for chain in chains:
            chain.set_random_seed(seed)
        theirs, ours = (chain(image=image, mask=mask) for chain in chains)
        assert np.array_equal(theirs["image"], ours["image"]) and np.array_equal(theirs["mask"], ours["mask"])
        assert not np.array_equal(ours["image"], image)


def test_stains_are_changed_and_no_change_is_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.abs(StainJitter(0.0)(image=image)["image"].astype(int) - image).max() <= 1
    for strength in (0.1, 0.3, 1.0):
        chain = A.Compose([StainJitter(strength)])
        chain.set_random_seed(1)
        first = chain(image=image)["image"]
        assert first.dtype == np.uint8 and np.abs(first.astype(int) - image).mean() > 10 * strength
        chain.set_random_seed(1)
        assert np.array_equal(chain(image=image)["image"], first)


def test_more_haematoxylin_darkens_what_is_blue_most() -> None:
    """Pure stains, by their densities: twice as much of one squares its transmission and leaves the others."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    image = (256 * np.exp(-0.8 * stains) - 1).round().astype(np.uint8)[None]
    jitter = StainJitter(1.0)
    jitter.py_random = _Fixed([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    changed = jitter.apply(image, **jitter.get_params())
    assert np.abs(changed[0, 0] - (256 * np.exp(-1.6 * stains[0]) - 1)).max() < 3
    assert np.abs(changed[0, 1].astype(int) - image[0, 1]).max() <= 2


def test_all_densities_grow_and_shrink_by_one_factor() -> None:
    image = np.random.default_rng(0).integers(60, 200, (4, 4, 3), np.uint8)
    jitter = StainJitter(0.3)
    for draw, factor in ((1.0, 1.9), (-1.0, 1 / 1.9)):
        jitter.py_random = _Fixed([0.0] * 6 + [draw])
        changed = jitter.apply(image, **jitter.get_params())
        assert np.abs(changed - (256 * ((image + 1.0) / 256) ** factor - 1)).max() < 1


class _Fixed:
    """Draws what it is told."""

    def __init__(self, draws: list[float]) -> None:
        self._draws = iter(draws)

    def uniform(self, low: float, high: float) -> float:
        return next(self._draws)


def test_optional_transforms_change_the_image_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1)
    for change in ({"blur_prob": 1.0}, {"jpeg_prob": 1.0}, {"stain_jitter": 0.3}, {"jitter_prob": 1.0, "jitter": 0.5}):
        plain, changed = (
            augmentation(AugmentSettings(**{"affine_prob": 0.0, "jitter_prob": 0.0, **more}))  # type: ignore[arg-type]
            for more in ({}, change)
        )
        for chain in (plain, changed):
            chain.set_random_seed(5)
        before, after = (chain(image=image, mask=mask) for chain in (plain, changed))
        assert np.array_equal(before["mask"], after["mask"]) and not np.array_equal(before["image"], after["image"])


@pytest.mark.parametrize("layers", [1, 3, 7])
@pytest.mark.parametrize("zoom", [0.6, 0.77, 1.3, 1.6])
def test_image_and_label_map_are_resized_alike(zoom: float, layers: int) -> None:
    label_map = np.zeros((100, 80, layers), np.uint16)
    label_map[20:50, 30:64] = 7
    image = np.where(label_map[..., :1] > 0, 255, 0).astype(np.uint8).repeat(3, axis=2)
    small, labels = zoomed(image, label_map, zoom, 256)
    assert small.shape[:2] == labels.shape[:2] == (round(100 * zoom), round(80 * zoom)) and labels.shape[2] == layers
    assert set(np.unique(labels)) == {0, 7}
    assert np.abs((small[..., 0] / 255.0).sum() - (labels[..., 0] > 0).sum()) < 0.04 * (labels[..., 0] > 0).sum()
    rows, columns = np.nonzero(labels[..., 0])
    assert abs(rows.mean() + 0.5 - 35 * zoom) < 0.6 and abs(columns.mean() + 0.5 - 47 * zoom) < 0.6


def test_zooms_lie_between_their_bounds() -> None:
    settings = AugmentSettings(min_zoom=0.5, max_zoom=2.0)
    draws = [zoom_factor(settings, np.random.default_rng(seed)) for seed in range(500)]
    assert 0.5 <= min(draws) < 0.53 and 1.9 < max(draws) <= 2 and abs(np.mean(np.log(draws))) < 0.06
    assert zoom_factor(AugmentSettings(augment="flips", min_zoom=0.5), np.random.default_rng(0)) == 1
