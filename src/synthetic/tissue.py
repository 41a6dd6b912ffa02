"""How synthetic tissue looks: the cells of each class, what lies around them, and how both take up the stains.

An image is made from three concentrations per pixel (haematoxylin, eosin, ink), which the Beer-Lambert law turns
into light, as in A. Ruifrok and D. Johnston, "Quantification of histochemical staining by color deconvolution", 2001.
Work on a cell stays within its own patch, so the time grows with the image plus the cells, not with their product.
"""

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Texture = Callable[
    [np.random.Generator, np.ndarray], np.ndarray
]  # computed from distances to the outline; only ranks count
Window = tuple[slice, slice]
Size = tuple[int, ...]  # height, width

GAP = (0.65, 0.25, 0.0)  # the share of each stain that is missing around a cell
STAINS = np.array([[0.61, 0.71, 0.35], [0.13, 0.93, 0.30], [0.58, 0.58, 0.57]])  # rows: haematoxylin, eosin, ink; RGB


@dataclass(frozen=True)
class Shape:
    """A closed outline around a centre, all in px: a lobed circle of ``radius``, stretched along ``angle`` (radians).

    ``lobes`` holds the relative amplitudes of the 2nd, 3rd, … harmonics, ``phases`` their phases.
    """

    row: float
    column: float
    radius: float
    elongation: float
    angle: float
    lobes: tuple[float, ...] = ()
    phases: tuple[float, ...] = ()


@dataclass(frozen=True)
class Kind:
    """How the cells of a class look.

    ``share`` is their share of all cells, ``radius`` (px) and ``haematoxylin`` are (mean, standard deviation), ranges
    (low, high). ``lobe`` is how far the outline leaves a circle, ``contrast`` how far the chromatin leaves its mean.
    """

    share: float
    radius: tuple[float, float]
    radius_range: tuple[float, float]
    elongation_range: tuple[float, float]
    lobe: float
    haematoxylin: tuple[float, float]
    eosin: float
    contrast: float
    texture: Texture


@dataclass(frozen=True, eq=False)
class Cell:
    """A placed cell: its ``distance`` map covers ``window`` of the image and is negative inside, in px."""

    class_id: int
    shape: Shape
    window: Window
    distance: np.ndarray

    @property
    def area(self) -> int:
        """Number of px, those under later cells included."""
        return int(np.count_nonzero(self.distance < 0))


@dataclass(frozen=True)
class Debris:
    """Something unlabelled: ``rate`` of them in 100,000 px, (low, high) ranges, concentrations of the stains."""

    rate: float
    radius: tuple[float, float]
    elongation: tuple[float, float]
    softness: float
    stain: tuple[float, float, float]
    pale_center: float = 0.0


def noise(rng: np.random.Generator, size: Size, scale: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1: float64 of the given size, its grain ``scale`` px wide."""
    height, width = size
    step = max(math.floor(scale / 2), 1)  # coarse noise is as good from fewer samples
    margin = math.ceil(3 * scale / step)
    rows, columns = math.ceil(height / step) + 2 * margin, math.ceil(width / step) + 2 * margin
    field = cv2.GaussianBlur(rng.standard_normal((rows, columns)), (0, 0), scale / step)
    if step > 1:
        field = cv2.resize(field, (columns * step, rows * step), interpolation=cv2.INTER_CUBIC)
    field = field[margin * step :, margin * step :][:height, :width]
    return (field - field.mean()) / field.std()


def fine_speckles(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """Small grains all over the nucleus."""
    return noise(rng, distance.shape, 0.9)


def ring_and_clumps(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """A dark rim and a few coarse clumps in a clear nucleus."""
    ring = np.exp(-(((distance + 1.5) / 1.4) ** 2))
    return 2.2 * ring + noise(rng, distance.shape, 1.9) + 0.15 * noise(rng, distance.shape, 0.9)


def smooth(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """Dense chromatin, a little lighter on one side."""
    return noise(rng, distance.shape, 4.0)


def foam(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """Round holes in a foamy body around a dark core."""
    core = np.exp(-(((distance - distance.min()) / 5.0) ** 2))
    return 2.5 * core - np.abs(noise(rng, distance.shape, 1.7))


# Epithelial cells and lymphocytes differ in nothing but their texture; neutrophils are small, dark and lobed;
# macrophages large and pale. Sizes and stains overlap.
EPITHELIAL = Kind(
    share=0.40,
    radius=(8.6, 0.8),
    radius_range=(7.2, 10.8),
    elongation_range=(1.0, 1.45),
    lobe=0.04,
    haematoxylin=(1.0, 0.13),
    eosin=0.30,
    contrast=0.62,
    texture=ring_and_clumps,
)
LYMPHOCYTE = replace(EPITHELIAL, share=0.35, texture=fine_speckles)
NEUTROPHIL = Kind(
    share=0.15,
    radius=(6.5, 0.6),
    radius_range=(5.4, 8.0),
    elongation_range=(1.1, 1.6),
    lobe=0.13,
    haematoxylin=(1.45, 0.20),
    eosin=0.20,
    contrast=0.25,
    texture=smooth,
)
MACROPHAGE = Kind(
    share=0.10,
    radius=(11.8, 1.0),
    radius_range=(9.8, 14.2),
    elongation_range=(1.0, 1.35),
    lobe=0.06,
    haematoxylin=(0.62, 0.08),
    eosin=0.62,
    contrast=0.60,
    texture=foam,
)
KINDS = (EPITHELIAL, LYMPHOCYTE, NEUTROPHIL, MACROPHAGE)

DEBRIS = (
    Debris(14, (4.5, 6.5), (1.0, 1.3), 0.6, (0.02, 1.05, 0.0), pale_center=0.45),  # red blood cells
    Debris(14, (5.0, 9.0), (1.0, 2.2), 2.2, (0.75, 0.35, 0.0)),  # smudges: nuclei far out of focus
    Debris(14, (1.8, 3.2), (1.0, 1.6), 0.5, (1.7, 0.20, 0.0)),  # pyknotic fragments
    Debris(6, (1.2, 3.0), (1.0, 2.0), 0.5, (0.20, 0.20, 1.5)),  # specks of ink
    Debris(8, (8.0, 12.5), (1.0, 1.5), 0.8, (0.40, 0.62, 0.0), pale_center=0.25),  # hyaline globules
    Debris(10, (4.5, 7.0), (8.0, 14.0), 0.6, (0.15, 0.85, 0.0)),  # collagen fibres
    Debris(8, (4.0, 5.5), (7.0, 12.0), 0.7, (0.95, 0.35, 0.0)),  # edge-on fibroblasts
)


def paint(rng: np.random.Generator, lumen: np.ndarray, cells: Sequence[Cell]) -> np.ndarray:
    """Paint the tissue around ``cells``, then the cells, a later one over an earlier.

    Args:
        lumen: ``(H, W)`` float in [0, 1], 1 where there is no tissue.

    Returns:
        The ``(H, W, 3)`` uint8 RGB image.
    """
    stain = _background(rng, lumen, cells)
    for debris in DEBRIS:
        _scatter(rng, stain, debris)
    for cell in cells:
        _paint_cell(rng, stain[cell.window], cell.distance, KINDS[cell.class_id - 1])
    return _to_light(rng, stain)


def reach(shape: Shape, direction: float) -> float:
    """How far an outline lies from its centre in a direction (radians from the x axis to the y axis), in px."""
    ray = np.array([math.cos(direction)]), np.array([math.sin(direction)])
    return 1 - float(_distance(shape, *ray)[0])


def distance_to_outline(shape: Shape, size: Size) -> tuple[Window, np.ndarray]:
    """The window of an image around a shape and, at its pixels, the distance to the outline (negative inside)."""
    half = shape.radius * math.sqrt(shape.elongation) * 1.25 + 6
    rows = slice(max(math.floor(shape.row - half), 0), min(math.ceil(shape.row + half), size[0]))
    columns = slice(max(math.floor(shape.column - half), 0), min(math.ceil(shape.column + half), size[1]))
    y, x = np.ogrid[rows, columns]
    return (rows, columns), _distance(shape, x - shape.column, y - shape.row)


def _distance(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance from the outline along the ray from the centre, in px; exact for a circle."""
    stretch = math.sqrt(shape.elongation)
    along = (x * math.cos(shape.angle) + y * math.sin(shape.angle)) / stretch
    across = (y * math.cos(shape.angle) - x * math.sin(shape.angle)) * stretch
    length = np.maximum(np.hypot(along, across), 1e-6)
    direction = (along + 1j * across) / length  # e^iθ, whose powers give the harmonics without a cosine per pixel
    harmonics = [lobe * cmath.exp(1j * phase) for lobe, phase in zip(shape.lobes, shape.phases, strict=True)]
    border = shape.radius * np.polyval([*reversed(harmonics), 0, 1], direction).real
    return np.maximum(np.hypot(x, y), 1e-6) * (1 - border / length)


def _background(rng: np.random.Generator, lumen: np.ndarray, cells: Sequence[Cell]) -> np.ndarray:
    """Concentrations of stroma, cytoplasm and openings: ``(H, W, 3)`` float."""
    size = lumen.shape
    stain = np.zeros((*size, 3))
    for cell in cells:
        stain[cell.window][cell.distance < 0, 0] = 0.16
    stain[..., 0] = cv2.GaussianBlur(stain[..., 0], (0, 0), 7)  # cytoplasm
    stain[..., 0] += 0.10 + 0.05 * noise(rng, size, 40) + 0.02 * noise(rng, size, 2.5)
    stain[..., 1] = 0.34 + 0.07 * noise(rng, size, 30) + 0.04 * noise(rng, size, 6) + 0.03 * noise(rng, size, 1.5)
    stain[..., 1] += 0.07 * _fibrous(rng, size)
    return np.maximum(stain, 0.02) * (1 - 0.92 * lumen[..., None])


def _fibrous(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Wavy streaks in one direction, of unit standard deviation."""
    side = math.ceil(math.hypot(*size))
    streaks = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), sigmaX=12, sigmaY=1.1)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.0)
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    wave = 6 * noise(rng, (side, side), 60).astype(np.float32)
    streaks = cv2.remap(streaks.astype(np.float32), x, y + wave, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    streaks = cv2.warpAffine(streaks, turn, (side, side), borderMode=cv2.BORDER_REFLECT)[: size[0], : size[1]]
    return streaks / streaks.std()


def _scatter(rng: np.random.Generator, stain: np.ndarray, debris: Debris) -> None:
    height, width = stain.shape[:2]
    for _ in range(rng.poisson(debris.rate * height * width / 100_000)):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        radius, elongation = rng.uniform(*debris.radius), rng.uniform(*debris.elongation)
        lobes, phases = tuple(rng.uniform(0, 0.08, 3)), tuple(rng.uniform(0, 2 * math.pi, 3))
        shape = Shape(row, column, radius, elongation, rng.uniform(0, math.pi), lobes, phases)
        window, distance = distance_to_outline(shape, (height, width))
        depth = 1 - debris.pale_center * np.clip(-distance / radius, 0, 1)
        color = np.array(debris.stain) * rng.uniform(0.75, 1.2) * depth[..., None]
        _blend(stain[window], sigmoid(-distance / debris.softness), color)


def _paint_cell(rng: np.random.Generator, under: np.ndarray, distance: np.ndarray, kind: Kind) -> None:
    gap = np.exp(-(((distance - 1.0) / 0.9) ** 2))  # separates a cell from the one that it touches
    under *= 1 - gap[..., None] * GAP
    inside = np.empty_like(under)
    inside[..., 0] = max(rng.normal(*kind.haematoxylin), 0.3) * _chromatin(rng, kind, distance)
    inside[..., 1] = kind.eosin
    inside[..., 2] = 0
    _blend(under, sigmoid(-distance / rng.uniform(0.3, 0.6)), inside)


def _chromatin(rng: np.random.Generator, kind: Kind, distance: np.ndarray) -> np.ndarray:
    """Relative stain inside a cell, of mean 1.

    Only the ranks of the texture count: whatever its pattern, the stain's distribution within the cell is the same.
    """
    field = kind.texture(rng, distance)
    inside = np.sort(field[distance < 0])
    rank = 2 * np.searchsorted(inside, field) / max(len(inside), 1) - 1
    return 1 + kind.contrast * np.sign(rank) * np.abs(rank) ** 0.6


def _blend(under: np.ndarray, opacity: np.ndarray, color: np.ndarray) -> None:
    under += opacity[..., None] * (color - under)


def _to_light(rng: np.random.Generator, stain: np.ndarray) -> np.ndarray:
    """What a camera sees of the stained slide, with the stain, lamp, focus and noise of this slide: uint8 RGB."""
    vectors = STAINS + rng.normal(0, [[0.03], [0.04], [0.0]], (3, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.array([rng.uniform(0.8, 1.25), rng.uniform(0.7, 1.35), 1.0])
    lamp = rng.uniform(236, 250) + rng.normal(0, 2, 3)
    light = lamp * np.exp(-(stain * strength) @ vectors)
    light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.45, 0.75))
    light += rng.normal(0, rng.uniform(1.5, 3.0), light.shape)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, 0 to 1."""
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))
