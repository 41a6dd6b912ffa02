"""Anchor boxes: which sides suit the cells of a data set, and how well anchors fit cells."""

from collections.abc import Sequence

import numpy as np

DEFAULT_ANCHORS = (32.0, 64.0, 128.0, 256.0, 512.0)  # px, of torchvision, one per pyramid level
STRIDES = (4, 8, 16, 32, 64)  # px between the anchors of a level
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height over width


def auto_anchors(cell_size: float) -> str:
    """Five sides, each twice the one before; the second is the side of the median cell."""
    base = max(cell_size / 2, 4.0)
    return ",".join(f"{base * 2**level:.0f}" for level in range(5))


def best_anchor_ious(boxes: np.ndarray, sides: Sequence[float]) -> np.ndarray:
    """``(N,)`` IoU of boxes ``(N, 4)`` xyxy with the anchor that fits each best; ``sides`` has one side per level.

    An anchor is centred on every multiple of its level's stride, with the rounding of torchvision's
    ``AnchorGenerator``. Of the anchors of one shape the nearest shares most.
    """
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    best = np.zeros(len(boxes))
    for stride, side in zip(STRIDES, sides, strict=True):
        off = centre - np.round(centre / stride) * stride
        for ratio in ASPECT_RATIOS:
            anchor = 2 * np.round(np.array([side / ratio**0.5, side * ratio**0.5]) / 2)
            reach = np.minimum(size / 2, off + anchor / 2) - np.maximum(-size / 2, off - anchor / 2)
            shared = reach.clip(min=0).prod(axis=1)
            best = np.maximum(best, shared / (size.prod(axis=1) + anchor.prod() - shared))
    return best
