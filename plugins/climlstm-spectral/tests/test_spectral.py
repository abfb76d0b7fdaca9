"""The loss by hand, against its plain definition, and for what it is for: sharp forecasts."""

import pytest
import torch
from climlstm_spectral.losses import AMSE, zonal_spectra

import climlstm.testing
from climlstm import plugins
from climlstm.errors import PluginError
from climlstm.model.losses import MSE

torch.set_num_threads(1)

CHANNELS = ("t2m", "z500")
SHAPE = (4, 2, 2, 6, 16)


class TestAMSE(climlstm.testing.LossTests):
    loss = AMSE()


class TestAMSEBlended(climlstm.testing.LossTests):
    loss = AMSE(blend=0.5)


@pytest.fixture
def fields():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, *SHAPE, generator=generator)
    weight = torch.rand(SHAPE[2:], generator=generator)
    weight[0, :2, 3] = 0
    return prediction, target, weight / weight.mean()


@pytest.mark.parametrize("columns", [15, 16])
def test_spectra_sum_up_to_weighted_means_of_products(fields, columns):
    prediction, target, weight = (field[..., :columns] for field in fields)
    wanted = [
        (weight * a * b).mean(dim=(-2, -1))
        for a, b in ((prediction, prediction), (target, target), (prediction, target))
    ]
    for spectrum, mean in zip(zonal_spectra(prediction, target, weight), wanted, strict=True):
        torch.testing.assert_close(spectrum.sum(dim=-1), mean, atol=1e-5, rtol=1e-5)


def test_without_a_share_it_is_the_mean_squared_error(fields):
    prediction, target, weight = fields
    found = AMSE(blend=0)(prediction, target, weight=weight, channels=CHANNELS)
    torch.testing.assert_close(found, MSE()(prediction, target, weight=weight, channels=CHANNELS))


@pytest.mark.parametrize(
    ("amplitude", "shift", "expected"),
    [(0.5, 0, 0.5**2 / 2), (1.0, 4, 2 / 2), (0.0, 0, 0.5), (0.5, 4, (0.25 + 2) / 2)],
)
def test_amplitude_and_phase_of_one_wave_by_hand(amplitude, shift, expected):
    """Waves cos(m λ): of power 1/2, a quarter of a turn apart with no coherence."""
    wave = torch.cos(torch.arange(16) * 2 * torch.pi / 16).expand(1, 1, 1, 3, 16)
    forecast = amplitude * wave.roll(shift, dims=-1)
    loss = AMSE()(forecast, wave, weight=torch.ones(1, 3, 16), channels=("t2m",))
    if amplitude == 0:
        expected = 0.5 + 2 * 0.5  # no wave at all has no phase either
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_best_amplitude_is_the_true_one_and_not_that_of_the_mean():
    """A truth of which a forecast knows a part: MSE shrinks each wave to what can be foreseen."""
    generator = torch.Generator().manual_seed(1)
    known, unknown = torch.randn(2, 32, 1, 1, 24, 32, generator=generator)
    share = 0.6
    truth = share * known + (1 - share**2) ** 0.5 * unknown
    weight = torch.ones(1, 24, 32)

    def best_gain(loss):
        gains = torch.linspace(0.3, 1.3, 101)
        costs = [loss(g * known, truth, weight=weight, channels=("t2m",)) for g in gains]
        return gains[torch.stack(costs).argmin()].item()

    assert best_gain(MSE()) == pytest.approx(share, abs=0.03)
    assert best_gain(AMSE()) == pytest.approx(1.0, abs=0.03)


def test_trained_forecasts_keep_the_power_of_small_scales():
    """A filter, trained on waves whose phase is lost the sooner the shorter they are."""
    generator = torch.Generator().manual_seed(2)
    known, unknown = torch.randn(2, 32, 1, 1, 24, 32, generator=generator)
    number = torch.arange(17)
    kept = torch.exp(-number / 8.0)
    mixed = torch.fft.rfft(known) * kept + torch.fft.rfft(unknown) * (1 - kept**2).sqrt()
    truth = torch.fft.irfft(mixed, n=32)
    weight = torch.ones(1, 24, 32)

    def power_ratio(loss):
        gain = torch.full((17,), 0.5, requires_grad=True)
        optimiser = torch.optim.Adam([gain], lr=0.03)
        for _ in range(150):
            forecast = torch.fft.irfft(torch.fft.rfft(known) * gain, n=32)
            optimiser.zero_grad()
            loss(forecast, truth, weight=weight, channels=("t2m",)).backward()
            optimiser.step()
        own, true, _ = zonal_spectra(forecast.detach(), truth, weight)
        return (own.mean(dim=(0, 1, 2)) / true.mean(dim=(0, 1, 2)))[1:16]

    blurred, sharp = power_ratio(MSE()), power_ratio(AMSE())
    torch.testing.assert_close(blurred, kept[1:16] ** 2, atol=0.08, rtol=0.1)
    assert (sharp > 0.85).all()
    assert (sharp < 1.15).all()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [("amse", {"blend": 2}, "less than or equal to 1"), ("amse", {"blnd": 1}, "Did you mean")],
)
def test_options_are_validated(name, options, says):
    with pytest.raises(PluginError, match=says):
        plugins.check_options("losses", name, options)
