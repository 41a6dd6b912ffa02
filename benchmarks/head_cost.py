"""What RoIs and wider heads cost in a training step of a recipe: ``python -m benchmarks.head_cost``."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import open_dataset
from benchmarks.material import write_record
from benchmarks.measure import interleaved
from engine.loading import collate
from engine.optimization import build_optimizer
from engine.weights import resolve
from model import build_model
from src.command import Parser
from src.config import build, read_recipe
from src.errors import run
from src.settings import AugmentSettings, TrainConfig

CELL_SIZE = 24.0  # px, of the benchmark's cells
VARIANTS: dict[str, dict[str, Any]] = {
    "as the recipe says": {},
    "half the RoIs of the box head": {"rois_per_tile": 0.5},
    "4 x the RoIs of the box head": {"rois_per_tile": 4},
    "a third of the RoIs of the mask head": {"mask_rois_per_tile": 1 / 3},
    "4 x the RoIs of the mask head": {"mask_rois_per_tile": 4},
    "4 x the proposals": {"proposals": 4},
    "4 x the width of the box head": {"box_head_dim": 4},
    "2 x the channels of the mask head": {"mask_head_channels": 2},
    "2 x the layers of the mask head": {"mask_head_layers": 2},
    "2 x the samples a side in each bin": {"roi_samples": 2},
    "2 x the channels of the pyramid": {"fpn_channels": 2},
}


def batch_of(config: TrainConfig, folder: Path) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """A batch of dense tiles as the recipe cuts them."""
    record = write_record(folder / "image", 1024, 1024, 900)
    dataset = open_dataset(record, folder / "cache", AugmentSettings(), config.tiles)
    batch = collate([dataset[(0, index)] for index in range(config.run.batch_size)])
    return batch.tiles, batch.targets()


def step_of(
    config: TrainConfig, factors: dict[str, float], tiles: Tensor, targets: list[dict[str, Tensor]]
) -> Callable[[], None]:
    """A training step of the recipe with some settings multiplied."""
    settings = resolve(config.model, CELL_SIZE)
    settings = replace(settings, **{name: round(getattr(settings, name) * by) for name, by in factors.items()})
    model = build_model(settings, 5).train()
    optimizer = build_optimizer(model, config.optimizer)

    def step() -> None:
        torch.stack(list(model(tiles, targets).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print a table."""
    parser = Parser(
        __doc__,
        example="python -m benchmarks.head_cost --repeats 5",
        prog="python -m benchmarks.head_cost",
    )
    parser.add_argument("--recipe", default="script/recipes/cpu.toml", help="the step that is varied (default: of cpu)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, in turn (default: 5)")
    args = parser.parse_args()
    config = build(TrainConfig, read_recipe(args.recipe))
    with tempfile.TemporaryDirectory() as folder:
        tiles, targets = batch_of(config, Path(folder))
        base = step_of(config, {}, tiles, targets)
        print("| training step | ms | times the recipe's |\n|---|---|---|")
        for name, factors in VARIANTS.items():
            own, other = interleaved(args.repeats, step_of(config, factors, tiles, targets), base)
            print(f"| {name} | {1000 * median(own):.0f} | {median(own) / median(other):.2f} |", flush=True)


if __name__ == "__main__":
    run(main)
