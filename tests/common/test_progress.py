import pytest

from src.common import progress
from src.common.progress import ProgressBar


def test_without_a_terminal_lines_tell_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    bar = ProgressBar("abcd", "read images")
    seen = []
    for letter in bar:
        seen.append(letter)
        bar.show(loss="1.25", left="0:07")
    assert seen == list("abcd")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "read images: 2 of 4 images (50%), loss 1.25, left 0:07" and len(lines) == 4


def test_short_tasks_and_hidden_ones_print_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(ProgressBar("abcd", "read images")) == list("abcd")
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    assert list(ProgressBar(iter("abcd"), "read images", hidden=True)) == list("abcd")
    assert capsys.readouterr().out == ""


def test_items_without_a_number_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    assert len(list(ProgressBar(iter("ab"), "predict"))) == 2
    assert capsys.readouterr().out.splitlines() == ["predict: 1 image", "predict: 2 images"]


def test_the_unit_has_its_plural(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    assert len(list(ProgressBar("ab", "epoch 0", unit="batch"))) == 2
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 0: 1 of 2 batches (50%)",
        "epoch 0: 2 of 2 batches (100%)",
    ]
