"""The region proposal network: torchvision's, with float32 coordinates under autocast and few waits for the GPU."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from src.network.sampling import BalancedSampler, LowQualityMatcher, leave_out_ignored

POSITIVE_IOU, NEGATIVE_IOU, NMS_IOU = 0.7, 0.3, 0.7
ANCHORS_PER_TILE, POSITIVE_FRACTION = 256, 0.5  # that a step learns from


class Float32AnchorGenerator(AnchorGenerator):
    """torchvision's, with float32 anchors whatever the features' type: beyond 256, bf16 counts in steps of 2 px."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Called by ``forward`` with the type of the features."""
        super().set_cell_anchors(torch.float32, device)


class Float32RPNHead(RPNHead):
    """torchvision's, with float32 results: boxes are decoded from them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness ``(B, A, H, W)`` and box offsets ``(B, 4 A, H, W)`` of each level's A anchors per position."""
        objectness, offsets = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in offsets]


class TiledRPN(RegionProposalNetwork):
    """torchvision's, whose choice of anchors and losses do not wait for the GPU.

    Args:
        anchor_sizes: side of the anchors in px, per pyramid level.
        aspect_ratios: of the anchors at each position.
        channels: of the pyramid.
        convolutions: of the head.
        proposals: kept per tile, and per level before non-maximum suppression.
    """

    def __init__(
        self,
        anchor_sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        channels: int,
        convolutions: int,
        proposals: int,
    ) -> None:
        kept = {"training": proposals, "testing": proposals}
        super().__init__(
            Float32AnchorGenerator(tuple((size,) for size in anchor_sizes), (aspect_ratios,) * len(anchor_sizes)),
            Float32RPNHead(channels, len(aspect_ratios), convolutions),
            POSITIVE_IOU,
            NEGATIVE_IOU,
            ANCHORS_PER_TILE,
            POSITIVE_FRACTION,
            pre_nms_top_n=kept,
            post_nms_top_n=kept,
            nms_thresh=NMS_IOU,
        )
        self.last_objectness: list[Tensor] = []
        self.proposal_matcher = LowQualityMatcher(POSITIVE_IOU, NEGATIVE_IOU)
        self.fg_bg_sampler = BalancedSampler(ANCHORS_PER_TILE, POSITIVE_FRACTION)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The proposals that are kept and their objectness, per tile, best first.

        The objectness of each tile's last one stays in ``last_objectness``: it tells whether a limit mattered.
        """
        boxes, scores = super().filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
        self.last_objectness = [of_tile[-1:] for of_tile in scores]
        return boxes, scores

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label and box of each anchor, per tile; in regions to ignore nothing is background."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        parts = zip(labels, anchors, targets, strict=True)
        return [leave_out_ignored(*part) for part in parts], boxes

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss, as torchvision's but with masks in place of indices.

        Args:
            objectness: ``(A, 1)`` logits of the anchors of all tiles.
            pred_bbox_deltas: ``(A, 4)`` encoded offsets.
            labels: ``(a,)`` float32 per tile: 1 for an anchor on an object, 0 for background, -1 for neither.
            regression_targets: ``(a, 4)`` per tile, encoded offsets.
        """
        positive, negative = (torch.cat(masks) for masks in self.fg_bg_sampler(labels))
        count = (positive.sum() + negative.sum()).clamp(min=1)
        wanted = torch.where(positive[:, None], torch.cat(regression_targets), pred_bbox_deltas.detach())
        box_loss = F.smooth_l1_loss(pred_bbox_deltas, wanted, beta=1 / 9, reduction="sum") / count
        of_anchors = F.binary_cross_entropy_with_logits(objectness.flatten(), positive.float(), reduction="none")
        return of_anchors.where(positive | negative, 0.0).sum() / count, box_loss
