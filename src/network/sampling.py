"""Choose the anchors and proposals that a training step learns from, without waiting for the GPU."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import Matcher


class BalancedSampler:
    """Draws anchors or proposals at random, a fixed number per tile with at most a fixed share of positive ones.

    In place of torchvision's ``BalancedPositiveNegativeSampler``, which waits for the GPU twice per tile.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.count = batch_size_per_image
        self.most_positive = int(batch_size_per_image * positive_fraction)

    def __call__(self, labels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the positive and of the negative ones that were drawn, per tile.

        Args:
            labels: ``(N,)`` per tile: above 0 positive, 0 negative, below 0 left out.
        """
        positive = [draw(of_tile >= 1, self.most_positive) for of_tile in labels]
        negative = [
            draw(of_tile == 0, self.count, self.count - drawn.sum())
            for of_tile, drawn in zip(labels, positive, strict=True)
        ]
        return positive, negative


def draw(candidates: Tensor, most: int, limit: Tensor | None = None) -> Tensor:
    """Mask of ``min(most, limit)`` of the ``True`` elements of ``candidates`` (N,), or all where they are fewer."""
    keys = torch.rand(len(candidates), device=candidates.device).masked_fill(~candidates, -1)
    best, places = keys.topk(min(most, len(candidates)))
    drawn = best >= 0
    if limit is not None:
        drawn &= torch.arange(len(drawn), device=drawn.device) < limit
    return torch.zeros_like(candidates).scatter(0, places, drawn)


def leave_out_ignored(labels: Tensor, boxes: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Labels ``(N,)`` of anchors or proposals, with -1 for background of which more than half is to be ignored.

    Args:
        labels: above 0 positive, 0 background, below 0 left out already.
        boxes: ``(N, 4)`` float32 xyxy in px of the tile; what reaches beyond it does not count.
        target: holds ``ignored`` (H, W) bool where the tile shows such a region.
    """
    if "ignored" not in target:
        return labels
    height, width = target["ignored"].shape
    sums = F.pad(target["ignored"].float().cumsum(0).cumsum(1), (1, 0, 1, 0))  # float32 counts exactly to 4096² px
    limit = torch.tensor([width, height, width, height], device=boxes.device)
    left, top, right, bottom = boxes.round().clamp(min=0).minimum(limit).long().unbind(1)
    covered = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area = (right - left) * (bottom - top)
    return torch.where((labels == 0) & (2 * covered > area), -1, labels)


class LowQualityMatcher(Matcher):
    """torchvision's matcher of the RPN: each object also gets the anchors that overlap it most, however little."""

    def __init__(self, high_threshold: float, low_threshold: float) -> None:
        super().__init__(high_threshold, low_threshold, allow_low_quality_matches=True)

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Called by the matcher: give anchors back that ``matches`` (A,) had taken from ``all_matches``.

        ``match_quality_matrix`` (N, A) holds the IoU of each object with each anchor.
        """
        is_best = (match_quality_matrix == match_quality_matrix.amax(dim=1, keepdim=True)).any(dim=0)
        matches.copy_(torch.where(is_best, all_matches, matches))
