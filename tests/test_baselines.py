import pytest
import torch

from climlstm.model.baselines import CNN, LSTM
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.geometry import Geometry

torch.set_num_threads(1)

GLOBE = Geometry(4, 8, periodic=True, north_pole=True, south_pole=True)
GENERATOR = torch.Generator().manual_seed(0)
HISTORY = torch.randn(2, 3, 2, 4, 8, generator=GENERATOR)
FORCING = torch.randn(2, 6, 2, 4, 8, generator=GENERATOR)
SMALL = {LSTM: {"hidden": 5, "coarsen": 3}, CNN: {"hidden": 4, "blocks": 2}}


def make(kind: type, *, trained: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    network = kind(2, 1, 1, history=3, geometry=GLOBE, **SMALL[kind])
    if trained:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.3)
    return network


def forecast(network, history, forcing) -> torch.Tensor:
    return torch.stack(list(network.steps(history, forcing)), dim=1)


@pytest.mark.parametrize("kind", [LSTM, CNN])
def test_untrained_baseline_forecasts_persistence(kind):
    prediction = forecast(make(kind, trained=False), HISTORY, FORCING)
    assert torch.equal(prediction, HISTORY[:, -1:].expand(-1, 4, -1, -1, -1))


@pytest.mark.parametrize("kind", [LSTM, CNN])
def test_first_prediction_depends_on_the_whole_history_and_not_on_later_forcing(kind):
    history, forcing = HISTORY.clone().requires_grad_(), FORCING.clone().requires_grad_()
    next(make(kind, trained=True).steps(history, forcing)).sum().backward()
    assert (history.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    used = (forcing.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).tolist()
    assert used[2:] == [True, False, False, False]


@pytest.mark.parametrize("kind", [LSTM, CNN])
def test_every_weight_learns(kind):
    network = make(kind, trained=True)
    forecast(network, HISTORY, FORCING).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("kind", [LSTM, CNN])
def test_tendency_scale_sets_the_size_of_a_step(kind):
    network = make(kind, trained=True)
    change = next(network.steps(HISTORY, FORCING)) - HISTORY[:, -1]
    network.head.scale.fill_(0.5)
    half = next(network.steps(HISTORY, FORCING)) - HISTORY[:, -1]
    torch.testing.assert_close(half, change / 2, atol=1e-6, rtol=1e-4)


def test_shifting_the_globe_shifts_the_forecast_of_the_cnn():
    network = make(CNN, trained=True)
    shifted = forecast(network, HISTORY.roll(3, dims=-1), FORCING.roll(3, dims=-1))
    torch.testing.assert_close(shifted, forecast(network, HISTORY, FORCING).roll(3, dims=-1))


def test_defaults_have_about_as_many_weights_as_the_convlstm():
    geometry = Geometry(32, 64, periodic=True, north_pole=True, south_pole=True)
    sizes = [
        sum(p.numel() for p in kind(6, 2, 2, history=4, geometry=geometry).parameters())
        for kind in (ConvLSTM, LSTM, CNN)
    ]
    assert max(sizes) < 1.25 * min(sizes), sizes


@pytest.mark.parametrize("kind", [LSTM, CNN])
def test_bfloat16_is_close_to_float32(kind):
    exact = make(kind, trained=True)
    rounded = kind(2, 1, 1, history=3, geometry=GLOBE, precision=torch.bfloat16, **SMALL[kind])
    rounded.load_state_dict(exact.state_dict())
    prediction = forecast(rounded, HISTORY, FORCING)
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, forecast(exact, HISTORY, FORCING), atol=0.1, rtol=0.1)
