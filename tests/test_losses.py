import pytest
import torch

from climlstm import plugins
from climlstm.model.losses import MAE, MSE, Huber

torch.set_num_threads(1)

CHANNELS = ("t2m", "msl")
ALIKE = torch.ones(2, 1, 2)
PREDICTION = torch.tensor([0.0, 2.0, 1.0, -1.0]).reshape(1, 1, 2, 1, 2)
TARGET = torch.tensor([0.0, -1.0, 1.0, -1.5]).reshape(1, 1, 2, 1, 2)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (MSE(), (3.0**2 + 0.5**2) / 4),
        (MAE(), 3.5 / 4),
        (Huber(), (2.5 + 0.5**2 / 2) / 4),
        (Huber(delta=2.0), (2 * (3 - 1) + 0.5**2 / 2) / 4),
    ],
    ids=str,
)
def test_loss_of_errors_0_3_0_and_a_half(loss, expected):
    assert loss(PREDICTION, TARGET, weight=ALIKE, channels=CHANNELS).item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("loss", [MSE(), MAE(), Huber()], ids=str)
def test_weight_says_how_much_a_cell_counts(loss):
    half = torch.tensor([1.0, 1.0, 2.0, 0.0]).reshape(2, 1, 2)
    only_the_second = torch.tensor([0.0, 4.0, 0.0, 0.0]).reshape(2, 1, 2)
    by_cell = [
        loss(PREDICTION, TARGET, weight=4 * one.reshape(2, 1, 2), channels=CHANNELS)
        for one in torch.eye(4)
    ]
    weighed = loss(PREDICTION, TARGET, weight=half, channels=CHANNELS)
    torch.testing.assert_close(weighed, (by_cell[0] + by_cell[1] + 2 * by_cell[2]) / 4)
    torch.testing.assert_close(
        loss(PREDICTION, TARGET, weight=only_the_second, channels=CHANNELS), by_cell[1]
    )


@pytest.mark.parametrize("loss", [MSE(), MAE(), Huber()], ids=str)
def test_missing_target_of_no_weight_counts_for_nothing(loss):
    target = TARGET.clone()
    target[..., 1] = torch.nan
    prediction = (PREDICTION + 1).requires_grad_()
    weight = torch.tensor([2.0, 0.0, 2.0, 0.0]).reshape(2, 1, 2)
    value = loss(prediction, target, weight=weight, channels=CHANNELS)
    value.backward()
    assert value.item() > 0
    assert torch.equal(prediction.grad[..., 1], torch.zeros(1, 1, 2, 1))
    assert (prediction.grad[..., 0] > 0).all()


@pytest.mark.parametrize("loss", [MSE(), MAE(), Huber()], ids=str)
def test_missing_target_that_counts_is_seen(loss):
    target = TARGET.clone()
    target[..., 1] = torch.nan
    assert loss(PREDICTION, target, weight=ALIKE, channels=CHANNELS).isnan()


def test_options_are_validated_at_the_door():
    assert plugins.create("losses", "huber", {"delta": 2}) == Huber(delta=2.0)
    with pytest.raises(plugins.PluginError, match="delta"):
        plugins.create("losses", "huber", {"delta": -1})
