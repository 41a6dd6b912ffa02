"""Pooling of RoIs from the feature pyramid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.network.cpu_kernels import roi_align

POOLED_LEVELS = ("0", "1", "2", "3")
POOLED_STRIDES = (4, 8, 16, 32)  # px of the tile per cell of these levels
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 2  # an RoI of 224 px is pooled from the level of stride 16


class PyramidRoIAlign(nn.Module):
    """RoIAlign on the four finest levels, each RoI on the level of its size.

    Equal to torchvision's ``MultiScaleRoIAlign``, which waits for the GPU once per level; this waits once.

    Args:
        output_size: side of the pooled features.
        sampling_ratio: samples per side in each of their bins.
    """

    def __init__(self, output_size: int, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size, self.sampling_ratio = output_size, sampling_ratio

    def forward(self, features: dict[str, Tensor], boxes: Sequence[Tensor], image_shapes: object = None) -> Tensor:
        """Pool ``(R, C, S, S)`` for ``boxes``, per tile ``(r, 4)`` float32 xyxy in tile px, in their order.

        ``image_shapes`` is what torchvision's RoI heads pass, and not needed.
        """
        tiles = torch.cat([torch.full_like(own[:, :1], tile) for tile, own in enumerate(boxes)])
        rois = torch.cat([tiles, torch.cat(list(boxes))], dim=1)
        levels = pyramid_level(rois[:, 1:])
        counts = torch.stack([(levels == level).sum() for level in range(len(POOLED_LEVELS))]).tolist()
        order = levels.argsort(stable=True)
        pooled = torch.cat(
            [
                roi_align(features[name], own, self.output_size, 1 / stride, self.sampling_ratio)
                for name, stride, own in zip(POOLED_LEVELS, POOLED_STRIDES, rois[order].split(counts), strict=True)
            ]
        )
        return torch.zeros_like(pooled).index_copy(0, order, pooled)


def pyramid_level(boxes: Tensor) -> Tensor:
    """The level ``(R,)`` int64, 0 the finest, that boxes ``(R, 4)`` are pooled from.

    Equation 1 of "Feature Pyramid Networks for Object Detection" (Lin et al., 2017), with torchvision's constants.
    """
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    levels = torch.floor(_CANONICAL_LEVEL + torch.log2(sides / _CANONICAL_SIDE) + 1e-6)
    return levels.clamp(0, len(POOLED_LEVELS) - 1).long()
