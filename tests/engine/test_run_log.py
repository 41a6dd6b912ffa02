import pytest
import torch

from src.common.errors import InputError
from src.engine.run_log import StepLosses

pytestmark = pytest.mark.torch


def test_losses_are_read_as_numbers() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    values = {"loss": weight * 1.5, "mask": torch.tensor(0.123456), "grad_norm": torch.tensor(float("inf"))}
    assert StepLosses(values, 3, ["a"]).read() == {"loss": 3.0, "mask": 0.12346, "grad_norm": -1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    values = {"loss": torch.tensor(value), "mask": torch.tensor(value)}
    with pytest.raises(
        InputError, match=rf"step 3: the loss is not finite \(loss {value:g}, mask {value:g}\); tiles: a; b"
    ):
        StepLosses(values, 3, ["a", "b"]).read()
