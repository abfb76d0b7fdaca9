"""Advection through the door of baselines."""

import numpy as np
import pytest
import xarray as xr
from climlstm_nowcast.advection import carry, decibel, motion
from climlstm_nowcast.baselines import Advection, PySTEPS
from climlstm_nowcast.synthetic import rain_film

from climlstm.errors import DataError
from climlstm.testing import BaselineTests

MINUTES = np.timedelta64(1, "m")


class TestAdvection(BaselineTests):
    baseline = Advection(channel="t2m", edges="rim")


def past_of(film, start):
    """Three frames up to a start, as an evaluation hands them on."""
    leads = np.arange(-2, 1) * 6 * MINUTES
    past = film[["rain_rate"]].isel(time=slice(start - 2, start + 1)).drop_vars("time")
    return past.rename(time="lead_time").assign_coords(lead_time=leads)


def test_it_is_the_motion_and_the_carrying():
    film = rain_film(8, seed=1)
    made = Advection().forecast(past_of(film, 4), np.array([12, 18]) * MINUTES)
    frames = film.rain_rate.values[2:5].astype("float64")
    flow = motion(decibel(frames))
    expected = carry(frames[-1], flow, [2, 3], outside=0.0)
    np.testing.assert_allclose(made.rain_rate, expected, rtol=1e-6)
    assert made.rain_rate.dims == ("lead_time", "y", "x")


def test_it_is_better_than_persistence_on_rain_that_moves():
    film = rain_film(60, seed=2)
    advected = still = 0.0
    for start in (5, 20, 35, 50):
        made = Advection().forecast(past_of(film, start), np.array([24]) * MINUTES)
        truth = film.rain_rate.values[start + 4]
        advected += float(((made.rain_rate[0] - truth) ** 2).mean())
        still += float(((film.rain_rate.values[start] - truth) ** 2).mean())
    assert advected < 0.8 * still


def test_lead_times_between_frames_are_refused():
    with pytest.raises(DataError, match="no multiples"):
        Advection().forecast(past_of(rain_film(5), 3), np.array([9]) * MINUTES)


def test_a_forecast_without_rain_names_the_option():
    past = past_of(rain_film(5), 3).rename(rain_rate="other")
    with pytest.raises(DataError, match="Name one with the option 'channel'"):
        Advection().forecast(past, np.array([6]) * MINUTES)
    made = Advection(channel="other").forecast(past, np.array([6]) * MINUTES)
    assert isinstance(made, xr.Dataset)


@pytest.mark.parametrize("method", ["extrapolation", "sprog"])
def test_pysteps_forecasts_through_the_same_door(method):
    pytest.importorskip("pysteps")
    film = rain_film(8, seed=1)
    made = PySTEPS(method=method).forecast(past_of(film, 4), np.array([6, 12]) * MINUTES)
    assert made.rain_rate.shape == (2, 64, 64)
    assert np.isfinite(made.rain_rate).all()
    own = Advection().forecast(past_of(film, 4), np.array([6, 12]) * MINUTES)
    assert (
        np.corrcoef(made.rain_rate[0].values.ravel(), own.rain_rate[0].values.ravel())[0, 1] > 0.8
    )


def test_pysteps_tells_where_air_comes_from_outside():
    pytest.importorskip("pysteps")
    past, leads = past_of(rain_film(8, seed=1), 4), np.array([60]) * MINUTES
    dry, unknown = (
        PySTEPS(edges=edges).forecast(past, leads).rain_rate for edges in ("dry", "unknown")
    )
    assert 0 < int(unknown.isnull().sum()) < unknown.size
    np.testing.assert_array_equal(unknown.fillna(0.0), dry)
