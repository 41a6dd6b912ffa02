"""What RoIs and wider heads cost in a training step of a recipe: ``python -m benchmarks.head_cost``."""

from typing import Any

from src.common.errors import run
from src.config.command import Parser


def parse_flags() -> Any:
    """Read the command line."""
    parser = Parser(__doc__, "python -m benchmarks.head_cost --repeats 5", "python -m benchmarks.head_cost")
    parser.add_argument("--recipe", default="script/recipes/cpu.toml", help="the step that is varied (default: of cpu)")
    parser.add_argument(
        "--ckpt", metavar="FILE", help="trained weights: without, few proposals are positive and mask RoIs cost little"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, in turn (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    FLAGS = run(parse_flags)  # before torch is imported, so that --help answers at once

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.cases import open_dataset
from benchmarks.material import write_record
from benchmarks.measure import interleaved
from model import build_model
from src.config.flags import build, read_recipe
from src.config.settings import AugmentSettings, TrainConfig
from src.engine.checkpoint import load_checkpoint
from src.engine.devices import AMP_TYPES, resolve_amp
from src.engine.loading import Batch, collate
from src.engine.optimization import build_optimizer
from src.engine.weights import load_matching, resolve
from utils import to_device

CPU = torch.device("cpu")
State = Mapping[str, Tensor]
CELL_SIZE = 24.0  # px, of the benchmark's cells
VARIANTS: dict[str, dict[str, Any]] = {
    "as the recipe says": {},
    "half the RoIs of the box head": {"rois_per_tile": 0.5},
    "4 x the RoIs of the box head": {"rois_per_tile": 4},
    "a third of the RoIs of the mask head": {"mask_rois_per_tile": 1 / 3},
    "4 x the RoIs of the mask head": {"mask_rois_per_tile": 4},
    "4 x the RoIs of both": {"rois_per_tile": 4, "mask_rois_per_tile": 4},
    "4 x the proposals": {"proposals": 4},
    "4 x the width of the box head": {"box_head_dim": 4},
    "2 x the channels of the mask head": {"mask_head_channels": 2},
    "2 x the layers of the mask head": {"mask_head_layers": 2},
    "4 x the width of the box head, 2 x the channels of the mask head": {"box_head_dim": 4, "mask_head_channels": 2},
    "2 x the samples a side in each bin": {"roi_samples": 2},
    "2 x the channels of the pyramid": {"fpn_channels": 2},
}


def batch_of(config: TrainConfig, folder: Path, device: torch.device = CPU) -> Batch:
    """A batch of dense tiles as the recipe cuts them, on a device."""
    record = write_record(folder / "image", 1024, 1024, 900)
    dataset = open_dataset(record, folder / "cache", AugmentSettings(), config.tiles)
    return collate([dataset[(0, index)] for index in range(config.run.batch_size)]).to(device)


def step_of(config: TrainConfig, factors: dict[str, float], batch: Batch, state: State) -> Callable[[], None]:
    """A training step of the recipe with some settings multiplied, on the device of the batch; ``state`` as it fits."""
    device = batch.tiles.device
    settings = resolve(config.model, CELL_SIZE)
    settings = replace(settings, **{name: round(getattr(settings, name) * by) for name, by in factors.items()})
    model, amp = build_model(settings, 5), AMP_TYPES[resolve_amp(config.optimizer.amp, device)]
    if state:
        load_matching(model, state, "--ckpt")
    model = to_device(model, device).train()
    optimizer = build_optimizer(model, config.optimizer)

    def step() -> None:
        with torch.autocast(device.type, amp, enabled=amp is not None):
            losses = model(batch.tiles, batch.targets())
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(flags: Any) -> None:
    """Print a table."""
    config = build(TrainConfig, read_recipe(flags.recipe))
    state = load_checkpoint(Path(flags.ckpt))["model"] if flags.ckpt else {}
    with tempfile.TemporaryDirectory() as folder:
        batch = batch_of(config, Path(folder))
        base = step_of(config, {}, batch, state)
        print("| training step | ms | times the recipe's |\n|---|---|---|")
        for name, factors in VARIANTS.items():
            own, other = interleaved(flags.repeats, step_of(config, factors, batch, state), base)
            print(f"| {name} | {1000 * median(own):.0f} | {median(own) / median(other):.2f} |", flush=True)


if __name__ == "__main__":
    run(lambda: main(FLAGS))
