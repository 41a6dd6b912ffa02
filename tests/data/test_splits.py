import numpy as np
import pytest

from src.common.errors import InputError
from src.data.splits import group_by_stain, make_split


def random_case(seed: int, groups: int = 20, per_group: int = 4):
    """Names, cells of three classes (the third rare, in three groups) and groups."""
    rng = np.random.default_rng(seed)
    names = [f"g{g}_{i}" for g in range(groups) for i in range(per_group)]
    counts = {name: np.array([*rng.poisson((50, 10)), 0]) for name in names}
    for group in rng.permutation(groups)[:3]:
        counts[f"g{group}_0"][2] = rng.integers(1, 9)
    return names, counts, {name: name.split("_")[0] for name in names}


def held(counts: dict, names: list[str]) -> np.ndarray:
    return sum((np.asarray(counts[name]) for name in names), np.zeros(3))


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_whole_and_shares_are_near(seed: int) -> None:
    names, counts, groups = random_case(seed)
    split, note = make_split(names, counts, groups, 0.2, seed)
    assert sorted(split["train"] + split["val"]) == sorted(names)
    assert not {groups[name] for name in split["train"]} & {groups[name] for name in split["val"]}
    share = held(counts, split["val"]) / held(counts, names)
    assert np.abs(share[:2] - 0.2).max() < 0.05 and abs(len(split["val"]) - 16) <= 4
    assert 0 < share[2] < 1
    assert note.startswith(f"{len(split['val'])} of 80 images are for validation, ") and note.endswith("of 20 groups")


def test_equal_seeds_give_equal_splits_in_the_names_order() -> None:
    names, counts, groups = random_case(0)
    first, again = (make_split(names, counts, groups, 0.25, 3)[0] for _ in range(2))
    assert first == again
    assert first["val"] == [name for name in names if name in set(first["val"])]
    assert len({tuple(make_split(names, counts, groups, 0.25, seed)[0]["val"]) for seed in range(8)}) > 1


def test_every_class_of_two_groups_is_in_both_parts() -> None:
    counts = {"a": [9, 1, 0], "b": [9, 1, 0], "c": [9, 0, 1], "d": [9, 0, 1], "e": [9, 0, 0]}
    for seed in range(10):
        split, _ = make_split(list(counts), counts, {name: name for name in counts}, 0.1, seed)
        assert (held(counts, split["val"]) > 0).all() and (held(counts, split["train"]) > 0).all()


def test_a_class_of_one_group_stays_in_train() -> None:
    counts = {"a": [5, 5, 0], "b": [5, 0, 0], "c": [5, 0, 0], "d": [5, 0, 0]}
    split, _ = make_split(list(counts), counts, {name: name for name in counts}, 0.25, 0)
    assert "a" in split["train"] and len(split["val"]) == 1


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.999])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_neither_part_is_empty(count: int, fraction: float) -> None:
    names = [str(i) for i in range(count)]
    counts = {name: [0, 0, 0] for name in names}
    for groups in ({name: name for name in names}, dict.fromkeys(names, "one")):
        split, _ = make_split(names, counts, groups, fraction, 0)
        assert split["train"] and split["val"]


def test_images_of_one_group_are_split_singly_and_the_note_says_so() -> None:
    names, counts, _ = random_case(0)
    split, note = make_split(names, counts, dict.fromkeys(names, 0), 0.2, 0)
    assert len(split["val"]) == 16
    assert "16 of 80 images" in note and "16 of 80 single images" in note and "one group" in note


def test_without_validation_everything_is_for_training() -> None:
    counts = {"a": [1, 2, 3], "b": [1, 2, 3]}
    assert make_split(["a", "b"], counts, {"a": 0, "b": 1}, 0, 0)[0] == {"train": ["a", "b"], "val": []}
    assert make_split(["a"], counts, {"a": 0}, 0.5, 0)[0] == {"train": ["a"], "val": []}
    assert make_split([], {}, {}, 0.5, 0)[0] == {"train": [], "val": []}


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="--val-fraction must be at least 0 and below 1"):
        make_split(["a", "b"], {}, {"a": 0, "b": 1}, fraction, 0)


def test_a_name_without_a_group_is_refused() -> None:
    with pytest.raises(InputError, match="--groups: b has no group"):
        make_split(["a", "b"], {}, {"a": 0}, 0.2, 0)


def test_well_parted_features_are_grouped() -> None:
    centres = 100 * np.arange(10)[:, None] * np.ones(3)
    features = np.repeat(centres, 5, axis=0) + np.random.default_rng(0).normal(0, 1, (50, 3))
    labels = np.array(group_by_stain(features)).reshape(10, 5)
    assert (labels == labels[:, :1]).all() and sorted(labels[:, 0]) == list(range(10))


def test_few_or_equal_images_are_grouped_without_complaint() -> None:
    assert group_by_stain(np.zeros((0, 3))) == [] and group_by_stain(np.zeros((1, 3))) == [0]
    assert group_by_stain(np.ones((6, 3))) == [0] * 6  # nothing tells them apart
    assert sorted(group_by_stain(np.array([[0.0], [1]]))) == [0, 1]
    assert len(set(group_by_stain(np.arange(5.0)[:, None]))) == 2
