"""torchvision's RoI heads, trained from label maps, with raw masks as output."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from src.data.classes import UNKNOWN_CLASS
from src.network.sampling import leave_out_ignored
from src.network.targets import sample_mask_targets

Features = dict[str, Tensor]
Shapes = list[tuple[int, int]]
Target = Mapping[str, Tensor]
MASKS_AT_ONCE = {"cpu": 64, "cuda": 1024}  # on a CPU larger tensors are mapped anew each time, which costs a third
TARGET_KEYS = ("boxes", "labels", "label_map", "layers", "ids")


class TiledRoIHeads(RoIHeads):
    """Box and mask heads for dense tiles.

    In training a target holds ``boxes`` (N, 4) float32 xyxy, ``labels`` (N,) int64 in 1..K or ``UNKNOWN_CLASS`` and, in
    place of dense masks, ``label_map`` (L, H, W) with each object's ``layers`` and ``ids`` (N,) in it. In evaluation a
    tile's answer is ``boxes``, ``scores``, ``labels`` and ``masks`` (N, M, M): probabilities of the detection's class
    in its mask RoI, ``mask_rois`` (N, 4), which is the box enlarged ``mask_roi_scale`` times. ``probabilities`` (N, K)
    are those of the classes.
    """

    mask_rois_per_tile: int = 128
    mask_roi_scale: float = 1.0
    refine_boxes: bool = False
    surroundings: "Surroundings | None"
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
        shares = class_logits.float().softmax(dim=1)
        if self.refine_boxes:
            shares, proposals = self._own_boxes(shares, box_regression.float(), proposals, image_shapes)
            class_logits, box_regression = self._box_outputs(features, proposals, image_shapes)
            shares = (shares + class_logits.float().softmax(dim=1)) / 2
        found = self.choose_detections(shares, box_regression.float(), proposals, image_shapes)
        for tile, (of_tile, shape) in enumerate(zip(found, image_shapes, strict=True)):
            own_features = {name: level[tile : tile + 1] for name, level in features.items()}
            of_tile["mask_rois"] = enlarge(of_tile["boxes"], self.mask_roi_scale)
            of_tile["masks"] = self._tile_masks(own_features, of_tile["mask_rois"], of_tile["labels"], shape)
        return found, {}

    def choose_detections(
        self, shares: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: Shapes
    ) -> list[dict[str, Tensor]]:
        """Per tile the ``boxes``, ``scores``, ``labels`` and ``probabilities`` (N, K) of its detections, best first.

        As torchvision's ``postprocess_detections``, but with the probabilities of all classes, which sum to 1.

        Args:
            shares: ``(R, K + 1)`` probabilities of background and classes, of the proposals of all tiles.
            box_regression: ``(R, 4 (K + 1))`` encoded offsets.
        """
        counts = [len(of_tile) for of_tile in proposals]
        decoded = self._decoded(box_regression, proposals).split(counts)
        return [self._of_tile(*parts) for parts in zip(shares.split(counts), decoded, image_shapes, strict=True)]

    def _own_boxes(
        self, shares: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: Shapes
    ) -> tuple[Tensor, list[Tensor]]:
        """The boxes of the likeliest classes in place of proposals, and their shares; those that are hardly an object
        (see :meth:`choose_detections`) are left out."""
        of_classes = shares[:, 1:]
        kept = of_classes.amax(dim=1) > self.score_thresh
        counts = [int(of_tile.sum()) for of_tile in kept.split([len(of_tile) for of_tile in proposals])]
        decoded = self._decoded(box_regression, proposals)[kept]
        own = decoded[torch.arange(len(decoded), device=decoded.device), of_classes[kept].argmax(dim=1) + 1]
        boxes = [clip_boxes_to_image(*part) for part in zip(own.split(counts), image_shapes, strict=True)]
        return shares[kept], boxes

    def _decoded(self, box_regression: Tensor, proposals: list[Tensor]) -> Tensor:
        """The boxes ``(R, K + 1, 4)`` of proposals, also where there are none, for which torchvision drops an axis."""
        return self.box_coder.decode(box_regression, proposals).reshape(-1, box_regression.shape[1] // 4, 4)

    def _of_tile(self, shares: Tensor, boxes: Tensor, shape: tuple[int, int]) -> dict[str, Tensor]:
        """The detections among shares ``(R, K + 1)`` of background and classes, and boxes ``(R, K + 1, 4)``."""
        of_classes = shares[:, 1:]
        proposal, column = torch.where(of_classes > self.score_thresh)
        boxes = clip_boxes_to_image(boxes[proposal, column + 1], shape)
        kept = remove_small_boxes(boxes, min_size=1e-2)
        proposal, column, boxes = proposal[kept], column[kept], boxes[kept]
        scores = of_classes[proposal, column]
        kept = batched_nms(boxes, scores, column, self.nms_thresh)[: self.detections_per_img]
        chosen = of_classes[proposal[kept]]
        return {
            "boxes": boxes[kept],
            "scores": scores[kept],
            "labels": column[kept] + 1,
            "probabilities": chosen / chosen.sum(dim=1, keepdim=True).clamp(min=1e-12),
        }

    def _box_outputs(self, features: Features, proposals: list[Tensor], image_shapes: Shapes) -> tuple[Tensor, Tensor]:
        """Class logits ``(R, K + 1)`` and encoded offsets ``(R, 4 (K + 1))`` of the proposals of all tiles."""
        logits, regression = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        if self.surroundings is not None:
            around = [enlarge(boxes, self.surroundings.scale) for boxes in proposals]
            logits = logits + self.surroundings(self.box_roi_pool(features, around, image_shapes))
        return logits, regression

    def _mask_logits(self, features: Features, rois: list[Tensor], labels: Tensor, image_shapes: Shapes) -> Tensor:
        """``(R, M, M)`` logits of each RoI's own class."""
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, rois, image_shapes)))
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _tile_masks(self, features: Features, rois: Tensor, labels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Mask probabilities ``(R, M, M)`` of one tile's detections, computed in chunks to bound the memory."""
        at_once = MASKS_AT_ONCE.get(rois.device.type, 64)
        chunks = zip(rois.split(at_once), labels.split(at_once), strict=True)
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
        classifier = classifier_loss(class_logits, torch.cat(labels), self.class_weights)
        counts = [len(of_tile) for of_tile in labels]
        labels = list(supposed_labels(class_logits, torch.cat(labels)).split(counts))
        box = box_loss(box_regression, torch.cat(labels), torch.cat(regression_targets))
        chosen = [self._mask_rois(tile_labels) for tile_labels in labels]
        rois = [enlarge(boxes[index], self.mask_roi_scale) for boxes, index in zip(proposals, chosen, strict=True)]
        matches = [tile_matches[index] for tile_matches, index in zip(matches, chosen, strict=True)]
        mask_labels = torch.cat([tile_labels[index] for tile_labels, index in zip(labels, chosen, strict=True)])
        mask_logits = self._mask_logits(features, rois, mask_labels, image_shapes)
        return {"classifier": classifier, "box": box, "mask": mask_loss(mask_logits, rois, matches, targets)}

    def _mask_rois(self, labels: Tensor) -> Tensor:
        """Up to ``mask_rois_per_tile`` of a tile's positive proposals, drawn at random."""
        positive = (labels > 0).nonzero().flatten()
        if len(positive) <= self.mask_rois_per_tile:
            return positive
        return positive[torch.randperm(len(positive), device=positive.device)[: self.mask_rois_per_tile]]


class Surroundings(nn.Module):
    """What the surroundings of a box, ``scale`` times its sides, say about its class: logits to be added to the box's.

    They start at zero, so that weights of a network without this predict as before.
    """

    def __init__(self, scale: float, head: nn.Module, features: int, class_count: int) -> None:
        super().__init__()
        self.scale, self.head = scale, head
        self.cls_score = nn.Linear(features, class_count + 1)
        nn.init.zeros_(self.cls_score.weight)
        nn.init.zeros_(self.cls_score.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits ``(R, K + 1)`` from the features ``(R, C, 7, 7)`` of the enlarged boxes."""
        return self.cls_score(self.head(pooled))


def enlarge(boxes: Tensor, factor: float) -> Tensor:
    """Boxes ``(N, 4)`` xyxy with sides ``factor`` times as long, about the same centres."""
    if factor == 1:
        return boxes
    margin = (boxes[:, 2:] - boxes[:, :2]) * ((factor - 1) / 2)
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def supposed_labels(class_logits: Tensor, labels: Tensor) -> Tensor:
    """``labels`` (R,) with the likeliest class by ``class_logits`` (R, K + 1) in place of ``UNKNOWN_CLASS``.

    Boxes and masks are predicted for each class by itself; a cell of unknown class teaches those that would be used.
    """
    likeliest = class_logits[:, 1:].argmax(dim=1) + 1
    return torch.where(labels == UNKNOWN_CLASS, likeliest, labels)


def classifier_loss(class_logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross-entropy; of a cell of unknown class it is only asked that it is no background.

    Args:
        class_logits: ``(R, K + 1)``.
        labels: ``(R,)`` int64: 0 for background, 1..K or ``UNKNOWN_CLASS``.
        class_weights: ``(K + 1,)`` or ``None``; a cell of unknown class has the mean weight of the classes.
    """
    if not len(labels):  # all that was proposed is to be ignored
        return class_logits.float().sum() * 0
    log_shares = class_logits.float().log_softmax(dim=1)
    is_unknown = labels == UNKNOWN_CLASS
    known = labels.masked_fill(is_unknown, 0)
    own = log_shares.gather(1, known[:, None])[:, 0]
    own = torch.where(is_unknown, log_shares[:, 1:].logsumexp(dim=1), own)
    if class_weights is None:
        return -own.mean()
    weights = torch.where(is_unknown, class_weights[1:].mean(), class_weights[known])
    return -(weights * own).sum() / weights.sum()


def box_loss(box_regression: Tensor, labels: Tensor, regression_targets: Tensor) -> Tensor:
    """Box loss of Fast R-CNN, as in torchvision's ``fastrcnn_loss``.

    Args:
        box_regression: ``(R, 4 (K + 1))``, encoded offsets for each class.
        labels: ``(R,)`` int64, 0 for background.
        regression_targets: ``(R, 4)``, encoded offsets.
    """
    box_regression = box_regression.float()
    if not len(labels):
        return box_regression.sum() * 0
    own = box_regression.reshape(len(labels), -1, 4)[torch.arange(len(labels), device=labels.device), labels]
    wanted = torch.where((labels > 0)[:, None], regression_targets, own.detach())  # background has no box to learn
    return F.smooth_l1_loss(own, wanted, beta=1 / 9, reduction="sum") / labels.numel()


def mask_loss(
    mask_logits: Tensor, rois: Sequence[Tensor], matches: Sequence[Tensor], targets: Sequence[Target]
) -> Tensor:
    """Mean binary cross-entropy of mask logits ``(R, M, M)`` against targets sampled from the label maps.

    ``rois[b]`` (r, 4) are those of tile b and ``matches[b]`` (r,) the object of ``targets[b]`` that each belongs to.
    """
    if not len(mask_logits):
        return mask_logits.sum() * 0  # keeps the mask head in the graph, as torch.distributed demands
    places = [torch.full((len(of_tile),), tile, device=mask_logits.device) for tile, of_tile in enumerate(rois)]
    wanted = sample_mask_targets(
        torch.stack([target["label_map"] for target in targets]),
        torch.cat(list(rois)),
        torch.cat(places),
        torch.cat([target["layers"][match] for target, match in zip(targets, matches, strict=True) if len(match)]),
        torch.cat([target["ids"][match] for target, match in zip(targets, matches, strict=True) if len(match)]),
        mask_logits.shape[-1],
    )
    return F.binary_cross_entropy_with_logits(mask_logits.float(), wanted)
