"""Ablations: variants are read right, trainings are shared, and what was measured is not measured again."""

import json
from pathlib import Path

import pytest

from benchmarks.ablations import __main__ as ablations
from benchmarks.ablations.__main__ import digest, is_about, parse_variant, table
from src.common.errors import InputError
from src.common.files import read_lines
from tests.helpers import TINY, write_dataset


def test_a_variant_by_hand() -> None:
    variant = parse_variant("big.1:anchors=8,16,32,64,128,loss_weights=box=2,mask=1,tta=flips,ema=0.5,whole_image=true")
    assert variant.name == "big.1"
    assert variant.training == {"anchors": "8,16,32,64,128", "loss_weights": "box=2,mask=1", "ema": 0.5}
    assert variant.prediction == {"tta": "flips", "whole_image": True}
    assert parse_variant("base:").settings == {}


@pytest.mark.parametrize("text", ["base", "a b:", "x:sise=3", "x:lr", "x:lr=fast", "x:tta=sideways", ":lr=1"])
def test_a_wrong_variant_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_variant(text)


def test_the_name_of_a_variant_does_not_matter() -> None:
    line = {"variant": "a", "settings": {"lr": 0.1}, "seed": 0, "AP": 0.5}
    assert is_about(line, {"variant": "b", "settings": {"lr": 0.1}, "seed": 0})
    assert not is_about(line, {"variant": "a", "settings": {"lr": 0.2}, "seed": 0})
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})


def test_table_by_hand() -> None:
    figures = dict.fromkeys(ablations.FIGURES, 0.5)
    lines = [
        {"variant": "a", **figures, "AP": ap, "AP50_per_class": {"1": ap, "2": None}, "images_per_s": 2}
        for ap in (0.1, 0.3)
    ]
    row = table(lines, ["a", "absent"]).splitlines()[-1]
    assert row.startswith("| a | 2 | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.200 ± 0.141 |")
    assert row.endswith("| 0.200 ± 0.141, - | 2.00 |")


@pytest.mark.torch
def test_variants_that_only_predict_share_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data/train", "abc")
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c"]}))
    (tmp_path / "classes.json").write_text(
        json.dumps([{"id": k, "name": f"class {k}", "color": "#ff0000"} for k in (1, 2)])
    )
    recipe = {**TINY, "cache_dir": str(tmp_path / "cache"), "max_minutes": 90.0}
    (tmp_path / "tiny.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.items()))
    arguments = [
        "--recipe",
        "tiny.toml",
        "--data-path",
        str(data),
        "--split",
        "split.json",
        "--max-steps",
        "1",
    ]
    arguments += [
        "--classes",
        "classes.json",
        "--log",
        "log.jsonl",
        "--variant",
        "base:",
        "--variant",
        "flips:tta=flips",
    ]
    monkeypatch.chdir(tmp_path)
    ablations.main(arguments)
    assert len(list((tmp_path / "runs/ablate").iterdir())) == 1
    lines = read_lines(tmp_path / "log.jsonl")
    assert [line["variant"] for line in lines] == ["base", "flips"] and all(line["steps"] == 1 for line in lines)
    assert str(tmp_path) not in (tmp_path / "log.jsonl").read_text()
    monkeypatch.setattr(ablations, "measure", None)  # nothing is left to measure
    capfd.readouterr()
    ablations.main(arguments)
    assert "| flips | 1 |" in capfd.readouterr().out
