"""Unfinished work on a slide, kept on disk: the cells so far, and from where prediction goes on."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json, replacing, write_json
from src.geometry.instances import Instance
from src.geometry.stitch import StitchState
from src.geometry.suppression import Objects
from src.geometry.tile_detections import TileDetections, boxes_of

JOB = "job.json"
Arrays = dict[str, np.ndarray]


class Shards:
    """The shards of one slide in a folder: each holds the cells of some rows of tiles, and the state behind them.

    Args:
        folder: where they lie; made with the first shard.
        job: what the cells depend on, as JSON. Shards of another job are refused.

    Raises:
        InputError: the folder holds shards of another job.
    """

    def __init__(self, folder: Path, job: Any) -> None:
        self._folder, self._job = folder, json.loads(json.dumps(job))
        if folder.is_dir() and (folder / JOB).exists() and read_json(folder / JOB) != self._job:
            raise InputError(
                f"{folder}: holds an unfinished prediction with other settings, another checkpoint or another file;"
                " finish it with those, or delete the folder"
            )

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("shard-*.npz")) if self._folder.is_dir() else []

    def state(self) -> StitchState | None:
        """The state behind the last shard; ``None`` without any."""
        paths = self._paths()
        if not paths:
            return None
        with np.load(paths[-1], allow_pickle=False) as file:
            return _unpack_state(file)

    def add(self, cells: Sequence[Instance], state: StitchState) -> None:
        """Write a shard: the cells since the one before, and the state behind them."""
        if not (self._folder / JOB).exists():
            write_json(self._folder / JOB, self._job)
        arrays = {**_with_prefix("cells", pack(cells)), **_pack_state(state)}
        with replacing(self._folder / f"shard-{len(self._paths()):06d}.npz") as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]  # no array has the name of a parameter

    def cells(self) -> Iterator[list[Instance]]:
        """The cells of each shard, in the order in which they were found."""
        for path in self._paths():
            with np.load(path, allow_pickle=False) as file:
                yield unpack(_of_prefix("cells", file))

    def remove(self) -> None:
        """Delete the folder."""
        if self._folder.is_dir():
            shutil.rmtree(self._folder)


def pack(instances: Sequence[Instance]) -> Arrays:
    """Objects as a few arrays; masks become bits."""
    shares = np.array([one.probabilities for one in instances], np.float64)
    bits = [np.packbits(one.mask) for one in instances]
    return {
        "boxes": boxes_of(instances),
        "class_ids": np.array([one.class_id for one in instances], np.int32),
        "scores": np.array([one.score for one in instances], np.float64),
        "probabilities": shares if instances else np.zeros((0, 0)),
        "bits": np.concatenate(bits) if bits else np.zeros(0, np.uint8),
    }


def unpack(arrays: Arrays) -> list[Instance]:
    """The objects that :func:`pack` was given."""
    sides = arrays["boxes"][:, 2:] - arrays["boxes"][:, :2]
    ends = np.cumsum(-(-sides.prod(axis=1) // 8))
    found = []
    columns = (arrays[name].tolist() for name in ("boxes", "class_ids", "scores", "probabilities"))
    for index, (box, class_id, score, probabilities) in enumerate(zip(*columns, strict=True)):
        height, width = sides[index].tolist()
        bits = arrays["bits"][ends[index] - -(-height * width // 8) : ends[index]]
        mask = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
        found.append(Instance(class_id, score, box[0], box[1], mask, tuple(probabilities)))
    return found


def _pack_state(state: StitchState) -> Arrays:
    pending, waiting = state.pending, state.waiting
    return {
        "next_row": np.array(state.next_row),
        **_with_prefix("pending", pack(pending.instances)),
        "pending.tile": pending.tile,
        "pending.number": pending.number,
        "pending.in_chain": pending.in_chain,
        **_with_prefix("waiting", pack(waiting.instances)),
        "waiting.is_cut": waiting.is_cut,
        "waiting.origin": waiting.origin,
        "waiting.in_chain": waiting.in_chain,
    }


def _unpack_state(file: Any) -> StitchState:
    pending, waiting = _of_prefix("pending", file), _of_prefix("waiting", file)
    return StitchState(
        int(file["next_row"]),
        TileDetections(unpack(pending), pending["boxes"], pending["tile"], pending["number"], pending["in_chain"]),
        Objects(unpack(waiting), waiting["is_cut"], waiting["origin"], waiting["in_chain"]),
    )


def _with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": values for name, values in arrays.items()}


def _of_prefix(prefix: str, file: Any) -> Arrays:
    return {name.removeprefix(f"{prefix}."): file[name] for name in file if name.startswith(f"{prefix}.")}
