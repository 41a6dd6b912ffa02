"""Mask targets of a training step, sampled from the tiles' label maps: no dense mask per cell is ever made."""

import math

import torch
from torch import Tensor

_SMALLEST_EXPONENT = 5  # windows of 32 px and up


def sample_mask_targets(
    label_maps: Tensor, boxes: Tensor, tiles: Tensor, layers: Tensor, ids: Tensor, resolution: int
) -> Tensor:
    """Share of each mask cell of each RoI that its object covers.

    Equal to torchvision's ``roi_align`` of the object's dense mask (``aligned=False``, adaptive sampling), which is
    separable: a bilinear sample is a row weight times a column weight, and so is the mean over a grid of samples.
    Hence ``target = row_weights @ mask @ column_weightsᵀ`` on a window just larger than the RoI.

    Args:
        label_maps: ``(B, L, H, W)`` integer object ids, 0 for background.
        boxes: ``(R, 4)`` float RoIs, xyxy in tile px.
        tiles, layers, ids: ``(R,)`` int64: where in ``label_maps`` the RoI's object is painted, and its id there.
        resolution: M, the side of the mask head's output.

    Returns:
        ``(R, M, M)`` float32 in [0, 1].
    """
    targets = boxes.new_zeros((len(boxes), resolution, resolution), dtype=torch.float32)
    if not len(boxes):
        return targets
    with torch.autocast(boxes.device.type, enabled=False):  # it would round coordinates and targets
        for window, members in _by_window(boxes.float(), max(label_maps.shape[-2:])):
            targets[members] = _sample(
                label_maps, boxes[members].float(), tiles[members], layers[members], ids[members], (resolution, window)
            )
    return targets


def _by_window(boxes: Tensor, longest: int) -> list[tuple[int, Tensor]]:
    """Group RoIs by the power of two that holds their longer side: one large RoI must not make all windows large.

    The size of each group is the only value that is read back from a GPU.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1).clamp(max=longest) + 3
    last = math.ceil(math.log2(longest + 3))
    exponents = torch.log2(sides).ceil().clamp(min=_SMALLEST_EXPONENT, max=last).long()
    levels = range(_SMALLEST_EXPONENT, max(last, _SMALLEST_EXPONENT) + 1)
    counts = torch.stack([(exponents == level).sum() for level in levels]).tolist()
    groups = exponents.argsort(stable=True).split(counts)
    return [(2**level, members) for level, members in zip(levels, groups, strict=True) if len(members)]


def _sample(
    label_maps: Tensor, boxes: Tensor, tiles: Tensor, layers: Tensor, ids: Tensor, shape: tuple[int, int]
) -> Tensor:
    resolution, window = shape
    height, width = label_maps.shape[-2:]
    rows, row_weights = _axis(boxes[:, 1], boxes[:, 3], height, resolution, window)
    columns, column_weights = _axis(boxes[:, 0], boxes[:, 2], width, resolution, window)
    labels = label_maps[tiles[:, None, None], layers[:, None, None], rows[:, :, None], columns[:, None, :]]
    mask = (labels == ids[:, None, None].to(labels.dtype)).float()
    return row_weights @ mask @ column_weights.transpose(1, 2)


def _axis(start: Tensor, end: Tensor, length: int, resolution: int, window: int) -> tuple[Tensor, Tensor]:
    """Pixels ``(R, S)`` of each RoI's window along one axis, and their weights ``(R, M, S)`` in each of the M bins."""
    bin_size = (end - start).clamp(min=1.0) / resolution
    samples = bin_size.ceil()  # samples per bin along this axis, as torchvision chooses them
    steps = torch.arange(int(window / resolution) + 2, device=start.device)
    offsets = torch.arange(resolution, device=start.device)[None, :, None] + (
        (steps + 0.5) / samples[:, None]
    ).unsqueeze(1)
    positions = start[:, None, None] + offsets * bin_size[:, None, None]
    used = (steps < samples[:, None]).unsqueeze(1) & (positions >= -1.0) & (positions <= length)
    positions = positions.clamp(0, length - 1)
    first = start.floor().clamp(0, length - 1).long()
    pixels = first[:, None] + torch.arange(window, device=start.device)
    hat = (1 - (positions[..., None] - pixels[:, None, None, :]).abs()).clamp(min=0)
    weights = (hat * used[..., None]).sum(dim=2) / samples[:, None, None]
    return pixels.clamp(max=length - 1), weights * (pixels < length)[:, None, :]
