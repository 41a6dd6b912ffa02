"""In regions to ignore no anchor and no proposal is background; cells in them are learned."""

import numpy as np
import pytest
import torch

from model import build_model
from src.config.flags import build
from src.config.settings import TrainConfig
from src.network.sampling import leave_out_ignored
from src.network.weights import resolve
from tests.helpers import TINY

pytestmark = pytest.mark.torch


def test_background_is_left_out_where_more_than_half_of_it_is_ignored() -> None:
    ignored = torch.zeros(20, 30, dtype=torch.bool)
    ignored[5:15, 10:20] = True
    boxes = torch.tensor(
        [[10, 5, 20, 15], [0, 5, 15, 15], [6, 5, 16, 15], [4, 5, 14, 15], [25, 0, 30, 5], [-50, -50, -40, -40]]
    ).float()
    labels = torch.tensor([0, 0, 0, 0, 0, 0])
    assert leave_out_ignored(labels, boxes, {"ignored": ignored}).tolist() == [-1, 0, -1, 0, 0, 0]
    assert leave_out_ignored(torch.tensor([3, -1, 0, 1, 0, 0]), boxes, {"ignored": ignored}).tolist() == [
        3,
        -1,
        -1,
        1,
        0,
        0,
    ]
    assert leave_out_ignored(labels, boxes, {}) is labels


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_counted_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ignored = rng.random((24, 31)) < 0.5
    low = rng.integers(-5, 25, (200, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 12, (200, 2))], axis=1)
    wanted = []
    for left, top, right, bottom in boxes.clip(0).tolist():
        window = ignored[top:bottom, left:right]
        wanted.append(-1 if window.size and 2 * window.sum() > window.size else 0)
    labels = torch.zeros(200, dtype=torch.int64)
    found = leave_out_ignored(labels, torch.from_numpy(boxes).float(), {"ignored": torch.from_numpy(ignored)})
    assert found.tolist() == wanted


def target(cells: bool, ignored: bool) -> dict[str, torch.Tensor]:
    """A tile of 64 px with one cell or none, all of it a region to ignore or nothing."""
    label_map = torch.zeros(1, 64, 64, dtype=torch.int32)
    label_map[0, 20:40, 20:40] = int(cells)
    count = int(cells)
    found = {
        "boxes": torch.tensor([[20.0, 20, 40, 40]])[:count],
        "labels": torch.ones(count, dtype=torch.int64),
        "label_map": label_map,
        "layers": torch.zeros(count, dtype=torch.int64),
        "ids": torch.ones(count, dtype=torch.int64),
    }
    return {**found, "ignored": torch.ones(64, 64, dtype=torch.bool)} if ignored else found


@pytest.mark.parametrize("cells", [False, True])
def test_a_step_on_regions_alone_is_finite_and_learns_no_background(cells: bool) -> None:
    torch.manual_seed(0)
    config = build(TrainConfig, TINY)
    network = build_model(resolve(config.model, 20.0), 2).train()
    tiles = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    losses = network(tiles, [target(cells, True), target(cells, True)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    if not cells:  # there is nothing to learn
        assert all(loss.item() == 0 for loss in losses.values())
        assert network(tiles, [target(False, False)] * 2)["objectness"].item() > 0
