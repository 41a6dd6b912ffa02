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
CONTRAST = 0.05  # mean red_contrast, below which the order of the colours is not told


@dataclass(frozen=True)
class DataStatistics:
    """Statistics of training images, in the channel order and range of values that the network is given.

    ``cell_size`` is the median sqrt(box area) in px after --scale, ``contrast`` the mean :func:`red_contrast` and
    ``darkness`` the median optical density of an image's palest pixels; ``None`` where no image has any.
    """

    cell_size: float
    contrast: float | None
    darkness: float | None


def data_statistics(
    cell_size: float, contrasts: Iterable[float | None], stains: Sequence[np.ndarray] | np.ndarray, swapped: bool
) -> DataStatistics:
    """Statistics of training images from :func:`red_contrast` and :func:`stain_features` of each as stored.

    ``swapped``: the images are stored as BGR.
    """
    told = [contrast for contrast in contrasts if contrast is not None]
    contrast = float(np.mean(told)) * (-1 if swapped else 1) if told else None
    darkness = float(np.median([darkness_of(stain) for stain in stains])) if len(stains) else None
    return DataStatistics(cell_size, contrast, darkness)


def darkness_of(stain: np.ndarray) -> float:
    """The mean optical density of the palest pixels over the channels, from :func:`stain_features`."""
    return float(np.mean(stain[:3]))


@dataclass
class PredictionStatistics:
    """Statistics of predicted images, gathered image by image."""

    contrasts: list[float | None] = field(default_factory=list)
    darkness: list[float] = field(default_factory=list)
    box_areas: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)

    def add(self, image: np.ndarray, confident: Iterable[Instance], is_wide: bool = False) -> None:
        """Add an ``(H, W, 3)`` uint8 RGB image and the confident instances in it.

        ``is_wide``: its file has more than 8 bits.
        """
        self.levels.append(used_levels(image) if is_wide else ALL_LEVELS)
        self.contrasts.append(red_contrast(image))
        self.darkness.append(darkness_of(stain_features(image)))
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
    if len(areas) >= FEWEST_CELLS:
        size = float(np.median(np.sqrt(areas))) * scale
        if not 1 / SIZE_RATIO < size / statistics.cell_size < SIZE_RATIO:
            warnings.append(
                f"warning: the median cell is {size:.0f} px after --scale, {statistics.cell_size:.0f} in training; "
                f"resize the images by a factor of {statistics.cell_size / size:.2g}, or train with another --scale"
            )
    return warnings


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
