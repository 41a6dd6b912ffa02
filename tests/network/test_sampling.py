"""What a step learns from: as many as asked for, of the right kind, at random."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher

from src.network.sampling import BalancedSampler, LowQualityMatcher, draw

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("positive", "negative", "drawn"),
    [(50, 500, (16, 48)), (5, 500, (5, 59)), (50, 10, (16, 10)), (0, 500, (0, 64)), (3, 0, (3, 0)), (0, 0, (0, 0))],
)
def test_a_tile_gives_as_many_as_asked_for_and_not_too_many_positive(
    positive: int, negative: int, drawn: tuple[int, int]
) -> None:
    labels = torch.cat([torch.full((positive,), 3), torch.zeros(negative, dtype=torch.int64), torch.full((20,), -1)])
    labels = labels[torch.randperm(len(labels))]
    (positives,), (negatives,) = BalancedSampler(64, 0.25)([labels])
    assert (int(positives.sum()), int(negatives.sum())) == drawn
    assert (labels[positives] > 0).all() and (labels[negatives] == 0).all()


def test_draws_are_uniform_and_repeat_with_their_seed() -> None:
    candidates = torch.tensor([True, False, True, True, False, True])
    torch.manual_seed(0)
    counts = torch.stack([draw(candidates, 2) for _ in range(4000)]).sum(dim=0)
    assert counts[~candidates].sum() == 0 and counts.sum() == 8000
    assert ((counts[candidates] - 2000).abs() < 150).all()  # 2,000 each; one standard deviation is 32
    torch.manual_seed(0)
    first = draw(candidates, 2)
    torch.manual_seed(0)
    assert torch.equal(first, draw(candidates, 2))
    assert int(draw(candidates, 3, torch.tensor(1)).sum()) == 1 and draw(candidates[:0], 3).shape == (0,)


def test_each_object_keeps_its_best_anchors_as_in_torchvision() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        quality = (torch.rand(6, 40) * 20).round() / 20  # with ties
        ours, theirs = LowQualityMatcher(0.7, 0.3)(quality), Matcher(0.7, 0.3, allow_low_quality_matches=True)(quality)
        assert torch.equal(ours, theirs)
