import pytest
import torch

from climlstm import plugins
from climlstm.errors import PluginError
from climlstm.model.losses import CRPS, MAE, MSE, Huber

torch.set_num_threads(1)

CHANNELS = ("t2m", "msl")
SHAPE = (4, 2, 2, 6, 16)
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
    with pytest.raises(PluginError, match="delta"):
        plugins.create("losses", "huber", {"delta": -1})


@pytest.fixture
def fields():
    """Prediction and target (B, L, C, H, W), and a weight with cells that do not count."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, *SHAPE, generator=generator)
    weight = torch.rand(SHAPE[2:], generator=generator)
    weight[0, :2, 3] = 0
    return prediction, target, weight / weight.mean()


@pytest.mark.parametrize("fairness", [0.0, 0.95, 1.0])
def test_crps_is_its_definition_over_all_pairs(fields, fairness):
    _, target, weight = fields
    members = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))
    error = (members - target).abs().mean(dim=0)
    pairs = (members[:, None] - members[None]).abs().sum(dim=(0, 1)) / 2
    fair, plain = error - pairs / (5 * 4), error - pairs / 5**2
    wanted = (weight * (fairness * fair + (1 - fairness) * plain)).mean()
    found = CRPS(fairness=fairness)(members, target, weight=weight, channels=CHANNELS)
    torch.testing.assert_close(found, wanted)


def test_crps_of_one_forecast_is_the_absolute_error(fields):
    prediction, target, weight = fields
    wanted = MAE()(prediction, target, weight=weight, channels=CHANNELS)
    for given in (prediction, prediction[None]):
        found = CRPS()(given, target, weight=weight, channels=CHANNELS)
        torch.testing.assert_close(found, wanted)


def test_fair_crps_does_not_depend_on_the_number_of_members():
    generator = torch.Generator().manual_seed(4)
    target = torch.randn(4000, 1, 1, 2, 4, generator=generator)
    weight = torch.ones(1, 2, 4)

    def score(number, fairness):
        members = torch.randn(number, *target.shape, generator=generator)
        return CRPS(fairness=fairness)(members, target, weight=weight, channels=("t2m",)).item()

    perfect = 1 / torch.pi**0.5  # of a standard normal forecast and truth
    assert score(2, 1.0) == pytest.approx(perfect, rel=0.02)
    assert score(8, 1.0) == pytest.approx(perfect, rel=0.02)
    assert score(2, 0.0) == pytest.approx(1.5 * perfect, rel=0.02)


def test_members_of_an_ensemble_learn_where_the_target_is_known_only(fields):
    _, target, weight = fields
    target = torch.where(weight > 0, target, torch.nan)
    members = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5)).requires_grad_()
    CRPS()(members, target, weight=weight, channels=CHANNELS).backward()
    assert torch.isfinite(members.grad).all()
    assert not members.grad[..., 0, :2, 3].any()
    assert members.grad[..., 1, :, :].all()
