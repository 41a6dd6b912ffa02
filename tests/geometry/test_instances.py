"""Objects as small masks with a place: round trips and answers known by hand."""

import numpy as np

from src.geometry.instances import (
    Instance,
    clip,
    extents,
    from_label_map,
    intersection,
    resolve_overlaps,
    tight,
    to_label_map,
    union,
    window,
)


def block(top: int, left: int, bottom: int, right: int, score: float = 0.5, class_id: int = 1) -> Instance:
    return Instance(class_id, score, top, left, np.ones((bottom - top, right - left), bool))


def test_place_and_area() -> None:
    mask = np.array([[True, False, True], [False, True, False]])
    instance = Instance(2, 0.5, 4, 7, mask)
    assert (instance.bottom, instance.right, instance.area) == (6, 10, 3)


def test_label_map_round_trip() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (3, 9, 14)).astype(np.int32)
    instances = from_label_map(labels)
    for class_id in (1, 2, 3):
        own = [instance for instance in instances if instance.class_id == class_id]
        assert np.array_equal(to_label_map(own, 9, 14), labels[class_id - 1])
    assert [instance.class_id for instance in instances] == [1] * 5 + [2] * 5 + [3] * 5
    for instance in instances:
        assert instance.score == 1.0
        assert instance.mask[[0, -1]].any(axis=1).all() and instance.mask[:, [0, -1]].any(axis=0).all()


def test_label_map_with_gaps_and_single_pixels() -> None:
    labels = np.zeros((2, 4, 5), np.int32)
    labels[0, 0, 0], labels[0, 3, 4], labels[1, 1:3, 1:4] = 3, 9, 7
    found = [(i.class_id, i.top, i.left, i.bottom, i.right, i.area) for i in from_label_map(labels)]
    assert found == [(1, 0, 0, 1, 1, 1), (1, 3, 4, 4, 5, 1), (2, 1, 1, 3, 4, 6)]


def test_empty_label_maps() -> None:
    assert from_label_map(np.zeros((2, 3, 4), np.int32)) == []
    empty = to_label_map([], 3, 4)
    assert empty.shape == (3, 4) and empty.dtype == np.int32 and not empty.any()


def test_higher_score_wins_where_objects_overlap() -> None:
    low, high = block(0, 0, 2, 3, score=0.3), block(0, 1, 2, 5, score=0.8)
    expected = [[1, 2, 2, 2, 2], [1, 2, 2, 2, 2]]
    assert to_label_map([low, high], 2, 5).tolist() == expected
    assert to_label_map([high, low], 2, 5).tolist() == [[2, 1, 1, 1, 1], [2, 1, 1, 1, 1]]


def test_tight() -> None:
    mask = np.zeros((5, 6), bool)
    assert tight(1, 0.5, 10, 20, mask) is None
    mask[1, 2] = mask[3, 4] = True
    found = tight(3, 0.5, 10, 20, mask)
    assert found is not None
    assert (found.class_id, found.score, found.top, found.left) == (3, 0.5, 11, 22)
    assert np.array_equal(found.mask, np.eye(3, dtype=bool) & [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_window_is_a_view() -> None:
    instance = block(2, 3, 8, 9)
    part = window(instance, 4, 4, 6, 9)
    assert part.shape == (2, 5) and np.shares_memory(part, instance.mask)


def test_clip() -> None:
    cross = np.zeros((3, 3), bool)
    cross[1], cross[:, 1] = True, True
    instance = Instance(1, 0.7, 10, 10, cross)
    assert clip(instance, 0, 0, 10, 99) is None
    assert clip(instance, 10, 10, 11, 11) is None
    corner = clip(instance, 0, 0, 11, 99)
    assert corner is not None
    assert (corner.top, corner.left, corner.mask.tolist(), corner.score) == (10, 11, [[True]], 0.7)
    whole = clip(instance, 0, 0, 99, 99)
    assert whole is not None and np.array_equal(whole.mask, cross)


def test_intersection() -> None:
    assert intersection(block(0, 0, 4, 4), block(2, 1, 6, 9)) == 2 * 3
    assert intersection(block(0, 0, 4, 4), block(0, 4, 4, 8)) == 0
    assert intersection(block(0, 0, 4, 4), block(9, 9, 10, 10)) == 0
    checkers = np.indices((4, 4)).sum(axis=0) % 2 == 0
    assert intersection(Instance(1, 1.0, 0, 0, checkers), Instance(1, 1.0, 0, 0, ~checkers)) == 0
    assert intersection(Instance(1, 1.0, 0, 0, checkers), Instance(1, 1.0, 0, 1, ~checkers[:, :3])) == 6


def test_union() -> None:
    both = union([block(0, 0, 2, 2, 0.4, class_id=3), block(1, 1, 4, 3, 0.9, class_id=3)])
    assert (both.class_id, both.score, both.top, both.left) == (3, 0.9, 0, 0)
    assert both.mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 1, 1]]
    one = block(5, 6, 7, 8)
    assert np.array_equal(union([one]).mask, one.mask)


def test_extents_by_hand() -> None:
    label_map = np.zeros((2, 4, 5), np.uint16)
    label_map[0, 1:3, 4] = 1  # at the right edge, with another beginning in the row below
    label_map[0, 2, 0] = 3
    label_map[1, 0, 1:4] = label_map[1, 3, 2] = 4  # two pieces
    areas, boxes = extents(label_map, 5)
    assert areas.tolist() == [0, 2, 0, 1, 4, 0]
    assert boxes[[1, 3, 4]].tolist() == [[4, 1, 5, 3], [0, 2, 1, 3], [1, 0, 4, 4]]


def test_extents_are_those_of_each_mask() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (1, 7, 1), (2, 1, 9), (3, 8, 11)):
        labels = rng.integers(0, 5, shape)
        label_map = np.where(labels > 0, labels + 4 * np.arange(shape[0])[:, None, None], 0).astype(np.int32)
        areas, boxes = extents(label_map, 4 * shape[0])
        for label in range(1, 4 * shape[0] + 1):
            mask = label_map[(label - 1) // 4] == label
            instance = tight(1, 1.0, 0, 0, mask)
            assert areas[label] == mask.sum()
            if instance is not None:
                assert boxes[label].tolist() == [instance.left, instance.top, instance.right, instance.bottom]


def test_the_higher_score_takes_a_place_that_two_claim() -> None:
    def square(score: float, left: int, category: int = 1) -> Instance:
        return Instance(category, score, 0, left, np.ones((4, 4), bool))

    twin, cell, half, most = square(0.5, 0, 2), square(0.9, 0), square(0.4, 2), square(0.3, 5)
    assert resolve_overlaps([twin, cell, half, most], 4, 20) == [cell, half, most]  # of the twin nothing is left
    lower = square(0.8, 1)  # a quarter of it is left
    assert resolve_overlaps([lower, cell], 4, 20) == [cell]
    assert resolve_overlaps([lower, cell], 4, 20, min_share=0.25) == [lower, cell]
    assert resolve_overlaps([], 4, 4) == []
