"""Checkpoints in tests, and the frozen writer of the files of an earlier version."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from src.engine.checkpoint import Checkpoint, Snapshot, read_checkpoint

# Every setting as those files hold them, resolved where the program had resolved them.
SETTINGS_OF_FORMAT_2: dict[str, Any] = {
    "data_path": "./hw3-data-release/train", "output_dir": "./logs", "num_classes": 5, "classes": None, "split": None,
    "val_fraction": 0.2, "groups": None, "epochs": 30, "max_steps": None, "max_minutes": None, "batch_size": 4,
    "workers": -1, "seed": 0, "val_every": 1, "patience": 0, "save_every": 1, "resume": None, "on_change": "refuse",
    "backend": "auto", "cache_dir": None, "cache_gb": 20.0, "optimizer": "sgd", "lr": 0.005, "momentum": 0.9,
    "weight_decay": 0.0001, "warmup_steps": 500, "schedule": "constant", "step_epochs": 10,
    "loss_weights": "classifier=1,box=1,mask=1,objectness=1,rpn_box=1", "class_weights": "none", "clip_norm": 10.0,
    "accumulate": 1, "ema": 0.0, "amp": "auto", "compile": False, "backbone": "resnet50", "detector": "v1",
    "weights": "coco", "norm": "frozen", "head_norm": "off", "trainable_layers": 3, "anchors": "8,16,32,64,128",
    "fpn_channels": 256, "box_head_dim": 1024, "mask_head_channels": 256, "mask_head_layers": 4, "rois_per_tile": 512,
    "mask_rois_per_tile": 128, "roi_samples": 2, "proposals": 2000, "detections_per_tile": 500, "nms_threshold": 0.5,
    "allow_large": False, "intensity": "full", "channel_order": "rgb", "scale": 1.0, "max_pixels": 100_000_000,
    "tile_size": 512, "overlap": 256, "empty_fraction": 0.1, "min_visible": 0.25, "augment": "full",
    "affine_prob": 0.5, "jitter_prob": 0.3, "score_thresh": 0.05, "predict_overlap": 128, "tta": "none",
    "whole_image": False, "predict_batch_size": 4, "device": "auto",
}  # fmt: skip


def snapshot_of(path: Path) -> Snapshot:
    """What a checkpoint holds beside weights, for training to go on."""
    snapshot = read_checkpoint(path).snapshot
    assert snapshot is not None
    return snapshot


def write_format_2(path: Path, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Write a checkpoint as the program did when ``best.pt`` still held all that ``last.pt`` holds.

    ``settings`` are those that are not as above. This is frozen: it shows that such files are still read, so it follows
    no change of the program.
    """
    snapshot = checkpoint.snapshot
    assert snapshot is not None
    progress = snapshot.progress
    content = {
        "format": 2,
        "model": dict(snapshot.model),
        "ema": dict(checkpoint.weights) if settings.get("ema") else None,
        "optimizer": snapshot.optimizer,
        "scaler": snapshot.scaler,
        "progress": {
            "epoch": progress.epoch,
            "batch": progress.batch,
            "step": progress.step,
            "seconds": progress.seconds,
            "best_ap50": progress.best_ap50,
            "validations_without_gain": progress.validations_without_gain,
            "validating": progress.validating,
            "finished": progress.finished,
        },
        "settings": {**SETTINGS_OF_FORMAT_2, **settings},
        "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in checkpoint.classes],
        "split": snapshot.split,
        "checksums": snapshot.checksums,
        "processes": 1,
    }
    torch.save(content, path)
    archive = path.read_bytes()
    assert archive[-2:] == b"\0\0"
    archive = archive[:-2] + (64).to_bytes(2, "little")
    path.write_bytes(archive + hashlib.sha256(archive).hexdigest().encode())
