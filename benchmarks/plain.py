"""The plain way, as a competent user writes it from the tutorials of torchvision, albumentations and pycocotools."""

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
import tifffile
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms.functional import to_tensor

from src.data.records import Record
from src.evaluation.image_truth import ImageTruth
from src.geometry.tiles import Tile


def augmentation(jitter_prob: float) -> A.Compose:
    """Flips, quarter turns, shift-scale-rotate at 0.5, colour jitter."""
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.RandomRotate90(p=0.5),
            A.Affine(scale=(0.9, 1.1), translate_percent=(-0.0625, 0.0625), rotate=(-15, 15), p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=jitter_prob),
        ]
    )


def load_tile(record: Record, tile: Tile, transform: A.Compose | None) -> tuple[Tensor, dict[str, Tensor]]:
    """A tile and its target with one dense mask per cell; the files are read again for each tile."""
    window = np.s_[tile.top : tile.bottom, tile.left : tile.right]
    image = tifffile.imread(record.image)[window]
    masks, labels = [], []
    for category, path in sorted(record.masks.items()):
        label_map = tifffile.imread(path)[window]
        for label in np.unique(label_map)[1:]:
            masks.append((label_map == label).astype(np.uint8))
            labels.append(category)
    if transform is not None:
        augmented = transform(image=image, masks=masks)
        image, masks = augmented["image"], augmented["masks"]
    kept = [(mask, label) for mask, label in zip(masks, labels, strict=True) if mask.any()]
    target = {
        "boxes": torch.tensor([box(mask) for mask, _ in kept], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label in kept], dtype=torch.int64),
        "masks": torch.from_numpy(np.stack([mask for mask, _ in kept])),
    }
    return to_tensor(np.ascontiguousarray(image)), target


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box of a mask, xyxy, max exclusive."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def result_entries(raw: Sequence[np.ndarray], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Result entries from boxes, scores, labels and mask probabilities through one full-size mask per detection."""
    boxes, scores, labels, masks = raw
    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)
    entries = []
    for mask, score, label in zip(pasted[:, 0].numpy() > 0.5, scores, labels, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        entries.append(
            {
                "image_id": 1,
                "category_id": int(label),
                "score": float(score),
                "bbox": coco_mask.toBbox(rle).tolist(),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return entries


def dense_targets(targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The program's targets as torchvision's own model wants them."""
    return [
        {
            "boxes": target["boxes"],
            "labels": target["labels"],
            "masks": (target["label_map"][target["layers"]] == target["ids"][:, None, None]).to(torch.uint8),
        }
        for target in targets
    ]


def average_precision(truths: Sequence[ImageTruth], entries: list[dict[str, Any]], caps: Sequence[int]) -> np.ndarray:
    """Precision ``(T, R, K, M)`` by pycocotools, of true cells that become RLE through one full-size mask each."""
    annotations: list[dict[str, Any]] = []
    for truth in truths:
        for cell in truth.instances:
            mask = np.zeros((truth.height, truth.width), np.uint8)
            mask[cell.top : cell.bottom, cell.left : cell.right] = cell.mask
            rle = coco_mask.encode(np.asfortranarray(mask))
            annotation = {"id": len(annotations) + 1, "image_id": truth.id, "category_id": cell.class_id}
            box, area = coco_mask.toBbox(rle).tolist(), float(coco_mask.area(rle))
            annotations.append({**annotation, "segmentation": rle, "area": area, "bbox": box, "iscrowd": 0})
    truth_coco = COCO()
    truth_coco.dataset = {
        "info": {},
        "images": [{"id": truth.id, "height": truth.height, "width": truth.width} for truth in truths],
        "categories": [{"id": number} for number in sorted({item["category_id"] for item in annotations})],
        "annotations": annotations,
    }
    truth_coco.createIndex()
    evaluation = COCOeval(truth_coco, truth_coco.loadRes(entries), "segm")
    evaluation.params.maxDets = list(caps)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]  # as ours, which asks for no more
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, :]
