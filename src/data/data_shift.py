"""Data shift: differences between images to predict and those of the training, in colours, brightness and cell size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from src.common.errors import counted
from src.data.intensity import ALL_LEVELS, used_levels
from src.data.stain import CLEAR_CONTRAST, red_contrast, stain_features
from src.geometry.instances import Instance

FEWEST_CELLS = 20  # with fewer their median size says little
SIZE_RATIO = 1.5  # of median cell sizes, from which they differ
DARKNESS = 0.5  # optical density of the palest pixels, by which it differs: a factor of 1.6 in brightness
ABSORPTION = 0.1  # share of a colour in the absorbed light, by which stains differ; H&E lies within 0.06 of H&E
CONTRAST = 0.05  # mean red_contrast, below which the order of the colours is not told


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of training images, in the channel order and range of values that the network is given.

    ``cell_size`` is the median sqrt(box area) in px after --scale, ``contrast`` the mean :func:`red_contrast` and
    ``darkness`` the median optical density of an image's palest pixels. ``absorption`` are the median shares of red,
    green and blue in the optical density of the tissue, by which stains differ. ``None`` where no image has any.
    """

    cell_size: float
    contrast: float | None
    darkness: float | None
    absorption: tuple[float, float, float] | None = None


def data_statistics(
    cell_size: float, contrasts: Iterable[float | None], stains: Sequence[np.ndarray] | np.ndarray, swapped: bool
) -> DataStatistics:
    """Statistics of training images from :func:`red_contrast` and :func:`stain_features` of each as stored.

    ``contrasts`` are ``None`` or NaN for images without tissue. ``swapped``: the images are stored as BGR.
    """
    values = np.array([np.nan if contrast is None else contrast for contrast in contrasts])
    told = ~np.isnan(values)
    contrast = float(values[told].mean()) * (-1 if swapped else 1) if told.any() else None
    darkness = float(np.median([darkness_of(stain) for stain in stains])) if len(stains) else None
    shares = [absorption_of(stain) for stain, has_tissue in zip(stains, told, strict=True) if has_tissue]
    return DataStatistics(cell_size, contrast, darkness, _median_shares(shares, swapped))


def _median_shares(shares: Sequence[np.ndarray], swapped: bool) -> tuple[float, float, float] | None:
    if not len(shares):
        return None
    red, green, blue = np.median(shares, axis=0).tolist()[:: -1 if swapped else 1]
    return red, green, blue


def absorption_of(stain: np.ndarray) -> np.ndarray:
    """The shares ``(3,)`` of the channels in the optical density of the tissue, from :func:`stain_features`."""
    return stain[-9:].reshape(3, 3)[1]  # of the 10th, 50th and 90th percentile the second


def darkness_of(stain: np.ndarray) -> float:
    """The mean optical density of the palest pixels over the channels, from :func:`stain_features`."""
    return float(np.mean(stain[:3]))


@dataclass
class PredictionStatistics:
    """Statistics of predicted images, gathered image by image."""

    contrasts: list[float | None] = field(default_factory=list)
    darkness: list[float] = field(default_factory=list)
    absorption: list[np.ndarray] = field(default_factory=list)
    box_areas: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)

    def add(self, image: np.ndarray, confident: Iterable[Instance], is_wide: bool = False) -> None:
        """Add an ``(H, W, 3)`` uint8 RGB image and the confident instances in it.

        ``is_wide``: its file has more than 8 bits.
        """
        self.levels.append(used_levels(image) if is_wide else ALL_LEVELS)
        contrast, stain = red_contrast(image), stain_features(image)
        self.contrasts.append(contrast)
        self.darkness.append(darkness_of(stain))
        self.absorption += [] if contrast is None else [absorption_of(stain)]
        self.box_areas += [cell.mask.shape[0] * cell.mask.shape[1] for cell in confident]


def shift_warnings(statistics: DataStatistics, predictions: Sequence[PredictionStatistics], scale: float) -> list[str]:
    """A warning for each way in which predicted images differ from the training's; ``scale`` is the training's."""
    contrasts = [contrast for part in predictions for contrast in part.contrasts if contrast is not None]
    darkness = [value for part in predictions for value in part.darkness]
    areas = [area for part in predictions for area in part.box_areas]
    warnings = []
    if statistics.contrast is not None and abs(statistics.contrast) > CONTRAST:
        warnings += _swapped_warnings(np.array(contrasts), statistics.contrast)
    change = np.median(darkness) - statistics.darkness if darkness and statistics.darkness is not None else 0.0
    if abs(change) > DARKNESS:
        warnings.append(
            f"warning: the images are {np.exp(abs(change)):.1f} times {'darker' if change > 0 else 'brighter'} than "
            "those of the training; do they need another --intensity?"
        )
    shares = _median_shares([of_image for part in predictions for of_image in part.absorption], swapped=False)
    if shares and statistics.absorption and not warnings:  # swapped or darker images look stained otherwise, too
        warnings += _stain_warnings(shares, statistics.absorption)
    if len(areas) >= FEWEST_CELLS:
        size = float(np.median(np.sqrt(areas))) * scale
        if not 1 / SIZE_RATIO < size / statistics.cell_size < SIZE_RATIO:
            warnings.append(
                f"warning: the median cell is {size:.0f} px after --scale, {statistics.cell_size:.0f} in training; "
                f"predict with --scale {scale * statistics.cell_size / size:.2g}, or --mpp"
            )
    return warnings


def _stain_warnings(shares: Sequence[float], trained: Sequence[float]) -> list[str]:
    """A warning where images are of another stain: their tissue takes other shares of red, green and blue light."""
    if np.abs(np.subtract(shares, trained)).max() <= ABSORPTION:
        return []
    found, known = (" : ".join(f"{100 * share:.0f}" for share in sides) for sides in (shares, trained))
    return [
        f"warning: the images are stained otherwise than those of the training: red, green and blue light are absorbed"
        f" as {found}, in training as {known}"
    ]


def _swapped_warnings(contrasts: np.ndarray, trained: float) -> list[str]:
    """A warning where images look swapped: by their own contrast, or where all of them do together by the mean."""
    is_swapped = contrasts * np.sign(trained) < -CLEAR_CONTRAST
    number, contrast = int(is_swapped.sum()), float(contrasts.mean()) if len(contrasts) else 0.0
    is_mean_swapped = contrast * np.sign(trained) < -CONTRAST
    if not number and not is_mean_swapped:
        return []
    which = f"{number} of {counted(len(contrasts), 'image')}" if number else "the images"
    return [
        f"warning: red and blue of {which} look swapped (mean stain contrast"
        f" {float(contrasts[is_swapped].mean()) if number else contrast:.2f}, in training {trained:.2f}); see"
        " --channel-order"
    ]
