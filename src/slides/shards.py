"""Unfinished work on a slide, kept on disk: the cells so far, and from where prediction goes on."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json, replacing, write_json
from src.common.progress import say
from src.geometry.instances import Instance
from src.geometry.stitch import StitchState
from src.geometry.suppression import Objects
from src.geometry.tile_detections import TileDetections, boxes_of
from src.slides.slide import StoredTile

JOB = "job.json"
Arrays = dict[str, np.ndarray]


class Shards:
    """The shards of one slide in a folder: each holds the cells of some rows of tiles, and the state behind them.

    One process at a time may use the folder.

    Args:
        folder: where they lie; made with the first shard.
        job: what the cells depend on, as JSON. Shards of another job are refused, and those of no job, which an
            interrupted :meth:`remove` leaves, are deleted.

    Raises:
        InputError: the folder holds shards of another job.
    """

    def __init__(self, folder: Path, job: Any) -> None:
        self._folder, self._job = folder, json.loads(json.dumps(job))
        if not (folder / JOB).exists():
            self.remove()
        elif read_json(folder / JOB) != self._job:
            raise other_job(folder)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("shard-*.npz")) if self._folder.is_dir() else []

    def state(self) -> StitchState | None:
        """The state behind the last shard; ``None`` without any.

        All shards are read. The first one that is damaged or missing is deleted with those behind it.
        """
        paths, last = self._paths(), None
        for number in range(len(paths)):
            try:
                last = _read(self._folder, number)
            except InputError as error:
                say(f"{error}; what it held is predicted again")
                for damaged in paths[number:]:
                    damaged.unlink()
                break
        return _unpack_state(last) if last else None

    def broken(self) -> set[StoredTile]:
        """The stored tiles that did not decode, up to the last shard. Raises as :meth:`cells`."""
        count = len(self._paths())
        return set(map(tuple, _read(self._folder, count - 1)["broken"].tolist())) if count else set()

    def add(self, cells: Sequence[Instance], state: StitchState, broken: Set[StoredTile] = frozenset()) -> None:
        """Write a shard: the cells since the one before, the state behind them, and all ``broken`` tiles so far."""
        if not (self._folder / JOB).exists():
            write_json(self._folder / JOB, self._job)
        arrays = _arrays(cells, state, broken)
        with replacing(self._folder / _name(len(self._paths()))) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]  # no array has the name of a parameter

    def cells(self) -> Iterator[list[Instance]]:
        """The cells of each shard, in the order in which they were found.

        Raises:
            InputError: a shard is damaged or missing.
        """
        return self._cells(range(len(self._paths())))

    def some_cells(self, most: int) -> Iterator[list[Instance]]:
        """The cells of at most ``most`` shards, spread evenly over the slide. Raises as :meth:`cells`."""
        count = len(self._paths())
        return self._cells(np.linspace(0, count - 1, min(count, most)).astype(int).tolist())

    def _cells(self, numbers: Iterable[int]) -> Iterator[list[Instance]]:
        for number in numbers:
            yield unpack(_of_prefix("cells", _read(self._folder, number)))

    def remove(self) -> None:
        """Delete the folder, first what says that its shards may be used."""
        if self._folder.is_dir():
            (self._folder / JOB).unlink(missing_ok=True)
            shutil.rmtree(self._folder)


def other_job(folder: Path) -> InputError:
    """The error of a folder that holds the shards of another job."""
    return InputError(
        f"{folder}: holds an unfinished prediction with other settings, another checkpoint or another file;"
        " finish it with those, or delete the folder"
    )


def _name(number: int) -> str:
    return f"shard-{number:06d}.npz"


def _read(folder: Path, number: int) -> Arrays:
    """The arrays of a shard; NumPy compares them with the checksums that the file holds.

    Raises:
        InputError: it is damaged or missing.
    """
    path = folder / _name(number)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}
        empty = StitchState(0, TileDetections.of(0, []), Objects.none())
        if arrays.keys() != _arrays([], empty, frozenset()).keys():
            raise ValueError("other arrays than a shard has")
    except Exception as error:  # damaged files raise anything
        raise InputError(f"{path}: is damaged or missing") from error
    return arrays


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
    pixels, start, found = np.unpackbits(arrays["bits"]).view(bool), 0, []
    columns = (arrays[name].tolist() for name in ("boxes", "class_ids", "scores", "probabilities"))
    for (top, left, bottom, right), class_id, score, probabilities in zip(*columns, strict=True):
        height, width = bottom - top, right - left
        mask = pixels[start : start + height * width].reshape(height, width)
        found.append(Instance(class_id, score, top, left, mask, tuple(probabilities)))
        start += -(-height * width // 8) * 8  # each mask begins with a byte
    return found


def _arrays(cells: Sequence[Instance], state: StitchState, broken: Set[StoredTile]) -> Arrays:
    """What a shard holds."""
    tiles = np.array(sorted(broken), np.int64).reshape(-1, 2)
    return {**_with_prefix("cells", pack(cells)), **_pack_state(state), "broken": tiles}


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


def _unpack_state(file: Arrays) -> StitchState:
    pending, waiting = _of_prefix("pending", file), _of_prefix("waiting", file)
    return StitchState(
        int(file["next_row"]),
        TileDetections(unpack(pending), pending["boxes"], pending["tile"], pending["number"], pending["in_chain"]),
        Objects(unpack(waiting), waiting["is_cut"], waiting["origin"], waiting["in_chain"]),
    )


def _with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": values for name, values in arrays.items()}


def _of_prefix(prefix: str, file: Arrays) -> Arrays:
    return {name.removeprefix(f"{prefix}."): file[name] for name in file if name.startswith(f"{prefix}.")}
