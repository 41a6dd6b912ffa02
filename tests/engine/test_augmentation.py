import albumentations as A
import numpy as np
import pytest

from src.engine.augmentation import RgbAffine, SquareSymmetry
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
