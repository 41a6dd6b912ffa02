"""The benchmarks of the network, in training and in prediction; each takes a scratch folder and a number of repeats."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import project_masks_on_boxes

import utils
from benchmarks import plain
from benchmarks.material import (
    cells,
    open_cache,
    open_dataset,
    raw_detections,
    write_record,
)
from benchmarks.measure import Row, interleaved, milliseconds, waits
from model import build_model
from src.config.flags import build
from src.config.recipe import read_recipe
from src.config.settings import (
    AugmentSettings,
    ImageSettings,
    ModelSettings,
    PredictSettings,
    TrainConfig,
)
from src.engine.devices import AMP_TYPES, choose_device, cpu_has_bf16, resolve_amp
from src.engine.loading import collate
from src.engine.prediction import Predictor, predict_image
from src.evaluation.results import result_entries
from src.geometry.tiles import tile_grid
from src.network.targets import sample_mask_targets
from src.network.weights import resolve

ROOT = Path(__file__).resolve().parents[1]


def dense_tile(folder: Path) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """A batch of one 512 tile with 228 cells."""
    record = write_record(folder, 512, 512, 228)
    dataset = open_dataset(record, folder / "cache", AugmentSettings(augment="none"))
    batch = collate([dataset[(0, 0)]])
    return batch.tiles, batch.targets()


def mask_targets(folder: Path, repeats: int) -> list[Row]:
    """The mask targets of a training step."""
    _, (target,) = dense_tile(folder / "targets")
    rng = torch.Generator().manual_seed(0)
    matches = torch.randint(len(target["boxes"]), (128,), generator=rng)
    boxes = target["boxes"][matches] + torch.rand((128, 4), generator=rng) * 4 - 2
    dense, zeros = plain.dense_targets([target])[0]["masks"], torch.zeros(128, dtype=torch.int64)

    def ours() -> Tensor:
        layers, ids = target["layers"][matches], target["ids"][matches]
        return sample_mask_targets(target["label_map"][None], boxes, zeros, layers, ids, 28)

    def theirs() -> Tensor:
        return project_masks_on_boxes(dense, boxes, matches, 28)

    off = float((ours() - theirs()).abs().max())
    mine, other = map(milliseconds, interleaved(max(repeats, 9), ours, theirs))
    return [
        Row(f"mask targets, {len(dense)} cells, 128 RoIs", "ms", mine, other, 12, 10),
        Row("their largest difference", "", [off], at_most=1e-4),
    ]


def training_step(folder: Path, repeats: int) -> list[Row]:
    """Forward and backward of the default network on a 512 tile."""
    images, targets = dense_tile(folder / "step")
    settings = ModelSettings(weights="none", norm="frozen", head_norm="off", trainable_layers=5, anchors="default")
    network = build_model(settings, 4).train()
    reference = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5, trainable_backbone_layers=5, rpn_pre_nms_top_n_train=2000
    ).train()
    plain_images, plain_targets = list(images.float() / 255), plain.dense_targets(targets)

    def ours() -> None:
        losses = network(images, targets)
        torch.stack(list(losses.values())).sum().backward()

    def theirs() -> None:
        losses = reference(plain_images, plain_targets)
        torch.stack(list(losses.values())).sum().backward()

    mine, other = map(milliseconds, interleaved(repeats, ours, theirs))
    waiting = [[float(waits(step))] for step in (ours, theirs)]
    return [
        Row("a training step on a 512 tile, ResNet-50, against rescaling to 800", "ms", mine, other, 1.7),
        Row("its calls that make the CPU wait for a GPU", "calls", waiting[0], waiting[1], 1),
    ]


def half_precision(folder: Path, repeats: int) -> list[Row]:
    """A step and a prediction of ``cpu.toml`` in bf16 against float32, where the processor has bf16 natively."""
    if not cpu_has_bf16():
        print("half-precision: left out, this processor has no bf16", file=sys.stderr)
        return []
    config = build(TrainConfig, read_recipe(ROOT / "script/recipes/cpu.toml"))
    record = write_record(folder / "half", 512, 512, 228)
    dataset = open_dataset(record, folder / "cache-half", AugmentSettings(augment="none"), config.tiles)
    batch = collate([dataset[(0, index)] for index in range(int(config.run.batch_size))])
    network = build_model(resolve(config.model, cell_size=20), 4, config.predict)

    def step(amp: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            losses = network.train()(batch.tiles, batch.targets())
        torch.stack(list(losses.values())).sum().backward()

    def predict(amp: bool) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
            network.eval()(batch.tiles)

    rows = []
    for what, call in (("training step", step), ("prediction", predict)):
        other, mine = map(milliseconds, interleaved(repeats, partial(call, False), partial(call, True)))
        rows.append(Row(f"a {what} of cpu.toml in bf16, against float32", "ms", mine, other, 1.4))
    return rows


class TimedNetwork(nn.Module):
    """A network whose time is taken, and whose answers are replaced by what a perfect one says of 300 cells."""

    def __init__(self, network: nn.Module, answers: Any) -> None:
        super().__init__()
        self.network, self.answers, self.seconds, self.calls = network, answers, 0.0, 0

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        """Run the network, then hand out the answers of the next tiles."""
        start = time.perf_counter()
        self.network(tiles)
        if tiles.is_cuda:
            torch.cuda.synchronize(tiles.device)
        self.seconds += time.perf_counter() - start
        chosen = [self.answers[(self.calls + i) % len(self.answers)] for i in range(len(tiles))]
        self.calls += len(tiles)
        return chosen


def prediction(folder: Path, repeats: int) -> list[Row]:
    """Everything but the network when an image with 300 cells is predicted."""
    rng = np.random.default_rng(0)
    record = write_record(folder / "predict", 1000, 1000, 324)
    true, places = cells(rng, 1000, 1000, 324), tile_grid(1000, 1000, 512, 128)
    disc = raw_detections(rng, 1, 100)[3][0]
    answers = []
    for place in places:
        boxes = [
            (i.left - place.left, i.top - place.top, i.right - place.left, i.bottom - place.top)
            for i in true
            if place.top <= i.top and i.bottom <= place.bottom and place.left <= i.left and i.right <= place.right
        ]
        answers.append(
            {
                "boxes": (true_boxes := torch.tensor(boxes, dtype=torch.float32)),
                "scores": torch.rand(len(boxes)),
                "labels": torch.ones(len(boxes), dtype=torch.int64),
                "masks": torch.from_numpy(np.repeat(disc[None], len(boxes), axis=0)),
                "mask_rois": true_boxes,
            }
        )
    settings = ModelSettings(weights="none", norm="frozen", head_norm="off", trainable_layers=5, anchors="default")
    predict = PredictSettings(detections_per_tile=100)
    device = choose_device("auto")
    network = TimedNetwork(utils.to_device(build_model(settings, 4, predict), device).eval(), answers)
    amp = AMP_TYPES[resolve_amp("auto", device)]
    predictor = Predictor([network], device, amp, ImageSettings(), 512, predict)
    shares = []
    for _ in range(repeats):
        network.seconds, start = 0.0, time.perf_counter()
        image = open_cache(folder / "cache-predict").get(record).image
        found = predict_image(predictor, np.asarray(image))
        result_entries(1, found, 1000, 1000)
        shares.append(100 * (1 - network.seconds / (time.perf_counter() - start)))
    return [Row("prediction of 300 cells: all but the network", "%", shares, at_most=8)]
