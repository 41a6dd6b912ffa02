"""torchvision's RoI heads, trained from label maps, with raw masks as output."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from src.network.sampling import leave_out_ignored
from src.network.targets import sample_mask_targets

Features = dict[str, Tensor]
Shapes = list[tuple[int, int]]
Target = Mapping[str, Tensor]
MASKS_AT_ONCE = {"cpu": 64, "cuda": 1024}  # on a CPU larger tensors are mapped anew each time, which costs a third
TARGET_KEYS = ("boxes", "labels", "label_map", "layers", "ids")


class TiledRoIHeads(RoIHeads):
    """Box and mask heads for dense tiles.

    In training a target holds ``boxes`` (N, 4) float32 xyxy, ``labels`` (N,) int64 in 1..K and, in place of dense
    masks, ``label_map`` (L, H, W) with each object's ``layers`` and ``ids`` (N,) in it. In evaluation a tile's answer
    is ``boxes``, ``scores``, ``labels`` and ``masks`` (N, M, M): probabilities of the detection's class in its box.
    """

    mask_rois_per_tile: int = 128
    class_weights: Tensor | None = None

    def check_targets(self, targets: Sequence[Target] | None) -> None:
        """Raise ``ValueError`` for a target that lacks a key that training reads."""
        for target in targets or [{}]:
            missing = set(TARGET_KEYS) - set(target)
            if missing:
                raise ValueError(f"a training target lacks {', '.join(sorted(missing))}")

    def forward(
        self, features: Features, proposals: list[Tensor], image_shapes: Shapes, targets: Sequence[Target] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each tile (none in training) and losses (none in evaluation)."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets or [])
        class_logits, box_regression = self._box_outputs(features, proposals, image_shapes)
        found = self.postprocess_detections(class_logits.float(), box_regression.float(), proposals, image_shapes)
        boxes, scores, labels = found
        masks = [
            self._tile_masks({name: level[tile : tile + 1] for name, level in features.items()}, *found)
            for tile, found in enumerate(zip(boxes, labels, image_shapes, strict=True))
        ]
        keys = ("boxes", "scores", "labels", "masks")
        return [dict(zip(keys, values, strict=True)) for values in zip(boxes, scores, labels, masks, strict=True)], {}

    def _box_outputs(self, features: Features, proposals: list[Tensor], image_shapes: Shapes) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))

    def _mask_logits(self, features: Features, boxes: list[Tensor], labels: Tensor, image_shapes: Shapes) -> Tensor:
        """``(R, M, M)`` logits of each RoI's own class."""
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _tile_masks(self, features: Features, boxes: Tensor, labels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Mask probabilities ``(R, M, M)`` of one tile's detections, computed in chunks to bound the memory."""
        at_once = MASKS_AT_ONCE.get(boxes.device.type, 64)
        chunks = zip(boxes.split(at_once), labels.split(at_once), strict=True)
        logits = [self._mask_logits(features, [some], own_labels, [shape]) for some, own_labels in chunks]
        return torch.cat(logits).float().sigmoid()

    def select_training_samples(
        self, proposals: list[Tensor], targets: Sequence[Target] | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """The proposals that a step learns from, per tile: their boxes, objects, labels and encoded offsets.

        As torchvision's, but in regions to ignore no proposal is background.
        """
        self.check_targets(targets)
        targets = targets or []
        true_boxes = [target["boxes"].to(proposals[0].dtype) for target in targets]
        proposals = self.add_gt_proposals(proposals, true_boxes)
        matches, labels = self.assign_targets_to_proposals(
            proposals, true_boxes, [target["labels"] for target in targets]
        )
        labels = [leave_out_ignored(*part) for part in zip(labels, proposals, targets, strict=True)]
        chosen = self.subsample(labels)
        proposals, matches, labels = (
            [values[index] for values, index in zip(side, chosen, strict=True)] for side in (proposals, matches, labels)
        )
        own_boxes = [
            boxes[match] if len(boxes) else boxes.new_zeros(len(match), 4)
            for boxes, match in zip(true_boxes, matches, strict=True)
        ]
        return proposals, matches, labels, self.box_coder.encode(own_boxes, proposals)

    def _losses(
        self, features: Features, proposals: list[Tensor], image_shapes: Shapes, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        proposals, matches, labels, regression_targets = self.select_training_samples(proposals, targets)
        class_logits, box_regression = self._box_outputs(features, proposals, image_shapes)
        classifier, box = box_head_losses(
            class_logits, box_regression, torch.cat(labels), torch.cat(regression_targets), self.class_weights
        )
        chosen = [self._mask_rois(tile_labels) for tile_labels in labels]
        boxes = [tile_boxes[index] for tile_boxes, index in zip(proposals, chosen, strict=True)]
        matches = [tile_matches[index] for tile_matches, index in zip(matches, chosen, strict=True)]
        mask_labels = torch.cat([tile_labels[index] for tile_labels, index in zip(labels, chosen, strict=True)])
        mask_logits = self._mask_logits(features, boxes, mask_labels, image_shapes)
        return {"classifier": classifier, "box": box, "mask": mask_loss(mask_logits, boxes, matches, targets)}

    def _mask_rois(self, labels: Tensor) -> Tensor:
        """Up to ``mask_rois_per_tile`` of a tile's positive proposals, drawn at random."""
        positive = (labels > 0).nonzero().flatten()
        if len(positive) <= self.mask_rois_per_tile:
            return positive
        return positive[torch.randperm(len(positive), device=positive.device)[: self.mask_rois_per_tile]]


def box_head_losses(
    class_logits: Tensor,
    box_regression: Tensor,
    labels: Tensor,
    regression_targets: Tensor,
    class_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of Fast R-CNN as torchvision's ``fastrcnn_loss``, with class weights.

    Args:
        class_logits: ``(R, K + 1)``.
        box_regression: ``(R, 4 (K + 1))``, encoded offsets for each class.
        labels: ``(R,)`` int64, 0 for background.
        regression_targets: ``(R, 4)``, encoded offsets.
        class_weights: ``(K + 1,)`` or ``None``.
    """
    class_logits, box_regression = class_logits.float(), box_regression.float()
    if not len(labels):  # all that was proposed is to be ignored
        return class_logits.sum() * 0, box_regression.sum() * 0
    classifier = F.cross_entropy(class_logits, labels, weight=class_weights)
    own = box_regression.reshape(len(labels), -1, 4)[torch.arange(len(labels), device=labels.device), labels]
    wanted = torch.where((labels > 0)[:, None], regression_targets, own.detach())  # background has no box to learn
    box = F.smooth_l1_loss(own, wanted, beta=1 / 9, reduction="sum") / max(labels.numel(), 1)
    return classifier, box


def mask_loss(
    mask_logits: Tensor, boxes: Sequence[Tensor], matches: Sequence[Tensor], targets: Sequence[Target]
) -> Tensor:
    """Mean binary cross-entropy of mask logits ``(R, M, M)`` against targets sampled from the label maps.

    ``boxes[b]`` (r, 4) are tile b's RoIs and ``matches[b]`` (r,) the object of ``targets[b]`` that each belongs to.
    """
    if not len(mask_logits):
        return mask_logits.sum() * 0  # keeps the mask head in the graph, as torch.distributed demands
    places = [torch.full((len(tile_boxes),), tile, device=mask_logits.device) for tile, tile_boxes in enumerate(boxes)]
    wanted = sample_mask_targets(
        torch.stack([target["label_map"] for target in targets]),
        torch.cat(list(boxes)),
        torch.cat(places),
        torch.cat([target["layers"][match] for target, match in zip(targets, matches, strict=True) if len(match)]),
        torch.cat([target["ids"][match] for target, match in zip(targets, matches, strict=True) if len(match)]),
        mask_logits.shape[-1],
    )
    return F.binary_cross_entropy_with_logits(mask_logits.float(), wanted)
