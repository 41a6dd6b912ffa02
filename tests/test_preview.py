from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset import draw_previews
from src.config.flags import build
from src.config.settings import PreviewConfig
from src.data.classes import HOMEWORK_CLASSES
from tests.helpers import TINY, write_dataset

pytestmark = pytest.mark.torch


def test_tiles_are_drawn_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "train", "ab")
    places = {"data_path": str(data), "preview": str(tmp_path / "tiles"), "cache_dir": str(tmp_path / "cache")}
    draw_previews(build(PreviewConfig, {**TINY, **places, "pictures": 3, "val_fraction": 0.0}))
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"wrote {tmp_path / 'tiles'}: 3 pictures")
    pictures = [cv2.imread(str(path)) for path in sorted((tmp_path / "tiles").glob("*.png"))]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.shape[1] == 4 * 128 + 3 * 8  # four panels of a tile of 64 px, twice as large
        panels = [picture[:128, start : start + 128] for start in range(0, 4 * 136, 136)]
        assert any(not np.array_equal(panels[0], panel) for panel in panels[1:])
        colors = [cell_class.rgb[::-1] for cell_class in HOMEWORK_CLASSES[:2]]  # outlines have that of their class
        assert any((picture[:128] == color).all(axis=-1).any() for color in colors)
