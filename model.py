"""The model: torchvision's Mask R-CNN at one fixed scale, with RoI heads for dense tiles and a choice of backbones."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from src.common.errors import InputError
from src.config.checks import parse_anchors
from src.config.settings import ModelSettings, PredictSettings
from src.geometry.anchors import ASPECT_RATIOS, DEFAULT_ANCHORS
from src.network.backbones import NORMS, Architecture, architecture, build_backbone
from src.network.heads import Surroundings, Target, TiledRoIHeads
from src.network.pyramid import PyramidRoIAlign
from src.network.rpn import TiledRPN
from src.network.sampling import BalancedSampler
from src.network.weights import count_parameters

PARAMETER_BUDGET = 200_000_000
KEEP_BY_DEFAULT = PredictSettings()  # which detections are kept where a caller does not care
LIKELY_OBJECT = 0.3  # objectness; where the last proposal has less, those behind it would hardly hold a cell
STRIDE = 32  # of the deepest backbone stage: tensors are padded to a multiple, or anchors would drift off their cells


class TiledMaskRCNN(nn.Module):
    """Mask R-CNN on uint8 tiles of one size.

    The state dict has torchvision's names (``backbone.body…``, ``rpn…``, ``roi_heads…``), so its weights load.
    """

    def __init__(
        self, backbone: nn.Module, rpn: TiledRPN, roi_heads: TiledRoIHeads, architecture: Architecture
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.limits_reached: Counter[str] = Counter()  # in prediction: tiles, and those cut off by a limit, by its flag
        self.fill = architecture.fill
        self.register_buffer("image_mean", torch.tensor(architecture.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("image_std", torch.tensor(architecture.std).view(3, 1, 1) * 255, persistent=False)

    image_mean: Tensor
    image_std: Tensor

    def normalize(self, tiles: Tensor) -> ImageList:
        """``(B, 3, H, W)`` uint8 → normalised float32, padded with zeros on the right and below to the stride."""
        height, width = tiles.shape[-2:]
        images = (tiles.float() - self.image_mean) / self.image_std
        images = nn.functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        return ImageList(images, [(height, width)] * len(tiles))

    def forward(
        self, tiles: Tensor, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training (``classifier, box, mask, objectness, rpn_box``), detections per tile in evaluation.

        Args:
            tiles: ``(B, 3, H, W)`` uint8 RGB.
            targets: as :class:`src.network.heads.TiledRoIHeads` wants them; needed in training only.

        Returns:
            Detections hold ``boxes`` (N, 4) float32 xyxy in tile px, ``scores`` (N,), ``labels`` (N,) int64 in 1..K and
            ``masks`` (N, M, M) float32 probabilities inside ``mask_rois`` (N, 4), and ``probabilities`` (N, K) of the
            classes, best score first.
        """
        images = self.normalize(tiles)
        features = self.backbone(images.tensors)
        proposals, rpn_losses = self.rpn(images, features, targets)
        detections, losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        if not self.training:
            self._count_limits(proposals, detections)
            return detections
        return {**losses, "objectness": rpn_losses["loss_objectness"], "rpn_box": rpn_losses["loss_rpn_box_reg"]}

    def _count_limits(self, proposals: Sequence[Tensor], detections: Sequence[dict[str, Tensor]]) -> None:
        """Count the tiles in which a limit most likely left out proposals or detections."""
        self.limits_reached["tiles"] += len(detections)
        most = self.rpn.post_nms_top_n()
        lasts = zip(proposals, self.rpn.last_objectness, strict=True)
        self.limits_reached["--proposals"] += sum(
            len(of_tile) >= most and bool((last >= LIKELY_OBJECT).all()) for of_tile, last in lasts
        )
        most = self.roi_heads.detections_per_img
        self.limits_reached["--detections-per-tile"] += sum(len(of_tile["boxes"]) >= most for of_tile in detections)


def build_model(settings: ModelSettings, class_count: int, predict: PredictSettings = KEEP_BY_DEFAULT) -> TiledMaskRCNN:
    """Build the network with random weights.

    Args:
        settings: resolved (:func:`resolve`): no ``auto`` is left in it.
        class_count: K; the background is added here.
        predict: which detections are kept.

    Raises:
        InputError: for more than 200 million parameters without ``allow_large``, before memory is asked for.
    """
    parameters = count_parameters(build_skeleton(settings, class_count))
    if parameters > PARAMETER_BUDGET and not settings.allow_large:
        raise InputError(
            f"--backbone {settings.backbone}: {parameters / 1e6:.1f} M parameters exceed 200 M; see --allow-large"
        )
    return _assemble(settings, class_count, predict)


def build_skeleton(settings: ModelSettings, class_count: int) -> TiledMaskRCNN:
    """The network on torch's ``meta`` device: the names and shapes of its tensors, without memory for their values."""
    with torch.device("meta"):
        return _assemble(settings, class_count, KEEP_BY_DEFAULT)


def _assemble(settings: ModelSettings, class_count: int, predict: PredictSettings) -> TiledMaskRCNN:
    norm_layer = _new_layers_norm(settings)
    backbone, rpn = build_backbone(settings, norm_layer), _rpn(settings)
    heads = _roi_heads(settings, class_count, predict, norm_layer)
    model = TiledMaskRCNN(backbone, rpn, heads, architecture(settings.backbone))
    if settings.weights == "coco" and settings.detector == "v1":
        overwrite_eps(model, 0.0)  # as these weights were trained
    return model


def anchor_sizes(settings: ModelSettings) -> tuple[float, ...]:
    """The five anchor sides in px, one per pyramid level."""
    if settings.anchors == "default":
        return DEFAULT_ANCHORS
    return parse_anchors(settings.anchors)


def _new_layers_norm(settings: ModelSettings) -> Callable[..., nn.Module] | None:
    """Norms in the pyramid and the mask head: v2 has them, v1's pretrained weights have none."""
    if settings.detector == "v2":
        return nn.BatchNorm2d
    return NORMS[settings.norm] if settings.head_norm == "on" else None


def _rpn(settings: ModelSettings) -> TiledRPN:
    convolutions = 2 if settings.detector == "v2" else 1
    return TiledRPN(
        anchor_sizes(settings), ASPECT_RATIOS, settings.fpn_channels, convolutions, proposals=settings.proposals
    )


def _roi_heads(
    settings: ModelSettings, class_count: int, predict: PredictSettings, norm_layer: Callable[..., nn.Module] | None
) -> TiledRoIHeads:
    channels, mask_layers = settings.fpn_channels, (settings.mask_head_channels,) * settings.mask_head_layers
    heads = TiledRoIHeads(
        box_roi_pool=PyramidRoIAlign(output_size=7, sampling_ratio=settings.roi_samples),
        box_head=_box_head(settings, norm_layer),
        box_predictor=FastRCNNPredictor(settings.box_head_dim, class_count + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.rois_per_tile,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=predict.score_thresh,
        nms_thresh=settings.nms_threshold,
        detections_per_img=predict.detections_per_tile,
        mask_roi_pool=PyramidRoIAlign(output_size=14, sampling_ratio=settings.roi_samples),
        mask_head=MaskRCNNHeads(channels, mask_layers, 1, norm_layer),
        mask_predictor=MaskRCNNPredictor(settings.mask_head_channels, settings.mask_head_channels, class_count + 1),
    )
    heads.fg_bg_sampler = BalancedSampler(settings.rois_per_tile, 0.25)
    heads.mask_rois_per_tile, heads.mask_roi_scale = settings.mask_rois_per_tile, settings.mask_roi_scale
    heads.refine_boxes, heads.surroundings = predict.refine_boxes, None
    if settings.class_roi_scale:
        head, width = _box_head(settings, norm_layer), settings.box_head_dim
        heads.surroundings = Surroundings(settings.class_roi_scale, head, width, class_count)
    return heads


def _box_head(settings: ModelSettings, norm_layer: Callable[..., nn.Module] | None) -> nn.Module:
    """The layers between the features of a box and what is predicted from them."""
    channels = settings.fpn_channels
    if settings.detector == "v2":
        return FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [settings.box_head_dim], norm_layer)
    return TwoMLPHead(channels * 7**2, settings.box_head_dim)
