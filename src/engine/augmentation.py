"""Augmentation of training tiles together with their label maps, through OpenCV where it is faster."""

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would open a network connection at import

import albumentations as A
import cv2
import numpy as np

from src.config.settings import AugmentSettings
from src.geometry.tiles import FILL

MOST_CHANNELS = 4  # that OpenCV transposes of any type


class SquareSymmetry(A.DualTransform):
    """One of the eight flips and quarter turns of a square, as ``A.D4``, but through OpenCV, which copies faster."""

    def get_params(self) -> dict[str, int]:
        """Draw which one: bit 0 swaps rows and columns, bits 1 and 2 then flip the rows and the columns."""
        return {"element": self.py_random.randrange(8)}

    def apply(self, img: np.ndarray, element: int, **params: object) -> np.ndarray:
        """Turn an ``(S, S)`` or ``(S, S, C)`` array."""
        if img.ndim == 3 and img.shape[2] > MOST_CHANNELS:
            parts = np.split(img, range(MOST_CHANNELS, img.shape[2], MOST_CHANNELS), axis=2)
            return np.concatenate([self.apply(np.ascontiguousarray(part), element) for part in parts], axis=2)
        turned = cv2.transpose(img) if element & 1 else img
        if element & 6:
            turned = cv2.flip(turned, {2: 0, 4: 1, 6: -1}[element & 6])
        return turned.reshape(img.shape)

    def apply_to_mask(self, mask: np.ndarray, element: int, **params: object) -> np.ndarray:
        """As the image."""
        return self.apply(mask, element)


class RgbAffine(A.Affine):
    """``A.Affine``; OpenCV 5 warps four channels in half the time it takes for three, to the same values."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Warp an ``(S, S, 3)`` image beside an empty fourth channel."""
        return cv2.cvtColor(super().apply(cv2.cvtColor(img, cv2.COLOR_RGB2RGBA), **params), cv2.COLOR_RGBA2RGB)


class StainJitter(A.ImageOnlyTransform):
    """Changes how strongly an H&E image is stained with haematoxylin, with eosin, and with what is neither.

    The optical density is separated into stains (Ruifrok and Johnston, "Quantification of histochemical staining by
    color deconvolution", 2001), each is multiplied by 1 ± ``strength`` and shifted, and they are put together again
    (Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3", 2018). Then all
    densities are multiplied by one factor between 1 / (1 + 3 ``strength``) and 1 + 3 ``strength``: the tissue of one
    laboratory can be twice as dense as that of another.
    ``A.HEStain`` drops what is neither stain, and leaves blotches where tissue meets glass.
    """

    def __init__(self, strength: float, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.strength = strength

    def get_params(self) -> dict[str, np.ndarray]:
        """Draw the change, a ``(3, 4)`` float32 matrix for optical densities."""
        draws = [self.py_random.uniform(-self.strength, self.strength) for _ in range(6)]
        factors, shifts = 1 + np.array(draws[:3]), _SHIFT * np.array(draws[3:])
        common = (1 + 3 * self.strength) ** self.py_random.uniform(-1, 1)
        mixed = _STAINS.T @ np.diag(factors) @ np.linalg.inv(_STAINS.T)
        return {"change": (common * np.column_stack([mixed, _STAINS.T @ shifts])).astype(np.float32)}

    def apply(self, img: np.ndarray, change: np.ndarray, **params: object) -> np.ndarray:
        """Change an ``(H, W, 3)`` uint8 RGB image."""
        density = cv2.transform(cv2.LUT(img, _DENSITIES), change)
        return np.rint(256 * np.exp(-density) - 1).clip(0, 255).astype(np.uint8)


_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])  # a row per stain, RGB densities
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)
_DENSITIES = np.repeat(-np.log((np.arange(256, dtype=np.float32) + 1) / 256)[None, :, None], 3, axis=2)
_SHIFT = 0.3  # of a density, per unit of strength


def zoom_factor(settings: AugmentSettings, rng: np.random.Generator) -> float:
    """The factor by which a tile is resized, evenly spread between its bounds on a logarithmic scale."""
    if settings.augment != "full" or settings.min_zoom == settings.max_zoom == 1:
        return 1.0
    return float(np.exp(rng.uniform(np.log(settings.min_zoom), np.log(settings.max_zoom))))


def zoomed(image: np.ndarray, label_map: np.ndarray, zoom: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An ``(h, w, 3)`` image and its ``(h, w, L)`` label map resized by a factor, to at most ``size`` px a side."""
    height, width = (min(max(round(side * zoom), 1), size) for side in image.shape[:2])
    shrunk = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    rows, columns = (
        ((np.arange(wanted) + 0.5) * (side / wanted)).astype(int)
        for wanted, side in ((height, image.shape[0]), (width, image.shape[1]))
    )  # the nearest pixels, for any number of layers and any type of ids
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=shrunk)
    return resized, label_map[rows[:, None], columns]


def augmentation(settings: AugmentSettings, fill: tuple[int, ...] = FILL) -> A.Compose:
    """The transforms of an image and its label map; ``fill`` is the colour of what is outside of the image."""
    if settings.augment == "none":
        return A.Compose([])
    if settings.augment == "flips":
        return A.Compose([SquareSymmetry(p=1)])
    affine = RgbAffine(
        scale=(0.9, 1.1),
        translate_percent=(-0.0625, 0.0625),
        rotate=(-15, 15),
        shear=0,
        fill=fill,
        p=settings.affine_prob,
    )
    change = settings.jitter
    jitter = A.ColorJitter(
        brightness=change, contrast=change, saturation=change, hue=change / 4, p=settings.jitter_prob
    )
    optional = [
        (settings.stain_jitter, StainJitter(settings.stain_jitter)),
        (settings.blur_prob, A.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 1.5), p=settings.blur_prob)),
        (settings.jpeg_prob, A.ImageCompression(quality_range=(30, 90), p=settings.jpeg_prob)),
    ]
    return A.Compose([SquareSymmetry(p=1), affine, jitter, *(transform for wanted, transform in optional if wanted)])
