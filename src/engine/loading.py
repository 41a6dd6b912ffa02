"""From tiles to batches: the order of an epoch, collation, and the processes that load."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.common.errors import InputError
from src.common.limits import max_pixels, set_max_pixels
from src.config.flags import Auto
from src.engine.interrupt import ignore_sigint

Key = tuple[int, int]  # epoch, index of the tile
Item = tuple[np.ndarray, dict[str, np.ndarray], str]  # image, target and name of a tile (see dataset.py)
OBJECT_KEYS = ("boxes", "labels", "layers", "ids")
SHARED_MEMORY = Path("/dev/shm")
WAIT_S = 300  # for a batch from a worker, far longer than any tile takes


class EpochSampler(Sampler[Key]):
    """One rank's share of an epoch's tiles in random order, as ``(epoch, index)``.

    The order is a pure function of (seed, epoch). All ranks get equally many, a few tiles twice where the number does
    not divide. ``skip`` leaves out the first items of the next pass: a resumed run goes on where it stopped.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch, self.skip = 0, 0

    def __len__(self) -> int:
        return -(-self.length // self.world_size) - self.skip

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        padded = np.resize(order, -(-self.length // self.world_size) * self.world_size)
        for index in padded[self.rank :: self.world_size][self.skip :]:
            yield self.epoch, int(index)


class Batch(NamedTuple):
    """Tiles and their targets in few tensors, because each tensor has a fixed cost on its way from a worker to a GPU.

    ``tiles`` (B, 3, S, S) uint8 RGB; ``label_maps`` (B, L, S, S) uint16 or int32; ``boxes`` (N, 4) float32 and
    ``labels``, ``layers``, ``ids`` (N,) int64 of all tiles, concatenated; ``ignored`` (B, S, S) bool are the regions to
    ignore, where nothing counts as background, (0, S, S) where no tile shows any; ``counts`` and ``names`` have one per
    tile.
    """

    tiles: Tensor
    label_maps: Tensor
    boxes: Tensor
    labels: Tensor
    layers: Tensor
    ids: Tensor
    ignored: Tensor
    counts: list[int]
    names: list[str]

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device; the CPU does not wait for a copy to a GPU."""
        in_background = device.type == "cuda"  # from pinned memory, which other devices do not have
        values = self._asdict()
        moved = {k: v.to(device, non_blocking=in_background) for k, v in values.items() if isinstance(v, Tensor)}
        return Batch(**{**values, **moved})

    def targets(self) -> list[dict[str, Tensor]]:
        """The target of each tile (see :func:`tile_target`), with int32 label maps: torch hardly supports uint16."""
        objects = {key: getattr(self, key).split(self.counts) for key in OBJECT_KEYS}
        targets = [
            {"label_map": label_map, **{key: objects[key][tile] for key in OBJECT_KEYS}}
            for tile, label_map in enumerate(self.label_maps.to(torch.int32))
        ]
        for target, ignored in zip(targets, self.ignored, strict=False):  # there may be none
            target["ignored"] = ignored
        return targets


def collate(items: Sequence[Item]) -> Batch:
    """Make a batch of tiles; label maps get equally many layers.

    Raises:
        InputError: a target that the losses cannot learn from (see :func:`check_target`).
    """
    images, targets, names = zip(*items, strict=True)
    for image, target, name in items:
        check_target(target, len(image), name)
    depth = max(len(target["label_map"]) for target in targets)
    dtype = np.result_type(*(target["label_map"] for target in targets))
    label_maps = np.zeros((len(items), depth, *images[0].shape[:2]), dtype)
    for place, target in zip(label_maps, targets, strict=True):
        place[: len(target["label_map"])] = target["label_map"]
    objects = {key: torch.from_numpy(np.concatenate([target[key] for target in targets])) for key in OBJECT_KEYS}
    size = images[0].shape[:2]
    is_any = any("ignored" in target for target in targets)
    ignored = (
        [target.get("ignored", np.zeros(size, bool)) for target in targets] if is_any else np.zeros((0, *size), bool)
    )
    return Batch(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(label_maps),
        ignored=torch.from_numpy(np.asarray(ignored)),
        counts=[len(target["ids"]) for target in targets],
        names=list(names),
        **objects,
    )


def check_target(target: Mapping[str, np.ndarray], size: int, name: str) -> None:
    """Refuse a target from which a loss, or the C code below it, would compute nonsense or crash.

    Raises:
        InputError: a box that is not finite, has no area or leaves its tile, a class below 1, an id below 1, or a layer
            that is not there; ``name`` says in which tile.
    """
    boxes, layers = target["boxes"], target["layers"]
    if len({len(target[key]) for key in OBJECT_KEYS}) > 1:
        raise InputError(f"{name}: has {', '.join(f'{len(target[key])} {key}' for key in OBJECT_KEYS)}")
    faults = {
        "a box that is not finite": ~np.isfinite(boxes).all(axis=1),
        "a box without area": ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1),
        "a box outside its tile": (boxes < 0).any(axis=1) | (boxes > size).any(axis=1),
        "a class below 1": target["labels"] < 1,
        "an id below 1": target["ids"] < 1,
        "a layer that is not there": (layers < 0) | (layers >= len(target["label_map"])),
    }
    for fault, where in faults.items():
        if where.any():
            raise InputError(f"{name}: cell {int(np.flatnonzero(where)[0])} has {fault}")


def build_loader(
    dataset: Dataset[Item], sampler: EpochSampler, batch_size: int, workers: int, cuda: bool
) -> DataLoader[Item]:
    """The training loader. The last batch of an epoch is dropped where it is not full, unless it is the only one."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=cuda,
        drop_last=len(sampler) >= batch_size,
        timeout=WAIT_S if workers else 0,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker(),
        generator=torch.Generator(),  # else each epoch would draw from the generator that a resumed run restores
    )


def start_worker() -> Callable[[int], None]:
    """The function that a loader's worker runs first: ignore Ctrl-C, and take over the main process's limits."""
    return partial(_start_worker, max_pixels())


def _start_worker(limit: int, worker: int) -> None:
    ignore_sigint()
    set_max_pixels(limit)
    cv2.setNumThreads(0)  # as in the process that made the data set


def choose_workers(asked: int | Auto, cuda: bool, cores: int, batch_bytes: int) -> int:
    """The number of loader processes of one rank that has ``cores``.

    On a CPU the network uses every core, so tiles are made between its steps. Batches are passed in shared memory, two
    per worker and two in transit; where it is too small torch would wait for ever.

    Raises:
        InputError: shared memory does not hold the batches of as many as were asked for.
    """
    fitting = (free_shared_memory() // batch_bytes - 2) // 2
    if asked == "auto":
        return max(0, min(4, cores - 1, fitting)) if cuda else 0
    if asked > max(fitting, 0):
        raise InputError(
            f"--workers {asked}: {SHARED_MEMORY} has too little room for their batches of {batch_bytes / 1e6:.0f} MB;"
            f" enlarge it (docker run --shm-size), or give --workers {max(fitting, 0)}"
        )
    return asked


def free_shared_memory() -> int:
    """Bytes of shared memory that are free; a huge number where the system does not tell."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.exists() else 1 << 60


@contextmanager
def worker_errors() -> Iterator[None]:
    """Report in one line what went wrong in a loader's worker.

    Raises:
        InputError: in place of torch's, which carries the worker's traceback, or of the system's where the worker ended
            while it handed over a batch.
    """
    try:
        yield
    except (InputError, RuntimeError, ConnectionRefusedError, ConnectionResetError, EOFError) as error:
        if ended := _ended_worker(error):
            advice = f"if memory or {SHARED_MEMORY} is short, use fewer, or 0 to load in the main process"
            raise InputError(f"--workers: {ended}; {advice}") from error
        if not isinstance(error, InputError):
            raise
        raise InputError(str(error).strip().rsplit("InputError: ", 1)[-1]) from error


def _ended_worker(error: BaseException | None) -> str | None:
    """What an error says about a worker that ended; ``None`` where it is about something else.

    torch notices such a worker between any two steps of Python, so that its error may be the cause of another one.
    """
    is_cut_off = isinstance(error, ConnectionRefusedError | ConnectionResetError | EOFError)
    if is_cut_off or "items of ancdata" in str(error):  # what multiprocessing says when it receives a shared tensor
        return "a worker ended while it handed over a batch"
    while error is not None:
        found = re.search(r"worker.*?(exited unexpectedly|killed by signal: [\w ]+)|timed out after.*", str(error))
        if found and isinstance(error, RuntimeError):
            return found[0]
        error = error.__cause__ or error.__context__
    return None
