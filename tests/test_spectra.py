"""Power spectra: waves whose power is known, and forecasts that have lost some of it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.errors import DataError
from climlstm.evaluation.baselines import Persistence
from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.spectra import PowerSpectrum, power, wavelengths_km
from climlstm.testing import EvaluatorTests

LATITUDE, LONGITUDE = np.arange(75.0, -76, -15), np.arange(0.0, 360, 7.5)
STEP = np.timedelta64(6, "h")


class TestConformance(EvaluatorTests):
    evaluator = PowerSpectrum()


def waves(amplitudes, longitude=LONGITUDE):
    """Sum of waves round the Earth: wavenumber → amplitude."""
    turn = np.deg2rad(longitude)
    return sum(a * np.cos(k * turn + k) for k, a in amplitudes.items())


def test_a_wave_has_half_its_squared_amplitude_at_its_own_number():
    found = power(waves({3: 2.0, 10: 1.0}), periodic=True)
    np.testing.assert_allclose(found[[2, 9]], [2.0, 0.5])
    np.testing.assert_allclose(np.delete(found, [2, 9]), 0, atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("columns", [9, 10])
def test_power_adds_up_to_the_variance(periodic, columns):
    row = np.random.default_rng(0).standard_normal(columns)
    assert power(row, periodic=periodic).sum() == pytest.approx(row.var())


def test_a_slope_over_a_region_is_no_noise():
    """By Fourier transform its jump from end to end would have power k⁻²; here it falls as k⁻⁴."""
    found = power(np.linspace(0, 1, 64), periodic=False)
    assert found[30] < 1e-3 * found[2]  # 31 and 3: (31 / 3) ** -2 would be 1e-2
    assert wavelengths_km(np.array([0.0]), np.arange(0, 36.0))[0] == pytest.approx(8006, abs=1)


def test_wavelengths_are_those_of_the_circle_of_latitude():
    at_equator, at_60 = (wavelengths_km(np.array([phi]), LONGITUDE) for phi in (0.0, 60.0))
    assert at_equator[[0, 1]] == pytest.approx([40030, 20015], abs=1)
    np.testing.assert_allclose(at_60, at_equator / 2)


def weather(amplitudes, times):
    row = waves(amplitudes).astype("float32")
    values = np.broadcast_to(row, (len(times), LATITUDE.size, LONGITUDE.size))
    dims = ("time", "latitude", "longitude")
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset({"msl": (dims, 100 * values, {"units": "Pa"})}, coords)


@pytest.fixture
def table():
    """A forecast that keeps the long wave and a tenth of the short wave's power."""
    times = pd.date_range("2020-01-01", periods=9, freq="6h", unit="us")
    cube, smooth = (weather({2: 3.0, 20: short}, times) for short in (1.0, 10**-0.5))
    lead = np.array([1, 4]) * STEP
    forecast = smooth.isel(time=[0, 1]).rename(time="init_time").expand_dims(lead_time=lead)
    found = evaluate(
        forecast, cube, evaluators={"power_spectrum": PowerSpectrum()},
        climatology=None, baselines={"persistence": Persistence()},
    )  # fmt: skip
    return found.tables["power_spectrum"]


def test_the_table_tells_which_scale_is_lost(table):
    ours = table[(table["model"] == "forecast") & (table["lead_time"] == pd.Timedelta("1D"))]
    share = (ours["power"] / ours["true_power"]).where(ours["true_power"] > 1)
    assert share.iloc[1] == pytest.approx(1, rel=1e-5)  # wave 2
    circle = 40030 * np.cos(np.deg2rad([60, 45, 30])).mean()
    [short] = ours[share < 0.5].index
    assert share[short] == pytest.approx(0.1, rel=1e-4)
    assert ours["wavelength_km"][short] == pytest.approx(circle / 20, rel=0.06)
    assert set(ours["n"]) == {2}
    reference = table[table["model"] == "persistence"]
    np.testing.assert_allclose(reference["power"], reference["true_power"], atol=1e-6)


def test_the_picture_shows_the_table_in_readable_units(table):
    pytest.importorskip("cartopy")
    from climlstm.plots import plot_spectra

    figure = plot_spectra(table, "msl", model="forecast")
    upper, lower = figure.axes
    assert upper.get_title(loc="right") == "hPa²"
    truth, first, second = upper.get_lines()
    assert truth.get_ydata().max() == pytest.approx(4.5)  # 3² / 2 hPa²
    assert [line.get_label() for line in (first, second)] == ["+6 h", "+24 h"]
    assert len(lower.get_lines()) == 3
    assert upper.get_xlim()[0] > upper.get_xlim()[1]  # long waves on the left


def test_what_is_not_in_the_table_is_named(table):
    pytest.importorskip("cartopy")
    from climlstm.plots import plot_spectra

    with pytest.raises(DataError, match="Did you mean 'msl'"):
        plot_spectra(table, "mls")
    with pytest.raises(DataError, match="persistence"):
        plot_spectra(table, "msl", model="other")
    with pytest.raises(DataError, match="power_spectrum"):
        plot_spectra(table.drop(columns="power"), "msl")
