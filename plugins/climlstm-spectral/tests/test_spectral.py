"""The loss by hand, against its plain definition, and for what it is for: sharp forecasts."""

import numpy as np
import pytest
import torch
import xarray as xr
from climlstm_spectral.losses import AMSE
from climlstm_spectral.waves import total_spectra, zonal_spectra
from scipy.special import sph_harm_y

import climlstm.testing
from climlstm import plugins
from climlstm.errors import DataError, PluginError
from climlstm.grid import cell_area_weights
from climlstm.model.losses import MSE

torch.set_num_threads(1)

CHANNELS = ("t2m", "z500")
SHAPE = (4, 2, 2, 6, 16)


class TestAMSE(climlstm.testing.LossTests):
    loss = AMSE()


class TestAMSEBlended(climlstm.testing.LossTests):
    loss = AMSE(blend=0.5)


class TestZonal(climlstm.testing.LossTests):
    loss = AMSE(waves="zonal")


class TestFactorOfTheTruth(climlstm.testing.LossTests):
    loss = AMSE(waves="zonal", factor="truth")


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
    loss = AMSE(waves="zonal")(forecast, wave, weight=torch.ones(1, 3, 16), channels=("t2m",))
    if amplitude == 0:
        expected = 0.5 + 2 * 0.5  # no wave at all has no phase either
    assert loss.item() == pytest.approx(expected, rel=1e-4)


GRIDS = {
    "between the poles": 90 - (np.arange(24) + 0.5) * 180 / 24,
    "with the poles": np.linspace(90, -90, 25),
    "Gaussian": np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(24)[0][::-1])),
}


def area_weight(latitude, columns=48, factors=(1.0,)):
    area = cell_area_weights(xr.DataArray(latitude, dims="latitude")).values
    weight = torch.tensor(factors)[:, None, None] * torch.from_numpy(area).float()[:, None]
    return (weight / weight.mean()).expand(len(factors), latitude.size, columns)


def harmonics(latitude, columns=48):
    """Real harmonics of mean square 1, by (n, m), from SciPy."""
    theta = np.deg2rad(90 - latitude)[:, None]
    lam = np.arange(columns) * 2 * np.pi / columns

    def harmonic(n, m):
        factor = np.sqrt(4 * np.pi) * (np.sqrt(2) if m else 1.0)
        return torch.from_numpy(factor * sph_harm_y(n, m, theta, lam).real).float()

    return harmonic


@pytest.mark.parametrize("latitude", GRIDS.values(), ids=GRIDS.keys())
def test_harmonics_are_taken_apart_by_total_wavenumber(latitude):
    y = harmonics(latitude)
    forecast = (0.5 * y(3, 2) + 2.0 * y(7, 0) + y(20, 20))[None, None, None]
    truth = (1.5 * y(3, 2) + 1.0 * y(3, 1) + 0.5 * y(20, 4))[None, None, None]
    own, true, cross = (s[0, 0, 0] for s in total_spectra(forecast, truth, area_weight(latitude)))
    expected = torch.zeros(3, own.numel())
    expected[0, [3, 7, 20]] = torch.tensor([0.25, 4.0, 1.0])
    expected[1, [3, 20]] = torch.tensor([3.25, 0.25])
    expected[2, 3] = 0.75
    torch.testing.assert_close(torch.stack([own, true, cross]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("latitude", GRIDS.values(), ids=GRIDS.keys())
def test_it_is_the_published_formula(latitude):
    """Equation by hand on power and coherence that are known; two channels, one of them heavier."""
    y = harmonics(latitude)
    forecast = torch.stack([0.5 * y(3, 2) + 0.4 * y(9, 1), y(5, 5)])[None, None]
    truth = torch.stack([1.5 * y(3, 2) + y(3, 1), 0.5 * y(5, 5)])[None, None]
    weight = area_weight(latitude, factors=(1.0, 3.0))
    x, y_, cross = np.array([0.25, 0.16]), np.array([3.25, 0.0]), np.array([0.75, 0.0])
    coherence = np.array([0.75 / np.sqrt(0.25 * 3.25), 0.0])
    assert cross[0] == pytest.approx(coherence[0] * np.sqrt(x[0] * y_[0]))
    first = ((np.sqrt(x) - np.sqrt(y_)) ** 2 + 2 * np.maximum(x, y_) * (1 - coherence)).sum()
    second = (1 - 0.5) ** 2
    expected = (0.5 * first + 1.5 * second) / 2
    loss = AMSE()(forecast, truth, weight=weight, channels=CHANNELS)
    assert loss.item() == pytest.approx(expected, rel=0.01)  # areas are no exact quadrature


def test_cells_that_are_not_observed_change_nothing_of_how_areas_are_known():
    latitude = GRIDS["with the poles"]
    weight = area_weight(latitude, factors=(1.0, 2.0)).clone()
    weight[1, :5] = 0
    weight[0, 8:12, 3:20] = 0
    prediction, target = torch.randn(2, 1, 1, 2, 25, 48, generator=torch.Generator().manual_seed(5))
    target[:, :, 1, :5] = torch.nan
    value = AMSE()(prediction, target, weight=weight, channels=CHANNELS)
    assert torch.isfinite(value)
    assert value > MSE()(prediction, target, weight=weight, channels=CHANNELS)


def test_a_region_is_told_to_take_zonal_waves():
    latitude = np.arange(70.0, 30.0, -2.5)
    weight = area_weight(latitude)
    fields = torch.randn(2, 1, 1, 1, *weight.shape[1:])
    with pytest.raises(DataError, match="'waves' to 'zonal'"):
        AMSE()(*fields, weight=weight, channels=("t2m",))
    assert torch.isfinite(AMSE(waves="zonal")(*fields, weight=weight, channels=("t2m",)))


def foreseen_in_part(latitude, kept, samples=32):
    """Forecast, of which the truth shares kept(n) at total wavenumber n, each of power 1 / n²."""
    y, generator = harmonics(latitude), torch.Generator().manual_seed(2)
    fields = torch.zeros(2, samples, 1, 1, latitude.size, 48)
    for n in range(1, 20):
        for m in range(-n, n + 1):
            known, unknown = torch.randn(2, samples, 1, 1, 1, 1, generator=generator)
            wave = (
                y(n, abs(m)).roll(0 if m >= 0 else -int(48 / (4 * -m)), dims=-1)
                / (2 * n + 1) ** 0.5
                / n
            )
            fields[0] += known * wave
            fields[1] += (kept(n) * known + (1 - kept(n) ** 2) ** 0.5 * unknown) * wave
    return fields


@pytest.mark.parametrize(
    ("loss", "least", "most"),
    [
        (MSE(), 0.5, 0.66),
        (AMSE(), 0.72, 1.0),
        (AMSE(waves="zonal"), 0.7, 1.0),
        (AMSE(factor="truth"), 0.88, 1.04),
        (AMSE(waves="zonal", factor="truth"), 0.88, 1.04),
    ],
)
def test_where_squared_errors_blur_amplitudes_are_kept(loss, least, most):
    """A gain, best for a forecast that knows 60 % of each wave: MSE takes it for that of all."""
    known, truth = foreseen_in_part(GRIDS["between the poles"], lambda n: 0.6)
    weight = area_weight(GRIDS["between the poles"])

    gains = torch.linspace(0.3, 1.3, 101)
    costs = [loss(g * known, truth, weight=weight, channels=("t2m",)) for g in gains]
    assert least < gains[torch.stack(costs).argmin()] < most


def test_trained_forecasts_keep_the_power_of_small_scales():
    """Gains by zonal wavenumber, trained where phases are lost the sooner the shorter the wave."""
    known, truth = foreseen_in_part(GRIDS["between the poles"], lambda n: float(np.exp(-n / 8)))
    weight = area_weight(GRIDS["between the poles"])

    def power_ratio(loss):
        gain = torch.full((25,), 0.5, requires_grad=True)
        optimiser = torch.optim.Adam([gain], lr=0.03)
        for _ in range(100):
            forecast = torch.fft.irfft(torch.fft.rfft(known) * gain, n=48)
            optimiser.zero_grad()
            loss(forecast, truth, weight=weight, channels=("t2m",)).backward()
            optimiser.step()
        own, true, _ = (
            s.mean(dim=(0, 1, 2)) for s in total_spectra(forecast.detach(), truth, weight)
        )
        return (own / true)[[4, 8, 12, 16]]

    blurred, sharp, sharpest = map(power_ratio, (MSE(), AMSE(), AMSE(factor="truth")))
    assert (blurred < torch.tensor([0.55, 0.4, 0.3, 0.25])).all(), blurred
    assert (sharp > 0.55).all(), sharp
    assert (sharpest > 0.85).all(), sharpest
    assert (sharpest < 1.15).all(), sharpest


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [("amse", {"blend": 2}, "less than or equal to 1"), ("amse", {"blnd": 1}, "Did you mean")],
)
def test_options_are_validated(name, options, says):
    with pytest.raises(PluginError, match=says):
        plugins.check_options("losses", name, options)
