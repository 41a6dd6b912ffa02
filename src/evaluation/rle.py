"""COCO run-length encoding (RLE) straight from cropped masks, and back.

An RLE is ``{"size": [H, W], "counts": str}``: run lengths down the columns, alternately of 0 and of 1, starting with 0;
each is written as its difference to the count two before (from the fourth on), five bits per character. It is decoded
and checked here, without a C library, because pycocotools crashes on a malformed one.
"""

from collections.abc import Sequence
from itertools import pairwise
from reprlib import repr
from typing import Any

import numpy as np

from src.geometry.instances import Instance

MAX_PIXELS = 2**29 - 1  # a larger count would take more than MAX_CHARACTERS
MAX_CHARACTERS = 6


class RleError(ValueError):
    """An invalid RLE; ``index`` is its place among those that were given."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def encode(instances: Sequence[Instance], height: int, width: int) -> list[dict[str, Any]]:
    """Compressed RLE of each object in a ``height × width`` image, byte for byte that of ``pycocotools.mask.encode``.

    Time and memory grow with the cropped masks; no full-size mask is made.

    Raises:
        ValueError: a mask leaves the image, or the image has more than ``MAX_PIXELS`` pixels.
    """
    if height * width > MAX_PIXELS:
        raise ValueError(f"an image of {height} x {width} is too large for RLE")
    if not instances:
        return []
    for instance in instances:
        if not (0 <= instance.top <= instance.bottom <= height and 0 <= instance.left <= instance.right <= width):
            raise ValueError(f"a mask at {instance.top}, {instance.left} leaves its {height} x {width} image")
    texts = compress(*_run_lengths(instances, height, width))
    return [{"size": [height, width], "counts": text} for text in texts]


def compress(counts: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Write run lengths as text: those of RLE i are ``counts[offsets[i]:offsets[i + 1]]``; int64, in 0..MAX_PIXELS."""
    place = _places(offsets)
    rest = counts.copy()
    rest[place > 2] -= counts[np.flatnonzero(place > 2) - 2]
    characters = np.zeros((len(counts), MAX_CHARACTERS), np.uint8)
    used = np.zeros(characters.shape, bool)
    more = np.ones(len(counts), bool)
    for k in range(MAX_CHARACTERS):
        used[:, k] = more
        digit = rest & 31
        rest >>= 5
        more = more & np.where(digit & 16, rest != -1, rest != 0)
        characters[:, k] = digit + 32 * more + 48
    text = characters[used].tobytes().decode("ascii")
    ends = np.concatenate(([0], np.cumsum(used.sum(axis=1))))[offsets].tolist()
    return [text[start:end] for start, end in pairwise(ends)]


def decompress(segmentations: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Check compressed RLEs and return their run lengths: the inverse of :func:`compress`, without any C library.

    Returns:
        ``counts`` and ``offsets``, int64. Every count is at least 0 and those of one RLE sum to its ``H * W``.

    Raises:
        RleError: the first fault found, with the index of the RLE.
    """
    if not len(segmentations):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    for index, segmentation in enumerate(segmentations):
        _check_structure(index, segmentation)
    values, offsets = _read_values([segmentation["counts"] for segmentation in segmentations])
    counts = _undo_differences(values, offsets)
    owner = np.repeat(np.arange(len(segmentations)), np.diff(offsets))
    _refuse(counts < 0, owner, "a count is negative")
    pixels = np.array([segmentation["size"][0] * segmentation["size"][1] for segmentation in segmentations])
    wrong_sum = np.add.reduceat(counts, offsets[:-1]) != pixels
    _refuse(wrong_sum, np.arange(len(pixels)), "the counts do not sum to the pixels of the image")
    return counts, offsets


def decode_entries(entries: Sequence[dict[str, Any]]) -> list[Instance | None]:
    """Decode the masks of result entries, all at once; ``None`` for an empty mask. An invalid one is an `RleError`."""
    counts, offsets = decompress([entry["segmentation"] for entry in entries])
    return [
        _crop(counts[start:end], entry["segmentation"]["size"][0], entry["category_id"], float(entry["score"]))
        for entry, start, end in zip(entries, offsets[:-1], offsets[1:], strict=True)
    ]


def _run_lengths(instances: Sequence[Instance], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and offsets of the objects' runs, as :func:`compress` takes them."""
    starts, ends, owner = _runs(instances, height)
    total = np.full(len(instances), height * width)
    edges = np.concatenate((np.column_stack((starts, ends)).ravel(), total))
    owners = np.concatenate((np.repeat(owner, 2), np.arange(len(instances))))
    order = np.argsort(owners, kind="stable")
    edges, owners = edges[order], owners[order]
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(edges, prepend=0)
    counts[first] = edges[first]
    last = np.append(first[1:], len(edges)) - 1
    kept = np.ones(len(edges), bool)
    kept[last] = counts[last] > 0  # a mask that reaches the last pixel ends with its own run
    lengths = np.bincount(owners[kept], minlength=len(instances))
    return counts[kept], np.concatenate(([0], np.cumsum(lengths)))


def _runs(instances: Sequence[Instance], height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end (exclusive) and owner of every run of ones, in pixels counted down the columns of the image."""
    # The masks lie one after another in one buffer, each column closed by a False, so that one pass finds all runs.
    shapes = np.array([instance.mask.shape for instance in instances])
    column = shapes[:, 0] + 1
    offsets = np.concatenate(([0], np.cumsum(column * shapes[:, 1])))
    buffer = np.zeros(1 + offsets[-1], bool)
    for instance, offset in zip(instances, (offsets + 1).tolist(), strict=False):
        rows, columns = instance.mask.shape
        buffer[offset : offset + columns * (rows + 1)].reshape(columns, rows + 1)[:, :rows] = instance.mask.T
    flips = np.flatnonzero(buffer[1:] != buffer[:-1])
    owner = np.searchsorted(offsets, flips[0::2], side="right") - 1
    top = np.array([instance.top for instance in instances])[owner]
    left = np.array([instance.left for instance in instances])[owner]
    x, y = np.divmod(flips[0::2] - offsets[owner], column[owner])
    starts = (left + x) * height + top + y
    ends = starts + flips[1::2] - flips[0::2]
    # A run down to the last row goes on where the next one starts at the top of the next column.
    joined = np.zeros(len(starts), bool)
    joined[:-1] = (starts[1:] == ends[:-1]) & (owner[1:] == owner[:-1])
    continued = np.roll(joined, 1)
    return starts[~continued], ends[~joined], owner[~continued]


def _places(offsets: np.ndarray) -> np.ndarray:
    """The place 0, 1, … of every count within its RLE."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def _check_structure(index: int, segmentation: Any) -> None:
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise RleError(index, "a segmentation needs size and counts")
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise RleError(index, f"the size of a segmentation must be two positive integers, got {repr(size)}")
    if size[0] * size[1] > MAX_PIXELS:
        raise RleError(index, f"a size of {size[0]} x {size[1]} is too large")
    if not isinstance(counts, str) or not counts:
        raise RleError(index, "the counts of a segmentation must be a string that is not empty")
    if not counts.isascii():
        raise RleError(index, "the counts hold a character outside 0..o")


def _read_values(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read the signed integers of RLE texts, five bits per character, the lowest first."""
    digits = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    text_ends = np.cumsum([len(text) for text in texts])
    owner = np.repeat(np.arange(len(texts)), np.diff(text_ends, prepend=0))
    _refuse((digits < 0) | (digits > 63), owner, "the counts hold a character outside 0..o")
    last = (digits & 32) == 0
    _refuse(~last[text_ends - 1], np.arange(len(texts)), "the counts are cut off in the middle of a value")
    value_ends = np.flatnonzero(last) + 1
    value_starts = np.concatenate(([0], value_ends[:-1]))
    lengths = value_ends - value_starts
    _refuse(lengths > MAX_CHARACTERS, owner[value_starts], "the counts hold a value that is too large")
    shift = 5 * (np.arange(len(digits)) - np.repeat(value_starts, lengths))
    values = np.add.reduceat((digits & 31) << shift, value_starts)
    values -= np.where(digits[value_ends - 1] & 16, 1 << (5 * lengths), 0)  # the highest bit is the sign
    return values, np.concatenate(([0], np.searchsorted(value_ends, text_ends) + 1))


def _undo_differences(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Add up the differences: from place 1 on, odd and even places are running sums of their own."""
    counts = values.copy()
    place = _places(offsets)
    for parity in (0, 1):
        chosen = np.flatnonzero((place > 0) & (place % 2 == parity))
        sums = np.cumsum(values[chosen])
        first = place[chosen] == 2 - parity
        before = (sums - values[chosen])[first]
        counts[chosen] = sums - before[np.cumsum(first) - 1]
    return counts


def _refuse(bad: np.ndarray, owner: np.ndarray, reason: str) -> None:
    if bad.any():
        raise RleError(int(owner[np.argmax(bad)]), reason)


def _crop(counts: np.ndarray, height: int, class_id: int, score: float) -> Instance | None:
    """The object of valid run lengths, cropped; only its bounding box is drawn."""
    edges = np.cumsum(counts)
    starts, ends = edges[: len(edges) - len(edges) % 2 : 2], edges[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return None
    first, y_first = np.divmod(starts, height)
    last, y_last = np.divmod(ends - 1, height)
    one_column = (first == last).all()
    top, bottom = (int(y_first.min()), int(y_last.max()) + 1) if one_column else (0, height)
    left, right = int(first[0]), int(last[-1]) + 1
    rows, columns = bottom - top, right - left
    steps = np.zeros(rows * columns + 1, np.int8)
    steps[(first - left) * rows + y_first - top] += 1
    steps[(last - left) * rows + y_last - top + 1] -= 1
    mask = np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(columns, rows).T
    return Instance(class_id, score, top, left, np.ascontiguousarray(mask))
