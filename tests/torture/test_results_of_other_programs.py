"""Results files that are damaged or made to harm: every entry is scored, or refused by its number; nothing crashes."""

import copy
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.classes import HOMEWORK_CLASSES
from src.data.id_map import ImageId
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import check_results, result_entries
from src.evaluation.rle import decode_entries
from src.evaluation.scores import score
from src.geometry.instances import Instance

SIDE, TRIES = 40, 10_000
ODD = (None, True, -1, 0, 1, 1.5, 10**30, -(10**30), float("nan"), float("inf"), "", "1", [], {}, [[]], b"x")


def instances() -> list[Instance]:
    rng = np.random.default_rng(0)
    return [
        Instance(1 + k % 4, 0.1 * k, 3 * k, 2 * k, np.pad(rng.random((5, 6)) < 0.6, 1, constant_values=True))
        for k in range(1, 9)
    ]


def entries() -> list[dict[str, Any]]:
    return result_entries(1, instances(), SIDE, SIDE)


def flip_characters(entry: dict[str, Any], rng: random.Random) -> None:
    counts = list(entry["segmentation"]["counts"])
    for _ in range(rng.randint(1, 4)):
        counts[rng.randrange(len(counts))] = chr(rng.choice((rng.randrange(48, 112), rng.randrange(1, 0x250))))
    entry["segmentation"]["counts"] = "".join(counts)


def cut(entry: dict[str, Any], rng: random.Random) -> None:
    counts = entry["segmentation"]["counts"]
    entry["segmentation"]["counts"] = counts[: rng.randrange(len(counts))]


def lengthen(entry: dict[str, Any], rng: random.Random) -> None:
    grown = entry["segmentation"]["counts"] + "".join(chr(rng.randrange(48, 112)) for _ in range(rng.randint(1, 40)))
    entry["segmentation"]["counts"] = grown


def lie_about_the_size(entry: dict[str, Any], rng: random.Random) -> None:
    sizes = ([SIDE, SIDE + 1], [0, 0], [-1, 40], [2**31, 2**31], [2**63, 1], [SIDE], SIDE, None, "40x40", [40.5, 40])
    entry["segmentation"]["size"] = rng.choice(sizes)


def odd_value(entry: dict[str, Any], rng: random.Random) -> None:
    key = rng.choice(("image_id", "category_id", "bbox", "score", "segmentation", "counts"))
    place = entry["segmentation"] if key == "counts" else entry
    place[key] = rng.choice(ODD)


def drop_a_key(entry: dict[str, Any], rng: random.Random) -> None:
    place = rng.choice((entry, entry["segmentation"]))
    del place[rng.choice([key for key in place if key != "bbox"])]  # which is not needed


FAMILIES: tuple[Callable[[dict[str, Any], random.Random], None], ...] = (
    flip_characters, cut, lengthen, lie_about_the_size, odd_value, drop_a_key
)  # fmt: skip


def is_refused(spoiled: list[Any], index: int) -> bool:
    """Whether checking names the spoiled entry; what passes must decode to a mask that lies in the image."""
    try:
        check_results(spoiled, [ImageId("a.tif", 1, SIDE, SIDE)], 4, "r.json")
    except InputError as error:
        assert str(error).startswith(f"r.json: entry {index}: ") and "\n" not in str(error)
        return True
    for found in decode_entries(spoiled):
        assert found is None or (0 <= found.top <= found.bottom <= SIDE and 0 <= found.left <= found.right <= SIDE)
    return False


def test_malformed_entries_are_named_or_harmless() -> None:
    rng, good, refused, passed = random.Random(0), entries(), Counter[str](), []
    for number in range(TRIES):
        spoil = FAMILIES[number % len(FAMILIES)]
        spoiled, index = copy.deepcopy(good), rng.randrange(len(good))
        spoil(spoiled[index], rng)
        if is_refused(spoiled, index):
            refused[spoil.__name__] += 1
        else:
            passed.append(spoiled[index])
    assert set(refused) == {family.__name__ for family in FAMILIES}
    for always in (3, 5):  # a size that is none of the image's, and a key that is missing
        assert refused[FAMILIES[always].__name__] == len(range(always, TRIES, len(FAMILIES)))
    truth = ImageTruth(1, "a.tif", SIDE, SIDE, instances())
    for start in range(0, len(passed), 50):  # what was let through is well-formed, and the C code gets it
        result = score([truth], passed[start : start + 50], HOMEWORK_CLASSES)
        assert 0 <= result["uncapped"]["AP50"] <= 1


def test_the_tries_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that forgot the counts would be found."""
    monkeypatch.setattr("src.evaluation.results.decompress", lambda segmentations: None)
    rng, good, missed = random.Random(0), entries(), 0
    for _ in range(200):
        spoiled = copy.deepcopy(good)
        cut(spoiled[3], rng)
        try:
            is_refused(spoiled, 3)
        except (ValueError, AssertionError, IndexError):
            missed += 1
    assert missed > 100
