"""Every figure equals a plain program that follows its paper: dense arrays, loops over all pairs of objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from src.data.classes import ANY_CLASS, name_classes
from src.evaluation.image_truth import ImageTruth
from src.evaluation.results import result_entries
from src.evaluation.scores import score
from src.geometry.instances import Instance, tight

SIDE = 40
CLASSES = name_classes(["a", "b", "c"])
NUMBERS = [c.id for c in CLASSES]


@dataclass
class Scene:
    """An image as two label maps, the class of each label, and the regions to ignore as dense masks by class."""

    true: np.ndarray
    found: np.ndarray
    true_class: dict[int, int]
    found_class: dict[int, int]
    regions: list[tuple[int, np.ndarray]]

    def iou(self, t: int, f: int) -> float:
        a, b = self.true == t, self.found == f
        return float((a & b).sum() / (a | b).sum())

    def is_covered(self, f: int) -> bool:
        over = np.zeros((SIDE, SIDE), bool)
        for class_id, region in self.regions:
            if class_id in (ANY_CLASS, self.found_class[f]):
                over |= region
        return bool(((self.found == f) & over).sum() > 0.5 * (self.found == f).sum())

    def counted(self, limit: float, strict: bool) -> list[int]:
        """The found labels that count, where pairs need an IoU of at least ``limit``, or of more."""
        return [
            f
            for f in self.found_class
            if not self.is_covered(f)
            or any(self.iou(t, f) > limit if strict else self.iou(t, f) >= limit for t in self.true_class)
        ]


def random_scene(rng: np.random.Generator, regions: int = 0) -> Scene:
    """Rectangles that hide parts of each other; found ones are true ones moved and resized, and some are elsewhere."""
    true, found = np.zeros((2, SIDE, SIDE), np.int64)
    true_class: dict[int, int] = {}
    found_class: dict[int, int] = {}
    for label in range(1, int(rng.integers(0, 9)) + 1):
        top, left, height, width = *rng.integers(0, 32, 2), *rng.integers(3, 11, 2)
        true[top : top + height, left : left + width] = label
        true_class[label] = int(rng.integers(1, 4))
        for copy in range(int(rng.choice([0, 1, 1, 1, 2]))):
            dy, dx, dh, dw = rng.integers(-2, 3, 4)
            y, x = max(top + dy, 0), max(left + dx, 0)
            found[y : y + max(height + dh, 1), x : x + max(width + dw, 1)] = 2 * label + copy
            found_class[2 * label + copy] = true_class[label] if rng.random() < 0.7 else int(rng.integers(1, 4))
    for label in range(100, 100 + int(rng.integers(0, 3))):
        top, left = rng.integers(0, 35, 2)
        found[top : top + 5, left : left + 5] = label
        found_class[label] = int(rng.integers(1, 4))
    ignored = []
    for _ in range(regions):
        region = np.zeros((SIDE, SIDE), bool)
        top, left = rng.integers(0, 30, 2)
        region[top : top + 14, left : left + 14] = True
        ignored.append((int(rng.integers(0, 4)), region))
    true_class = {t: k for t, k in true_class.items() if (true == t).any()}
    return Scene(true, found, true_class, {f: k for f, k in found_class.items() if (found == f).any()}, ignored)


def cells(label_map: np.ndarray, classes: dict[int, int]) -> list[Instance]:
    return [one for label, k in classes.items() if (one := tight(k, 1.0, 0, 0, label_map == label))]


def scores(scenes: Sequence[Scene]) -> dict[str, Any]:
    truths, entries = [], []
    for number, scene in enumerate(scenes, start=1):
        ignored = [one for k, mask in scene.regions if (one := tight(k, 1.0, 0, 0, mask))]
        truths.append(ImageTruth(number, f"{number}.tif", SIDE, SIDE, cells(scene.true, scene.true_class), ignored))
        entries += result_entries(number, cells(scene.found, scene.found_class), SIDE, SIDE)
    return score(truths, entries, CLASSES)


def average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def aji(scene: Scene) -> float | None:
    """Algorithm 1 of Kumar et al. 2017."""
    counted = scene.counted(0.5, strict=True)
    both = either = 0
    used = set()
    for t in scene.true_class:
        a = scene.true == t
        best = max(counted, key=lambda f: scene.iou(t, f), default=None)
        if best is None or scene.iou(t, best) == 0:
            either += a.sum()
            continue
        both += (a & (scene.found == best)).sum()
        either += (a | (scene.found == best)).sum()
        used.add(best)
    either += sum((scene.found == f).sum() for f in counted if f not in used)
    return float(both / either) if either else None


def aji_plus(scene: Scene) -> float | None:
    """As AJI, with the one-to-one pairs of the largest sum of IoU."""
    truths, counted = list(scene.true_class), scene.counted(0.5, strict=True)
    iou = np.array([[scene.iou(t, f) for f in counted] for t in truths]).reshape(len(truths), len(counted))
    pairs = [(truths[i], counted[j]) for i, j in zip(*linear_sum_assignment(-iou), strict=True) if iou[i, j] > 0]
    both = sum(((scene.true == t) & (scene.found == f)).sum() for t, f in pairs)
    either = sum(((scene.true == t) | (scene.found == f)).sum() for t, f in pairs)
    either += sum((scene.true == t).sum() for t in truths if t not in {t for t, _ in pairs})
    either += sum((scene.found == f).sum() for f in counted if f not in {f for _, f in pairs})
    return float(both / either) if either else None


def dice(scene: Scene) -> float | None:
    a, b = scene.true > 0, np.isin(scene.found, scene.counted(0.5, strict=True))
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else None


def pq_sums(scene: Scene, class_id: int | None) -> tuple[float, int, int]:
    """Sum of IoU, pairs, and all objects of a class, or of any (``None``)."""
    truths = [t for t, k in scene.true_class.items() if class_id in (None, k)]
    found = [f for f in scene.counted(0.5, strict=True) if class_id in (None, scene.found_class[f])]
    overlaps = [value for t in truths for f in found if (value := scene.iou(t, f)) > 0.5]
    return sum(overlaps), len(overlaps), len(truths) + len(found)


def pq(sums: Sequence[tuple[float, int, int]]) -> float:
    iou, pairs, objects = (sum(column) for column in zip(*sums, strict=True))
    return (iou / pairs if pairs else 0) * pairs / (objects / 2)


def holds(scene: Scene, class_id: int) -> bool:
    return class_id in scene.true_class.values()


def mpq(scenes: Sequence[Scene]) -> float | None:
    return average([average([pq([pq_sums(s, k)]) for k in NUMBERS if holds(s, k)]) for s in scenes])


def mpq_plus(scenes: Sequence[Scene]) -> float | None:
    return average([pq([pq_sums(s, k) for s in scenes]) for k in NUMBERS if any(holds(s, k) for s in scenes)])


def by_iou(scenes: Sequence[Scene], limit: float) -> tuple[float | None, float | None]:
    """F1 and accuracy of as many one-to-one pairs of at least an IoU as can be, of all images."""
    right = objects = 0
    for scene in scenes:
        met = np.array([[scene.iou(t, f) >= limit for f in scene.found_class] for t in scene.true_class])
        if met.size:
            right += int(met[linear_sum_assignment(-met.astype(int))].sum())
        objects += len(scene.true_class) + len(scene.counted(limit, strict=False))
    return (2 * right / objects, right / (objects - right)) if objects else (None, None)


def centroid_f1(scenes: Sequence[Scene], radius: float) -> float | None:
    """F1 of as many pairs of centroids within the radius as can be."""
    right = objects = 0
    for scene in scenes:
        a, b = (
            [np.argwhere(labels == label).mean(axis=0) for label in classes]
            for labels, classes in ((scene.true, scene.true_class), (scene.found, scene.found_class))
        )
        near = np.array([[np.hypot(*(x - y)) <= radius for y in b] for x in a])
        right += int(near[linear_sum_assignment(-near.astype(int))].sum()) if near.size else 0
        objects += len(a) + len(b)
    return 2 * right / objects if objects else None


def same(value: float | None, wanted: float | None) -> bool:
    return value == pytest.approx(wanted, abs=1e-12) if wanted is not None else value is None


@pytest.mark.parametrize("regions", [0, 3])
@pytest.mark.parametrize("seed", range(12))
def test_figures_of_random_scenes(seed: int, regions: int) -> None:
    rng = np.random.default_rng([seed, regions])
    scenes = [random_scene(rng, regions) for _ in range(int(rng.integers(1, 6)))]
    result = scores(scenes)
    overlap = result["overlap"]
    assert same(overlap["AJI"], average([aji(scene) for scene in scenes]))
    assert same(overlap["AJI+"], average([aji_plus(scene) for scene in scenes]))
    assert same(overlap["Dice"], average([dice(scene) for scene in scenes]))
    assert same(result["pq"]["mPQ"], mpq(scenes))
    assert same(result["pq"]["mPQ+"], mpq_plus(scenes))
    for class_id in NUMBERS:
        known = any(holds(scene, class_id) for scene in scenes)
        wanted = pq([pq_sums(scene, class_id) for scene in scenes]) if known else None
        assert same(result["pq"]["per_class"][str(class_id)]["PQ"], wanted)
    of_images = [pq([pq_sums(scene, None)]) for scene in scenes if scene.true_class or scene.counted(0.5, strict=True)]
    assert same(result["pq"]["agnostic"]["PQ"], average(of_images))
    wanted_f1, wanted_accuracy = zip(*(by_iou(scenes, k / 100) for k in range(50, 100, 5)), strict=True)
    assert all(map(same, result["by_iou"]["F1"].values(), [*wanted_f1, average(wanted_f1)]))
    assert all(map(same, result["by_iou"]["accuracy"].values(), [*wanted_accuracy, average(wanted_accuracy)]))
    if not regions:
        assert same(result["f1"]["detection"], centroid_f1(scenes, 12))


def test_the_random_scenes_are_neither_easy_nor_hopeless() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, 3) for _ in range(40)]
    result = scores(scenes)
    assert 0.2 < result["overlap"]["AJI"] < result["overlap"]["AJI+"] < 0.9
    assert any(f not in scene.counted(0.5, strict=True) for scene in scenes for f in scene.found_class)
    assert any(not scene.true_class for scene in scenes)


def bar(left: int, right: int, class_id: int = 1, top: int = 0) -> tuple[int, tuple[slice, slice]]:
    return class_id, (slice(top, top + 1), slice(left, right))


def scene_of(
    truths: Sequence[tuple[int, tuple[slice, slice]]],
    found: Sequence[tuple[int, tuple[slice, slice]]],
    regions: Sequence[tuple[int, tuple[slice, slice]]] = (),
) -> Scene:
    maps = np.zeros((2, SIDE, SIDE), np.int64)
    for label_map, side in zip(maps, (truths, found), strict=True):
        for label, (_, place) in enumerate(side, start=1):
            label_map[place] = label
    masks = []
    for class_id, place in regions:
        masks.append((class_id, np.zeros((SIDE, SIDE), bool)))
        masks[-1][1][place] = True
    classes = ({label: k for label, (k, _) in enumerate(side, start=1)} for side in (truths, found))
    return Scene(*maps, *classes, masks)


def overlap_of(scene: Scene) -> dict[str, float | None]:
    result = scores([scene])["overlap"]
    return {key: result[key] for key in ("AJI", "AJI+", "Dice")}


def test_aji_by_hand() -> None:
    # One found bar 0-10 over two cells 0-6 and 6-10: IoU 0.6 and 0.4, so it is the best for both.
    merged = scene_of([bar(0, 6), bar(6, 10)], [bar(0, 10)])
    # AJI: (6 + 4) / (10 + 10). AJI+: 6 / (10 + the cell of 4 px alone). All of the foreground is found.
    assert overlap_of(merged) == pytest.approx({"AJI": 0.5, "AJI+": 6 / 14, "Dice": 1.0})
    # Found 0-8 of the cell 0-10, and 20-25 where nothing is: 8 / (10 + 5), Dice 16 / (10 + 13).
    partly = scene_of([bar(0, 10)], [bar(0, 8), bar(20, 25)])
    assert overlap_of(partly) == pytest.approx({"AJI": 8 / 15, "AJI+": 8 / 15, "Dice": 16 / 23})


def test_a_missed_cell_touched_by_a_neighbours_detection_takes_it_in_aji_alone() -> None:
    # The detection 0-12 is that of the cell 0-10, and has 2 px of the cell 10-20: AJI pairs it twice.
    scene = scene_of([bar(0, 10), bar(10, 20)], [bar(0, 12)])
    assert overlap_of(scene) == pytest.approx({"AJI": 12 / (12 + 20), "AJI+": 10 / (12 + 10), "Dice": 24 / 32})


def test_aji_plus_is_the_largest_sum_and_not_the_best_first() -> None:
    # Cell 0-10 meets 0-6 (IoU 0.6) and 6-16 (4 / 16); cell 12-22 meets 6-16 alone (4 / 16).
    scene = scene_of([bar(0, 10), bar(12, 22)], [bar(0, 6), bar(6, 16)])
    truths, found = list(scene.true_class), list(scene.found_class)
    best = max(permutations(found), key=lambda order: sum(map(scene.iou, truths, order)))
    assert best == (1, 2)
    assert overlap_of(scene)["AJI+"] == pytest.approx((6 + 4) / (10 + 16))


NOTHING = {"AJI": 0.0, "AJI+": 0.0, "Dice": 0.0}


def test_nothing_on_one_side_or_on_both() -> None:
    assert overlap_of(scene_of([bar(0, 5)], [])) == NOTHING
    assert overlap_of(scene_of([], [bar(0, 5)])) == NOTHING
    assert overlap_of(scene_of([], [])) == dict.fromkeys(NOTHING)
    empty = scores([scene_of([], [])])
    assert empty["pq"]["mPQ"] is None and empty["pq"]["mPQ+"] is None
    assert set(empty["by_iou"]["F1"].values()) == set(empty["by_iou"]["accuracy"].values()) == {None}
    alone = scores([scene_of([], [bar(0, 5)])])
    assert alone["pq"]["mPQ"] is None and set(alone["by_iou"]["F1"].values()) == {0.0}
    missed = scores([scene_of([bar(0, 5)], [])])
    assert missed["pq"]["mPQ"] == missed["pq"]["mPQ+"] == 0 == missed["by_iou"]["accuracy"]["mean"]
    # An image without objects changes no mean over images.
    assert scores([scene_of([bar(0, 5)], [bar(0, 5)]), scene_of([], [])])["overlap"]["Dice"] == 1.0


def test_f1_and_accuracy_by_hand() -> None:
    # IoU 1, 0.8 and 0.6 of three cells, and a false positive.
    truths = [bar(0, 10), bar(0, 10, 2, top=2), bar(0, 10, top=4)]
    found = [bar(0, 10), bar(0, 8, top=2), bar(0, 6, top=4), bar(0, 9, top=8)]
    result = scores([scene_of(truths, found)])["by_iou"]
    pairs = [3, 3, 3, 2, 2, 2, 2, 1, 1, 1]  # an IoU that is the limit itself is enough
    assert list(result["F1"].values())[:-1] == pytest.approx([2 * n / 7 for n in pairs])
    assert list(result["accuracy"].values())[:-1] == pytest.approx([n / (7 - n) for n in pairs])
    assert result["F1"]["mean"] == pytest.approx(sum(2 * n / 7 for n in pairs) / 10)


def test_two_halves_of_a_cell_are_one_pair_at_an_iou_of_one_half() -> None:
    halves = scores([scene_of([bar(0, 10)], [bar(0, 5), bar(5, 10)])])["by_iou"]
    assert halves["F1"]["0.50"] == pytest.approx(2 / 3) and halves["F1"]["0.55"] == 0
    merged = scores([scene_of([bar(0, 5), bar(5, 10)], [bar(0, 10)])])["by_iou"]
    assert merged["accuracy"]["0.50"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("class_id", [ANY_CLASS, 1])
def test_what_lies_in_a_region_to_ignore_counts_nowhere(class_id: int) -> None:
    truths, found = [bar(0, 10)], [bar(0, 10), bar(20, 30)]
    inside = scores([scene_of(truths, found, [bar(18, 30, class_id)])])
    assert inside["overlap"] == {"threshold": 0.5, "AJI": 1.0, "AJI+": 1.0, "Dice": 1.0}
    assert inside["by_iou"]["accuracy"]["mean"] == inside["pq"]["mPQ"] == inside["pq"]["mPQ+"] == 1.0
    other = scores([scene_of(truths, found, [bar(18, 30, 2)])])
    assert other["overlap"]["AJI"] == pytest.approx(0.5) and other["by_iou"]["accuracy"]["mean"] == pytest.approx(0.5)


def test_a_detection_in_a_region_that_is_no_pair_at_a_higher_iou_counts_nowhere_there() -> None:
    scene = scene_of([bar(0, 10)], [bar(0, 6)], [bar(0, 10, ANY_CLASS)])
    f1 = scores([scene])["by_iou"]["F1"]
    assert f1["0.60"] == 1.0 and f1["0.65"] == 0.0
    both = scene_of([bar(0, 10), bar(20, 30)], [bar(0, 6), bar(20, 30)], [bar(0, 10, ANY_CLASS)])
    assert scores([both])["by_iou"]["F1"]["0.65"] == pytest.approx(2 / 3)  # one pair, one missed, none false


def test_a_smaller_radius_pairs_fewer_centroids() -> None:
    truth = ImageTruth(1, "1.tif", SIDE, SIDE, cells(*_map_of(bar(0, 5))))
    entries = result_entries(1, cells(*_map_of(bar(8, 13))), SIDE, SIDE)
    for radius, wanted in ((8.5, 1.0), (8.0, 1.0), (7.5, 0.0)):
        result = score([truth], entries, CLASSES, radius=radius)["f1"]
        assert (result["radius"], result["detection"]) == (radius, wanted)


def _map_of(one: tuple[int, tuple[slice, slice]]) -> tuple[np.ndarray, dict[int, int]]:
    scene = scene_of([one], [])
    return scene.true, scene.true_class
