"""Intervals by hand, resamples against scores of real copies of images, and what the command says about them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.common.errors import InputError
from src.data.classes import name_classes
from src.data.id_map import ImageId, write_id_map
from src.data.tiff import write_mask
from src.evaluation.bootstrap import Spreads, bootstrap, draw, groups_of, order_in, resample, spreads_of
from src.evaluation.image_truth import ImageTruth
from src.evaluation.measured import Measured, measure
from src.evaluation.results import result_entries, write_results
from src.evaluation.scores import figure_at, map_figures, plain_figures
from src.geometry.instances import Instance, tight
from src.score import main

SIDE = 60
CLASSES = name_classes(["a", "b"])


def bar(top: int, right: int, class_id: int = 1, score: float = 1.0) -> Instance:
    return Instance(class_id, score, top, 0, np.ones((1, right), bool))


def image(image_id: int, *cells: Instance) -> ImageTruth:
    return ImageTruth(image_id, f"im{image_id}.tif", SIDE, SIDE, list(cells))


def measured(images: Sequence[ImageTruth], found: Sequence[Sequence[Instance]]) -> Measured:
    entries = [
        e for truth, cells in zip(images, found, strict=True) for e in result_entries(truth.id, cells, SIDE, SIDE)
    ]
    return measure(images, entries, CLASSES)


def random_image(rng: np.random.Generator, image_id: int) -> tuple[ImageTruth, list[Instance]]:
    """Cells that are found more or less well, some as the wrong class, and another; no two scores are equal."""
    truths, found = [], []
    for place in rng.choice(36, 12, replace=False).tolist():
        top, left = place // 6 * 10, place % 6 * 10
        class_id = int(rng.integers(1, 3))
        truths.append(Instance(class_id, 1.0, top, left, np.ones((8, 8), bool)))
        if rng.random() < 0.9:
            mask = rng.random((8, 8)) < rng.choice([0.5, 0.7, 0.95])
            one = tight(class_id if rng.random() < 0.8 else 3 - class_id, float(rng.uniform(0.4, 1)), top, left, mask)
            found += [one] if one else []
    found += [Instance(1, float(rng.uniform(0.4, 1)), 0, int(rng.integers(50)), np.ones((9, 9), bool))]
    return image(image_id, *truths), found


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_scores_as_copies_of_its_images_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_image(rng, number) for number in range(1, 5)]
    weights = np.array([[2.0, 0, 1, 3], [1, 1, 1, 1], [0, 0, 0, 4]])
    rows = bootstrap(measured(*map(list, zip(*scenes, strict=True))), weights)
    for number, row in enumerate(weights.astype(int)):
        copies = [scenes[k] for k in np.repeat(np.arange(4), row).tolist()]
        copies = [(replace(truth, id=i, file_name=f"{i}.tif"), found) for i, (truth, found) in enumerate(copies)]
        wanted = plain_figures(measured(*map(list, zip(*copies, strict=True))))
        map_figures(lambda got, figure, at=number: same(got[at], figure), rows, wanted)


def same(value: float, wanted: float | None) -> None:
    assert np.isnan(value) if wanted is None else value == pytest.approx(wanted, abs=1e-12)


def dice(spreads: Spreads, which: int = 0) -> tuple[float, list[float] | None]:
    one = spreads.each[which]
    return figure_at(one.figures, ("overlap", "Dice")), figure_at(one.intervals, ("overlap", "Dice"))


def test_intervals_by_hand() -> None:
    # Dice 1 and 2 * 4 / (4 + 12): a resample of the two images has a mean of 1, 0.75 or 0.5.
    two = measured([image(1, bar(0, 4)), image(2, bar(0, 12))], [[bar(0, 4)], [bar(0, 4)]])
    assert dice(spreads_of([two], resample(two.names, 1000))) == (0.75, [0.5, 1.0])
    # In one group they always come together, so that there is nothing to vary.
    one_group = spreads_of([two], resample(["slide", "slide"], 1000))
    assert dice(one_group) == (0.75, None) and not one_group.resampled
    assert spreads_of([two], None).each[0].intervals["overlap"]["Dice"] is None


def test_a_figure_that_is_undefined_in_some_resamples_has_the_interval_of_the_others() -> None:
    two = measured([image(1, bar(0, 4, 1)), image(2, bar(0, 4, 2))], [[bar(0, 4, 1)], []])
    spread = spreads_of([two], resample(two.names, 200)).each[0]
    assert spread.intervals["pq"]["per_class"]["1"]["PQ"] == [1.0, 1.0]
    assert spread.intervals["pq"]["per_class"]["2"]["PQ"] == [0.0, 0.0]
    assert spread.figures["pq"]["agnostic"]["PQ"] == 0.5
    none = measured([image(1, bar(0, 4, 1)), image(2, bar(0, 4, 1))], [[], []])
    assert spreads_of([none], resample(none.names, 5)).each[0].intervals["pq"]["per_class"]["2"]["PQ"] is None


def test_whole_groups_are_drawn_and_always_alike() -> None:
    drawn = resample(["x", "y", "x", "z"], 500)
    assert drawn.group_count == 3 and drawn.weights.shape == (500, 4)
    assert (drawn.weights[:, 0] == drawn.weights[:, 2]).all()
    assert (drawn.weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert drawn.weights.mean(axis=0) == pytest.approx(1, abs=0.15)
    assert (resample(["x", "y", "x", "z"], 500).weights == drawn.weights).all()


def test_few_groups_are_warned_of() -> None:
    few, many = resample(list("abcdefghi"), 10), resample(list("abcdefghij"), 10)
    assert "of 9 groups" in few.said() and "fewer than 10" in few.said()
    assert "of 10 groups" in many.said() and "fewer" not in many.said()


def test_one_group_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, groups = write_case(tmp_path, "one", 10, [1, 2, 3]), tmp_path / "groups.json"
    groups.write_text('{"p": "x", "q": "x", "r": "x"}')
    result = run(tmp_path, "--pred", one, "--bootstrap", "20", "--groups", str(groups))
    assert "at least two groups" in (said := capsys.readouterr().out) and " to " not in said
    assert result["bootstrap"]["groups"] == 1 and result["bootstrap"]["intervals"]["pq"]["agnostic"]["PQ"] is None


def test_a_paired_difference_is_narrower_than_the_figures() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_image(rng, number) for number in range(1, 13)]
    truths, found = map(list, zip(*scenes, strict=True))
    one, other = measured(truths, found), measured(truths, [cells[1:] for cells in found])
    spreads = spreads_of([one, other], resample(one.names, 300))
    assert spreads.difference is not None
    for place in (("overlap", "AJI"), ("uncapped", "AP50"), ("f1", "detection")):
        values = [figure_at(spread.figures, place) for spread in spreads.each]
        assert figure_at(spreads.difference.figures, place) == pytest.approx(values[0] - values[1])
        low, high = figure_at(spreads.difference.intervals, place)
        assert low <= values[0] - values[1] <= high
    low, high = spreads.difference.intervals["overlap"]["Dice"]
    alone = spreads.each[0].intervals["overlap"]["Dice"]
    assert high - low < alone[1] - alone[0]


def test_results_are_paired_by_the_names_of_images() -> None:
    rng = np.random.default_rng(1)
    scenes = [random_image(rng, number) for number in range(1, 6)]
    one = measured(*map(list, zip(*scenes, strict=True)))
    turned = [(replace(truth, id=9 - truth.id), found) for truth, found in scenes]
    other = measured(*map(list, zip(*turned, strict=True)))
    assert order_in(one, other) == [4, 3, 2, 1, 0]
    spreads = spreads_of([one, other], resample(one.names, 50))
    assert spreads.difference is not None
    map_figures(lambda limits: same_limits(limits, 0.0), spreads.difference.intervals)
    fewer = measured(*map(list, zip(*scenes[1:], strict=True)))
    assert order_in(one, fewer) is None and order_in(fewer, one) is None
    with pytest.raises(ValueError, match="different images"):
        spreads_of([one, fewer], resample(one.names, 5))
    changed = [replace(truth, instances=truth.instances[1:]) for truth, _ in scenes]
    assert order_in(one, measured(changed, [found for _, found in scenes])) is None


def same_limits(limits: list[float] | None, wanted: float) -> None:
    assert limits is not None and limits == pytest.approx([wanted, wanted], abs=1e-12)


def test_groups_are_read_by_the_names_of_images(tmp_path: Path) -> None:
    path = tmp_path / "gröups.json"
    path.write_text(json.dumps({"a.tif": "x", "B": "y", "unused": "z"}), encoding="utf-8")
    assert groups_of(["a", "b"], path) == ["x", "y"]
    drawn = draw(["a", "b"], path, 3)
    assert (drawn.group_count, drawn.by_image) == (2, False)
    with pytest.raises(InputError, match=r"gröups\.json: c has no group"):
        groups_of(["a", "c"], path)


def write_case(root: Path, name: str, right: int, ids: Sequence[int]) -> str:
    """Results of three images, in which a cell of 10 px is found with ``right`` px, with an id map beside them."""
    names, entries = ["p", "q", "r"], []
    for image_id in ids:
        entries += result_entries(image_id, [bar(5, right, score=0.9)], SIDE, SIDE)
    write_results(root / f"{name}.json", entries)
    write_id_map(
        root / f"{name}.id-map.json",
        [ImageId(f"{one}.tif", image_id, SIDE, SIDE) for one, image_id in zip(names, ids, strict=True)],
    )
    for one in names:
        folder = root / "gt" / one
        if not folder.exists():
            folder.mkdir(parents=True)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[5, :10] = 1
            write_mask(folder / "class1.tif", mask)
    return str(root / f"{name}.json")


def run(tmp_path: Path, *flags: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    main([*flags, "--gt", str(tmp_path / "gt"), "--json", str(out)])
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def test_the_command_compares_two_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write_case(tmp_path, "one", 10, [1, 2, 3]), write_case(tmp_path, "other", 8, [7, 6, 5])
    plain = run(tmp_path, "--pred", one)
    assert "bootstrap" not in plain and "interval" not in capsys.readouterr().out
    result = run(tmp_path, "--pred", one, "--against", other)
    said = capsys.readouterr().out
    assert "one - other" in said and "1000 bootstrap resamples of 3 images" in said and "--groups" in said
    assert {key: value for key, value in result.items() if key not in ("bootstrap", "against")} == plain
    assert result["bootstrap"] | {"intervals": None} == {
        "resamples": 1000, "groups": 3, "group_is_image": True, "level": 0.95, "seed": 0, "intervals": None,
    }  # fmt: skip
    against = result["against"]
    assert against["differences"]["pq"]["agnostic"]["PQ"] == pytest.approx(0.2)
    assert against["intervals_of_differences"]["pq"]["agnostic"]["PQ"] == pytest.approx([0.2, 0.2])
    assert against["scores"]["by_iou"]["F1"]["0.85"] == 0 and result["by_iou"]["F1"]["0.85"] == 1
    assert result["bootstrap"]["intervals"]["overlap"]["Dice"] == [1, 1]


def test_the_command_resamples_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, groups = write_case(tmp_path, "one", 10, [1, 2, 3]), tmp_path / "groups.json"
    groups.write_text('{"p": "x", "q": "x", "r": "y"}')
    result = run(tmp_path, "--pred", one, "--bootstrap", "20", "--groups", str(groups))
    assert "20 bootstrap resamples of 2 groups" in capsys.readouterr().out
    assert (result["bootstrap"]["groups"], result["bootstrap"]["group_is_image"]) == (2, False)
    groups.write_text('{"p": "x", "q": "x"}')
    capsys.readouterr()
    with pytest.raises(InputError, match=r"groups\.json: r has no group"):
        run(tmp_path, "--pred", one, "--bootstrap", "20", "--groups", str(groups))
    assert capsys.readouterr().out == ""


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one, other = write_case(tmp_path, "one", 10, [1, 2, 3]), write_case(tmp_path, "other", 8, [1, 2, 3])
    with pytest.raises(InputError, match="--groups needs --bootstrap or --against"):
        run(tmp_path, "--pred", one, "--groups", "g.json")
    with pytest.raises(InputError, match="--bootstrap must be at least 1, got 0"):
        run(tmp_path, "--pred", one, "--bootstrap", "0")
    with pytest.raises(InputError, match=r"--radius must be at least 0\.5, got 0"):
        run(tmp_path, "--pred", one, "--radius", "0")
    with pytest.raises(InputError, match=r"--against .*missing\.json: no such file"):
        run(tmp_path, "--pred", one, "--against", str(tmp_path / "missing.json"))
    ids = json.loads((tmp_path / "other.id-map.json").read_text())
    (tmp_path / "other.id-map.json").write_text(json.dumps(ids[:2]))
    write_results(other, [])
    with pytest.raises(InputError, match=r"--against .*other\.json: its images are not those of .*one\.json"):
        run(tmp_path, "--pred", one, "--against", other)
    (tmp_path / "other.classes.json").write_text('[{"id": 1, "name": "x", "color": "#ff0000"}]')
    with pytest.raises(InputError, match=r"--against .*other\.json: its classes \(x\) are not those of"):
        run(tmp_path, "--pred", one, "--against", other)
    assert not (tmp_path / "out.json").exists()
