"""The notebook runs from its first cell to its last."""

import asyncio
from pathlib import Path

import nbclient
import nbformat
import pytest

import main
from src.config.flags import build
from src.config.settings import TrainConfig
from tests.helpers import TINY, write_dataset

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.torch
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_dataset(tmp_path / "train", "ab")
    places = {"data_path": str(data), "output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
    main.main(build(TrainConfig, {**TINY, "max_steps": 2, "val_every": 0, "val_fraction": 0.0, **places}))
    monkeypatch.setenv("CHECKPOINT", str(tmp_path / "run/best.pt"))
    monkeypatch.setenv("IMAGE", str(data / "a/image.tif"))
    notebook = nbformat.read(ROOT / "docs/predict.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # as it is committed
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}})
    asyncio.run(client.async_execute())
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "in an image of 96 x 80 px" in told and "epithelial" in told
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in output["data"] for output in shown)
