"""Every branch that asks for a GPU, walked on the fake one: training, validation, resuming and prediction."""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference
import main
from model import TiledMaskRCNN, build_model
from src.common.errors import InputError
from src.config.flags import build
from src.config.recipe import read_recipe
from src.config.settings import InferenceConfig, ModelSettings, TrainConfig
from src.engine.devices import AMP_TYPES, resolve_amp
from src.engine.loading import Batch, Item, collate
from src.engine.memory import DEFAULT, largest_fitting_batch, step_memory
from src.engine.run_log import StepLosses
from src.network.weights import resolve
from tests.checkpoints import snapshot_of
from tests.fake_cuda import FakeGpu, Wait, fake_cuda, needs_guard, to_cpu
from tests.helpers import TINY, write_dataset
from tests.network.test_norms import kept_bytes
from utils import to_device

pytestmark = [pytest.mark.torch, needs_guard]
MOST_WAITS_PER_STEP, MOST_WAITS_PER_TILE = 8, 6
SMALL = ModelSettings(
    backbone="resnet18", weights="none", anchors="8,16,32,64,128", fpn_channels=16, box_head_dim=32,
    mask_head_channels=8, mask_head_layers=1, rois_per_tile=32, mask_rois_per_tile=8, proposals=50,
)  # fmt: skip


def tile(seed: int, size: int = 128) -> Item:
    """A random tile with six square cells."""
    random, label_map = np.random.default_rng(seed), np.zeros((1, size, size), np.uint16)
    corners = [(y, x) for y in (20, 80) for x in (10, 50, 90)]
    for number, (y, x) in enumerate(corners, start=1):
        label_map[0, y : y + 14, x : x + 14] = number
    numbers = np.arange(1, 7)
    boxes = np.array([[x, y, x + 14, y + 14] for y, x in corners], np.float32)
    target = {"boxes": boxes, "labels": 1 + numbers % 2, "layers": numbers * 0, "ids": numbers, "label_map": label_map}
    return random.integers(0, 255, (size, size, 3), dtype=np.uint8), target, f"tile {seed}"


def network(norm: str, device: torch.device) -> TiledMaskRCNN:
    torch.manual_seed(0)
    head_norm = "off" if norm == "frozen" else "on"
    return to_device(build_model(resolve(replace(SMALL, norm=norm, head_norm=head_norm), 20), 2), device).train()


def losses_of(model: TiledMaskRCNN, batch: Batch, amp: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    device = batch.tiles.device.type
    with torch.autocast(device, AMP_TYPES[amp], enabled=amp != "off"):
        return model(batch.tiles, batch.targets())  # type: ignore[return-value]


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_and_a_prediction_in_each_precision(amp: str, norm: str) -> None:
    cpu, batch = torch.device("cpu"), collate([tile(0), tile(1)])
    expected = losses_of(network(norm, cpu), batch, "off")
    with fake_cuda():
        device = torch.device("cuda", 0)
        model, moved = network(norm, device), batch.to(device)
        losses = losses_of(model, moved, amp)
        torch.stack(list(losses.values())).sum().backward()
        assert all(value.dtype == torch.float32 for value in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        numbers = StepLosses({"loss": losses["box"], **losses}, 0, ["a"]).read()
        tolerance = 2e-3 if amp == "off" else 0.1  # another rounding chooses other proposals
        assert [numbers[k] for k in expected] == pytest.approx([v.item() for v in expected.values()], rel=tolerance)
        with torch.inference_mode(), torch.autocast("cuda", AMP_TYPES[amp], enabled=amp != "off"):
            found = model.eval()(moved.tiles)[0]
        assert all(found[key].dtype == torch.float32 for key in ("boxes", "scores", "masks"))


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_half_precision_halves_what_a_step_keeps(norm: str) -> None:
    """As on a CPU, whose autocast leaves other operations in half precision than CUDA's."""
    with fake_cuda():
        backbone = network(norm, torch.device("cuda", 0)).backbone
        in_half = sum(parameter.numel() * 2 for parameter in backbone.parameters() if parameter.ndim > 1)
        full, half = (kept_bytes(backbone, amp, "cuda") for amp in (False, True))
    assert 0.4 * full < half - in_half < 0.62 * full


def waits_of_a_step(gpu: FakeGpu, model: TiledMaskRCNN, tiles: int) -> "Counter[Wait]":
    """With the batch in pinned memory and the losses read, as in a run."""
    batch = collate([tile(seed) for seed in range(tiles)])
    pinned = Batch(*(value.pin_memory() if isinstance(value, torch.Tensor) else value for value in batch))
    with gpu.counting() as waits:
        losses = losses_of(model, pinned.to(torch.device("cuda", 0)), "bf16")
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        StepLosses({"loss": loss, **losses}, 0, batch.names).read()
    return waits


def test_a_step_waits_for_the_gpu_as_rarely_as_promised() -> None:
    with fake_cuda() as gpu:
        model = network("batch", torch.device("cuda", 0))
        waits_of_a_step(gpu, model, 1)
        one, three = (waits_of_a_step(gpu, model, tiles) for tiles in (1, 3))
    per_tile = (three.total() - one.total()) / 2
    per_step = one.total() - per_tile
    print(f"{per_step:g} waits per step and {per_tile:g} per tile:", *sorted(three.items()), sep="\n")
    assert 0 < per_step <= MOST_WAITS_PER_STEP and 0 < per_tile <= MOST_WAITS_PER_TILE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("data") / "train", "abcd")
    (folder.parent / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c", "d"]}))
    return folder


def train(data: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """Train with the tiny settings; the events of the log."""
    paths = {"data_path": str(data), "split": str(data.parent / "split.json"), "output_dir": str(out)}
    values = {**TINY, **paths, "device": "auto", "cache_dir": str(data.parent / "cache"), **changes}
    main.main(build(TrainConfig, values))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses_in(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize(
    ("capability", "precision"), [((8, 0), "bf16"), pytest.param((7, 5), "fp16", marks=pytest.mark.slow)]
)
def test_a_whole_run_and_its_prediction(
    data: Path, tmp_path: Path, capability: tuple[int, int], precision: str
) -> None:
    """With accumulated gradients, averaged weights, class weights, a batch size by memory, and a loader's worker."""
    choices = {"amp": "auto", "batch_size": 0, "accumulate": 2, "class_weights": "auto", "workers": 1, "max_steps": 3}
    with fake_cuda(capability, memory=2 << 30):
        events = train(data, tmp_path / "run", **choices)
        assert len(losses_in(events)) == 3 and np.isfinite(losses_in(events)).all()
        assert any(event["event"] == "val" for event in events)
        settings = read_recipe(tmp_path / "run/config.toml")
        assert (settings["amp"], settings["batch_size"]) == (precision, 1)  # 8 tiles: eight batches per epoch
        logged = json.loads((tmp_path / "run/val-results.json").read_text())
        best, output = str(tmp_path / "run/best.pt"), tmp_path / "results.json"
        given = {"test_dir": str(data), "split": str(data.parent / "split.json"), "output": str(output)}
        inference.main(build(InferenceConfig, {"ckpt": [best], **given}))
        repeated = json.loads(output.read_text())
        assert sorted(entry["score"] for entry in repeated) == sorted(entry["score"] for entry in logged) != []
        all_ways = {"tta": "full", "whole_image": True, "amp": "off", "predict_batch_size": 3}
        inference.main(build(InferenceConfig, {"ckpt": [best, str(tmp_path / "run/last.pt")], **given, **all_ways}))
        assert json.loads(output.read_text())
    inference.main(build(InferenceConfig, {"ckpt": [best], **given, "device": "cpu"}))
    assert json.loads(output.read_text())


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_steps_that_overflow_in_fp16_are_skipped_and_logged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**26)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    with fake_cuda((7, 5)):
        events = train(data, tmp_path / "run", amp="auto", optimizer=optimizer, max_steps=24, epochs=9, val_every=0)
    skipped = [event.get("skipped", False) for event in events if event["event"] == "step"]
    assert skipped[:2] == [True, True] and not any(skipped[-3:])
    assert np.isfinite(losses_in(events)).all() and losses_in(events)[-1] < losses_in(events)[0]
    for part in snapshot_of(tmp_path / "run/last.pt").optimizer["state"].values():
        assert all(value.isfinite().all() for value in part.values() if isinstance(value, torch.Tensor))


def test_gradients_that_always_overflow_stop_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**20, backoff_factor=2.0**-40)
    )
    with fake_cuda((7, 5)), pytest.raises(InputError, match=r"step 1: gradients overflow in fp16 .*--amp bf16"):
        train(data, tmp_path / "run", amp="fp16", val_every=0)


@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
@pytest.mark.parametrize("to_gpu", [False, True])
def test_a_run_goes_on_on_another_device(data: Path, tmp_path: Path, optimizer: str, to_gpu: bool) -> None:
    lr = {"sgd": 0.005, "adamw": 0.0001}[optimizer]

    def on(gpu: bool, folder: Path, **changes: Any) -> list[dict[str, Any]]:
        with fake_cuda() if gpu else nullcontext():
            return train(data, folder, optimizer=optimizer, lr=lr, val_every=0, **changes)

    whole = on(False, tmp_path / "whole")
    on(not to_gpu, tmp_path / "moved", max_steps=2)
    moved = on(to_gpu, tmp_path / "moved", resume="auto")
    assert losses_in(moved) == pytest.approx(losses_in(whole), rel=2e-3)


def test_a_run_goes_on_in_fp16_and_back(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", max_steps=2, val_every=0)
    with fake_cuda((7, 5)):
        with pytest.raises(InputError, match="--amp was off and is fp16"):
            train(data, tmp_path / "run", resume="auto", amp="fp16", max_steps=4)
        more = {"resume": "auto", "on_change": "continue", "val_every": 0}
        events = train(data, tmp_path / "run", amp="fp16", max_steps=4, **more)
        assert len(losses_in(events)) == 4 and np.isfinite(losses_in(events)).all()
        train(data, tmp_path / "run", amp="auto", max_steps=5, resume="auto", val_every=0)  # what the run has
        assert read_recipe(tmp_path / "run/config.toml")["amp"] == "fp16"
    with pytest.raises(InputError, match="--amp fp16 needs an NVIDIA GPU"):
        train(data, tmp_path / "run", amp="auto", resume="auto", max_steps=6)
    events = train(data, tmp_path / "run", amp="off", max_steps=6, **more)
    assert len(losses_in(events)) == 6


def test_memory_that_runs_out_is_one_line(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", max_steps=1)
    given = {"ckpt": [str(tmp_path / "run/best.pt")], "test_dir": str(data), "output": str(tmp_path / "r.json")}
    with fake_cuda(memory=1 << 30) as gpu:
        gpu.limit = 20 << 20  # less than the weights
        with pytest.raises(
            InputError, match=r"out of memory of the GPU: .* MiB .*, 0.0\d of 1.00 GiB .*--predict-batch"
        ):
            inference.main(build(InferenceConfig, given))
        with pytest.raises(InputError, match=r"out of memory of the GPU: .* MiB .*--batch-size"):
            train(data, tmp_path / "again", max_steps=1)
        gpu.limit = None
        inference.main(build(InferenceConfig, given))
    assert (tmp_path / "r.json").is_file()


@pytest.mark.parametrize("memory", [400, 600])
def test_the_batch_size_is_what_memory_holds(memory: int) -> None:
    device = torch.device("cuda", 0)
    with fake_cuda(memory=memory << 20) as gpu:
        model = network("batch", device)
        count, held = largest_fitting_batch(model, tile(0), None, device), gpu.allocated
        assert gpu.allocated == held and count > DEFAULT
        losses = losses_of(model, collate([tile(0)] * count).to(device), "off")
        torch.stack(list(losses.values())).sum().backward()
        assert 0.5 * gpu.memory < gpu.peak < gpu.memory


def test_a_gpu_that_holds_one_tile_and_not_two() -> None:
    device = torch.device("cuda", 0)
    with fake_cuda() as gpu:
        model = network("batch", device)
        peaks = [step_memory(model, tile(0, 512), count, None, device) for count in (1, 2)]
        gpu.limit = gpu.allocated * 2 + (peaks[0] + peaks[1]) // 2  # the trial is a copy of the model
        assert largest_fitting_batch(model, tile(0, 512), None, device) == 1
        gpu.limit = gpu.allocated * 2 + peaks[0] // 2
        with pytest.raises(torch.cuda.OutOfMemoryError):
            largest_fitting_batch(model, tile(0, 512), None, device)


def test_precision_on_gpus_old_and_new() -> None:
    device = torch.device("cuda", 0)
    for capability, precision in (((7, 0), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        with fake_cuda(capability):
            assert resolve_amp("auto", device) == precision and to_cpu(torch.ones(1, device=device)).item() == 1
