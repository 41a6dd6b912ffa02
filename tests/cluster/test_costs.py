"""The measurements of src.cohort, at a size that takes a second."""

from pathlib import Path

import pytest

from benchmarks.cohort_costs import print_nothing_to_do


def test_made_slides_look_finished_to_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.pt").write_text("weights")
    print_nothing_to_do(tmp_path, 3, ["--ckpt", str(tmp_path / "best.pt")])
    said = capfd.readouterr().out
    assert "0 to predict" in said and "3 finished slides" in said
