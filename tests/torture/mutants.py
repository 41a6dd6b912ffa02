"""Damaged TIFF files for the reader: ``python -m tests.torture.mutants FOLDER COUNT SEED`` prints what became of them.

Runs as a process of its own, so that a crash, a hang or a hunger for memory is seen from outside.
"""

import io
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import tifffile

from src.common.errors import InputError
from src.data.masks import read_mask
from src.data.tiff import read_header, read_image

MEMORY = 4 << 30
SECONDS = 2.0
HEADER = 512  # bytes at both ends, where TIFF keeps its directory


class TooSlow(BaseException):
    """A reader did not come back in time."""


def originals(folder: Path) -> list[tuple[str, bytes, bool]]:
    """Name, bytes, whether it is a mask: the files of a folder, else small ones in every encoding that users bring."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (61, 47, 3), np.uint8)
    mask = np.kron(rng.integers(0, 9, (8, 6)), np.ones((8, 8))).astype(np.uint16)
    made = [
        ("deflate", image, {"compression": "zlib"}),
        ("lzw", np.dstack((image, image[..., :1])), {"compression": "lzw", "predictor": True}),
        ("plain", image, {}),
        ("tiled", np.tile(image, (3, 3, 1)), {"compression": "zlib", "tile": (32, 32)}),
        ("planar", np.moveaxis(image, -1, 0), {"planarconfig": "separate"}),
        ("big", image, {"bigtiff": True, "compression": "zlib", "rowsperstrip": 7}),
        ("float", image[..., 0] / 255.0, {}),
    ]
    masks = [("mask-deflate", mask, {"compression": "zlib"}), ("mask-float64", mask.astype(float), {})]
    given = sorted(folder.rglob("*.tif"))
    if given:
        return [(path.name, path.read_bytes(), path.name.startswith("class")) for path in given]
    found = []
    for is_mask, files in ((False, made), (True, masks)):
        for name, pixels, options in files:
            buffer = io.BytesIO()
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            tifffile.imwrite(buffer, pixels, photometric=photometric, metadata=None, **options)
            found.append((name, buffer.getvalue(), is_mask))
    return found


def mutate(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One of: cut short, bits flipped anywhere, a stretch deleted, numbers in the directory changed."""
    kind, data = rng.choice(("truncate", "flip", "delete", "header", "header")), bytearray(whole)
    if kind == "truncate":
        return kind, bytes(data[: rng.randrange(len(data))])
    if kind == "delete":
        start = rng.randrange(len(data))
        return kind, bytes(data[:start] + data[start + rng.randint(1, 64) :])
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        if kind == "header":
            reach = min(HEADER, len(data))
            place = rng.choice((rng.randrange(reach), len(data) - 1 - rng.randrange(reach)))
            data[place] = rng.choice((0, 1, 255, rng.randrange(256)))
        else:
            data[place] ^= 1 << rng.randrange(8)
    return kind, bytes(data)


def attempts(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str, bytes, bytes, bool]]:
    """Name, kind of damage, damaged and whole bytes, and whether it is a mask."""
    rng, files = random.Random(seed), originals(folder)
    for number in range(count):
        name, whole, is_mask = files[number % len(files)]
        kind, damaged = mutate(whole, rng)
        yield name, kind, damaged, whole, is_mask


def read(path: Path, is_mask: bool) -> np.ndarray:
    """As the program reads it: first the header, then the pixels."""
    header = read_header(path)
    pixels = read_mask(path) if is_mask else read_image(path)
    if pixels.shape[:2] != (header.height, header.width):
        raise AssertionError(f"{pixels.shape} is not the {header.height} x {header.width} of the header")
    return pixels


def outcome(path: Path, is_mask: bool, expected: np.ndarray) -> str:
    """``same``, ``other pixels``, ``refused``, or what should not have happened."""
    try:
        pixels = read(path, is_mask)
    except InputError as error:
        is_clear = str(error).startswith(str(path)) and "\n" not in str(error)
        return "refused" if is_clear else f"unclear: {error}"
    except TooSlow:
        return "slow"
    except BaseException as error:
        return f"escaped: {type(error).__name__}: {error}"
    return "same" if np.array_equal(pixels, expected) else "other pixels"


def too_slow(number: int, frame: FrameType | None) -> None:
    """The alarm clock."""
    raise TooSlow


def main() -> None:
    """Try them all; print counts by outcome and the longest time as JSON."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, too_slow)
    path, counts, longest = folder / "mutant.tiff", Counter[str](), 0.0
    expected: dict[bytes, np.ndarray] = {}
    for name, kind, damaged, whole, is_mask in attempts(folder, count, seed):
        if whole not in expected:
            path.write_bytes(whole)
            expected[whole] = read(path, is_mask)
        path.write_bytes(damaged)
        print(json.dumps({"trying": [name, kind]}), file=sys.stderr)
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        result = outcome(path, is_mask, expected[whole])
        signal.setitimer(signal.ITIMER_REAL, 0)
        longest = max(longest, time.perf_counter() - started)
        counts[result] += 1
    print(json.dumps({"counts": counts, "longest_s": longest}))


if __name__ == "__main__":
    main()
