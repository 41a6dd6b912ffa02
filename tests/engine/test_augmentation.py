import albumentations as A
import numpy as np
import pytest

from src.config.settings import AugmentSettings
from src.engine.augmentation import RgbAffine, SquareSymmetry, augmentation
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
