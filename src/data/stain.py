"""Stain colours of H&E images: they reveal the channel order of the files, and which images come from one slide.

Optical density is ``-ln((value + 1) / 256)`` per channel: how much light of that colour the stain absorbed.
"""

from collections.abc import Iterable

import numpy as np

from src.common.errors import counted

SAMPLED_PIXELS = 20_000  # an image; enough for percentiles to settle, whatever its size
TISSUE_DENSITY = 0.45  # summed over the three channels; glass lies below
MIN_TISSUE_PIXELS = 50
STAIN_FEATURES = 21  # the length of stain_features
CLEAR_CONTRAST = 0.15  # of one image; no field of CoNSeP, however unusual, has as much of the other sign
NUCLEI_SHARE = 0.05  # the darkest tissue pixels; smaller shares give the right order for more images

RED_FIRST = "channel order: rgb, as in all files but TIFF"  # said where there is no TIFF


def decide_channel_order(contrasts: Iterable[float | None]) -> tuple[str, float]:
    """Decide whether a set of H&E images is stored as ``"rgb"`` or ``"bgr"``.

    Haematoxylin takes red light far more than blue and eosin the reverse, so from the rest of the tissue to the
    darkest pixels, which are nuclei, red density rises more than blue density. The mean of that rise over the images
    decides; a single image of an unusual field may say otherwise.

    Args:
        contrasts: :func:`red_contrast` of each image, channels as stored.

    Returns:
        The order and the share of images, of those with tissue, that say the same by themselves, in [0, 1].
        ``("rgb", 0.0)`` where no image has tissue.
    """
    said = np.array([contrast for contrast in contrasts if contrast is not None])
    if not len(said):
        return "rgb", 0.0
    is_rgb = bool(said.mean() >= 0)
    return ("rgb" if is_rgb else "bgr"), float(np.mean((said >= 0) == is_rgb))


def swapped_images(contrasts: Iterable[float | None], order: str) -> list[str]:
    """A warning where single images clearly say the other order than that of the set."""
    said = [contrast * (1 if order == "rgb" else -1) for contrast in contrasts if contrast is not None]
    number = sum(contrast < -CLEAR_CONTRAST for contrast in said)
    if not number:
        return []
    return [f"warning: red and blue of {number} of {counted(len(said), 'image')} look swapped among the others"]


def red_contrast(image: np.ndarray) -> float | None:
    """How much more the optical density of channel 0 than of channel 2 of ``(H, W, 3)`` uint8 rises towards nuclei.

    ``None`` for an image without tissue.
    """
    density = _densities(image)
    tissue = density[density.sum(axis=1) > TISSUE_DENSITY]
    if len(tissue) < MIN_TISSUE_PIXELS:
        return None
    darkness, difference = tissue.sum(axis=1), tissue[:, 0] - tissue[:, 2]
    nuclei = darkness >= np.quantile(darkness, 1 - NUCLEI_SHARE)
    if nuclei.all():  # one flat colour
        return None
    return float(difference[nuclei].mean() - difference[~nuclei].mean())


def stain_features(image: np.ndarray) -> np.ndarray:
    """Describe an image's stain and scanner by ``(STAIN_FEATURES,)`` float64, for grouping images of one slide.

    Args:
        image: ``(H, W, 3)`` uint8; the channel order must be the same for all images that are compared.

    Returns:
        The 1st percentile of the density of each channel (the colour of the glass or of the palest tissue), then the
        10th, 50th and 90th percentile over the tissue of each channel's density, and of its share in the sum.
    """
    density = _densities(image)
    tissue = density[density.sum(axis=1) > TISSUE_DENSITY]
    if len(tissue) < MIN_TISSUE_PIXELS:
        tissue = density
    shares = tissue / np.maximum(tissue.sum(axis=1, keepdims=True), 1e-6)
    palest = np.percentile(density, 1, axis=0)
    spread = [np.percentile(values, (10, 50, 90), axis=0).ravel() for values in (tissue, shares)]
    return np.concatenate([palest, *spread])


def _densities(image: np.ndarray) -> np.ndarray:
    """Optical densities ``(N, 3)`` float64 of evenly spread pixels; the step is fractional, to avoid columns."""
    pixels = image.reshape(-1, 3)
    if len(pixels) > SAMPLED_PIXELS:
        pixels = pixels[np.linspace(0, len(pixels) - 1, SAMPLED_PIXELS).astype(np.int64)]
    return -np.log((pixels.astype(np.float64) + 1) / 256)
