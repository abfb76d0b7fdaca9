"""The climate of long rollouts, against sums that numpy makes of the whole."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from climlstm_climate import sums
from climlstm_climate.climate import Climate

from climlstm.evaluation.evaluate import evaluate
from climlstm.testing import EvaluatorTests

DIMS = ("time", "latitude", "longitude")
LATITUDE, LONGITUDE = np.linspace(75, -75, 6), np.arange(0.0, 360.0, 30.0)
DAY = np.timedelta64(1, "D")


class TestClimate(EvaluatorTests):
    evaluator = Climate()


def weather(steps, *, seed=0, trend=0.0, offset=0.0, size=1.0, start="2001-01-01"):
    """Days of noise on a pattern, with a trend in K a year."""
    generator = np.random.default_rng(seed)
    days = np.arange(steps)
    pattern = 10 * np.cos(np.deg2rad(LATITUDE))[:, None] + np.zeros(LONGITUDE.size)
    noise = size * generator.normal(0, 1, (steps, LATITUDE.size, LONGITUDE.size))
    values = 280 + offset + pattern + noise + trend * (days / 365.2425)[:, None, None]
    coords = {"time": np.datetime64(start, "ns") + days * DAY}
    coords |= {"latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset({"t2m": (DIMS, values.astype("float32"), {"units": "K"})}, coords)


def rollout(fields):
    """A cube as one forecast whose first lead is its second step."""
    init = fields.time.values[0]
    one = fields.isel(time=slice(1, None)).rename(time="lead_time")
    one = one.assign_coords(lead_time=one.lead_time.values - init)
    return one.expand_dims(init_time=[init])


def scored(forecast, truth, **options):
    found = evaluate(
        forecast, truth, evaluators={"climate": Climate(**options)}, climatology=None, baselines={}
    )
    table = found.tables["climate"]
    return table[table["variable"] == "t2m"].set_index("quantity"), found


def test_sums_in_blocks_are_those_of_the_whole(monkeypatch):
    fields = weather(800, trend=0.5)["t2m"]
    monkeypatch.setattr(sums, "BLOCK_BYTES", 7 * 4 * 72)
    found, blown = sums.summed(fields, "time")
    x = fields.values.astype("float64")
    years = np.arange(800) / 365.2425
    assert blown is None
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, x.var(axis=0), rtol=1e-6)
    slope = np.polyfit(years, x.reshape(800, -1), 1)[0].reshape(6, 12)
    np.testing.assert_allclose(found.trend, slope, rtol=1e-6)
    eddy = x - x.mean(axis=2, keepdims=True)
    rows = found.area.mean(axis=1) / found.area.mean(axis=1).sum()
    assert found.spectrum.sum() == pytest.approx(((eddy**2).mean(axis=(0, 2)) * rows).sum())


def test_the_same_climate_differs_by_no_more_than_its_noise():
    """Another realisation of the same climate: bias and map within what halves of truth differ."""
    table, _ = scored(rollout(weather(1461, seed=1)), weather(1461))
    for name in ("bias", "map_rmse", "zonal_rmse"):
        assert abs(table.loc[name, "forecast"]) < 3 * table.loc[name, "noise"] + 0.02
    for name in ("variance_ratio", "wave_variance_ratio", "small_scale_ratio"):
        assert table.loc[name, "forecast"] == pytest.approx(1, abs=0.05)
    assert np.isnan(table.loc["blow_up_step", "forecast"])


def test_bias_trend_and_variance_are_found():
    """2 K too warm at the start, 1 K a year warmer, with waves half as high."""
    truth = weather(1461)
    table, _ = scored(rollout(weather(1461, seed=1, offset=2, trend=1, size=0.5)), truth)
    assert table.loc["bias", "forecast"] == pytest.approx(2 + 2, abs=0.05)
    assert table.loc["trend_per_decade", "forecast"] == pytest.approx(10, abs=0.1)
    assert table.loc["drift", "forecast"] == pytest.approx(3, abs=0.05)
    assert table.loc["wave_variance_ratio", "forecast"] == pytest.approx(0.25, abs=0.02)
    assert table.loc["years", "forecast"] == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("kind", ["waves", "nan"])
def test_the_step_of_a_blow_up_is_named_and_ends_the_sums(kind):
    """From step 300 on waves double each day, from 3 K: above 5 times the truth's after a few."""
    fields = weather(800, seed=1)
    broken = fields["t2m"].values.copy()
    if kind == "nan":
        broken[301, 2, 3] = np.nan
    else:
        waves = np.cos(np.deg2rad(LONGITUDE)) * 3 * 2.0 ** np.arange(20)[:, None, None]
        broken[300:320] += waves.astype("float32")
        broken[320:] = np.inf
    table, _ = scored(rollout(fields.assign(t2m=(DIMS, broken, {"units": "K"}))), weather(1461))
    step = table.loc["blow_up_step", "forecast"]
    assert step == 301 if kind == "nan" else 300 < step < 306
    assert table.loc["years", "forecast"] == pytest.approx(step / 365.2425, abs=0.02)
    assert table.loc["bias", "forecast"] == pytest.approx(0, abs=0.2)


def test_a_rollout_beyond_the_data_needs_no_truth_at_its_times():
    late = rollout(weather(500, seed=2, start="2051-01-01"))
    table, _ = scored(late, weather(800))
    assert table.loc["bias", "forecast"] == pytest.approx(0, abs=0.1)


def test_memory_does_not_grow_with_the_years():
    """Ten times as many steps take no more than the numbers of each step's means."""

    def peak(steps):
        lazy = da.random.default_rng(0).normal(size=(steps, 60, 120), chunks=(20, 60, 120))
        coords = {"time": np.datetime64("2001-01-01", "ns") + np.arange(steps) * DAY}
        coords |= {"latitude": np.linspace(89, -89, 60), "longitude": np.arange(0, 360, 3.0)}
        array = xr.DataArray(lazy, coords, DIMS)
        tracemalloc.start()
        sums.summed(array, "time")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    sums_bytes = sums.BLOCK_BYTES
    sums.BLOCK_BYTES = 40 * 4 * 60 * 120
    try:
        short, long = peak(100), peak(1000)
    finally:
        sums.BLOCK_BYTES = sums_bytes
    assert long < short + 1000 * 500 + 2e6


def test_land_is_left_out_and_figures_and_files_are_made(tmp_path):
    pytest.importorskip("matplotlib")
    land = xr.DataArray(np.arange(12) < 3, {"longitude": LONGITUDE}, dims="longitude")
    own, truth = (weather(800, seed=seed).where(~land) for seed in (1, 0))
    for fields in (own, truth):
        fields["t2m"].attrs["units"] = "K"
    table, found = scored(rollout(own), truth)
    assert np.isfinite(table.loc["bias", "forecast"])
    assert np.isnan(table.loc["blow_up_step", "forecast"])
    titles = list(found.figures["climate"]())
    assert titles[0] == "Bias of the time mean"
    assert len(titles) == 4
    [path] = found.writers["climate"](tmp_path)
    assert path.stat().st_size > 1000
