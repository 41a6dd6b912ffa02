"""How fast a training step is, and where its time and memory go: ``python -m benchmarks.step_profile``."""

from typing import Any

from src.common.errors import run
from src.config.command import Parser


def parse_flags() -> Any:
    """Read the command line."""
    parser = Parser(__doc__, "python -m benchmarks.step_profile --tiles 4", "python -m benchmarks.step_profile")
    parser.add_argument("--recipe", default="script/recipes/cpu.toml", help="whose step (default: that of cpu)")
    parser.add_argument("--tiles", type=int, help="tiles a step (default: the recipe's)")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed (default: 5)")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cuda", "mps", "cpu"), help="where (default: auto)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    FLAGS = run(parse_flags)  # before torch is imported, so that --help answers at once

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from benchmarks.head_cost import CELL_SIZE, batch_of, step_of
from benchmarks.measure import Call, interleaved
from model import build_model
from src.config.flags import build, read_recipe
from src.config.settings import TrainConfig
from src.engine.devices import AMP_TYPES, choose_device, resolve_amp
from src.engine.loading import Batch
from src.engine.weights import resolve
from utils import peak_memory, to_device

PARTS = (
    "backbone.body", "backbone.fpn", "rpn", "roi_heads.box_head", "roi_heads.box_predictor", "roi_heads.mask_head",
    "roi_heads.mask_predictor",
)  # fmt: skip
FAMILIES = {
    "convolutions": ("convolution", "mkldnn", "slow_conv", "cudnn"),
    "RoIAlign": ("roi_align",),
    "linear layers": ("addmm", "::mm", "linear"),
    "normalisation": ("batch_norm", "group_norm", "layer_norm"),
    "non-maximum suppression": ("nms",),
    "the optimizer": ("_foreach", "_fused_adam", "_fused_sgd", "addcdiv", "lerp"),
}


def family_of(operation: str) -> str:
    """The kind of work that an operation of the profiler is."""
    return next((name for name, marks in FAMILIES.items() if any(mark in operation for mark in marks)), "all else")


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[Counter[str]]:
    """Count, by the part of the model that runs, the bytes that autograd keeps for the backward pass, each once."""
    kept: Counter[str] = Counter()
    seen: set[int] = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive: list[Tensor] = []  # what was counted; freed, its place in memory could become another's
    inside = ["all else"]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            alive.append(tensor)
            kept[inside[-1]] += storage.nbytes()
        return tensor

    hooks = []
    for name, part in model.named_modules():
        if name not in PARTS:
            continue
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
        hooks.append(part.register_forward_hook(lambda *_: inside.pop() and None))
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            yield kept
    finally:
        for hook in hooks:
            hook.remove()


def memory_rows(config: TrainConfig, batch: Batch) -> list[tuple[str, float]]:
    """MB that each part of the model keeps for its backward pass, the largest first."""
    device = batch.tiles.device
    model = to_device(build_model(resolve(config.model, CELL_SIZE), 5), device).train()
    amp = AMP_TYPES[resolve_amp("auto", device)]
    with saved_bytes(model) as kept, torch.autocast(device.type, amp, enabled=amp is not None):
        losses = model(batch.tiles, batch.targets())
    torch.stack(list(losses.values())).sum().backward()
    return [(name, size / 1e6) for name, size in kept.most_common()]


def time_rows(step: Call, steps: int, device: torch.device) -> list[tuple[str, float]]:
    """Share of a step's own time on the device that each kind of work takes, the largest first."""
    step()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CPU:  # an operation; what it starts on a GPU is counted with it
            spent[family_of(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return [(name, time / sum(spent.values())) for name, time in spent.most_common()]


def step_seconds(step: Call, steps: int, device: torch.device) -> list[float]:
    """Seconds of some steps, each waited for, after one that does not count."""

    def whole() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return interleaved(steps, whole)[0]


def main(flags: Any) -> None:
    """Print the speed and two tables."""
    config, device = build(TrainConfig, read_recipe(flags.recipe)), choose_device(flags.device)
    config = replace(config, run=replace(config.run, batch_size=flags.tiles or config.run.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        batch = batch_of(config, Path(folder), device)
        step = step_of(config, {}, batch, {})
        seconds = median(step_seconds(step, flags.steps, device))
        print(
            f"{1000 * seconds:.0f} ms a step, {len(batch.tiles) / seconds:.1f} tiles/s on {device}, "
            f"peak memory {peak_memory(device) / 1e9:.2f} GB\n"
        )
        print("| work | share of the time |\n|---|---|")
        for name, share in time_rows(step, flags.steps, device):
            print(f"| {name} | {share:.1%} |")
        print("\n| kept for the backward pass by | MB |\n|---|---|")
        for name, size in memory_rows(config, batch):
            print(f"| {name} | {size:.0f} |")


if __name__ == "__main__":
    run(lambda: main(FLAGS))
