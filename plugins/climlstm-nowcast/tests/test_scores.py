"""Evaluators: counts, fractions and spectra, against the package `scores` and by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_nowcast.categorical import SCORES, Categorical
from climlstm_nowcast.fss import FSS, shares
from climlstm_nowcast.spectrum import RadialSpectrum, band_power
from climlstm_nowcast.synthetic import Rain, rain_film

from climlstm.errors import DataError, PluginError
from climlstm.plugins import create
from climlstm.testing import EvaluatorTests

LEADS = np.array([6, 12], "timedelta64[m]")


def pair(*, seed=0, missing=0.0, rows=20, columns=24):
    """Forecast and truth of one start on a small grid of about 5 km, and equal weights."""
    generator = np.random.default_rng(seed)
    shape = (2, rows, columns)
    rain = generator.gamma(0.4, 3.0, shape)
    forecast = rain * generator.uniform(0.4, 1.6, shape)
    rain[generator.random(shape) < missing] = np.nan
    coords = {
        "lead_time": LEADS,
        "latitude": np.linspace(0.45, -0.45, rows),
        "longitude": np.linspace(10, 11, columns),
        "init_time": np.datetime64("2024-05-01", "ns"),
    }
    dims = ("lead_time", "latitude", "longitude")
    one = {"units": "mm h-1"}
    made = [xr.Dataset({"rain_rate": (dims, field, one)}, coords) for field in (forecast, rain)]
    weight = xr.DataArray(
        np.full((1, rows, columns), 1 / (rows * columns)),
        dims=("region", "latitude", "longitude"),
        coords={"region": ["global"]},
    )
    return (*made, weight)


def table_of(evaluator, number=3, **options):
    """Summary over several starts, with the pairs that it comes from."""
    pairs = [pair(seed=seed, **options) for seed in range(number)]
    tables = []
    for day, (forecast, truth, weight) in enumerate(pairs):
        start = np.datetime64("2024-05-01", "ns") + np.timedelta64(day, "D")
        moved = [each.assign_coords(init_time=start) for each in (forecast, truth)]
        tables.append(evaluator.score(*moved, weight=weight))
    return evaluator.summarise(pd.concat(tables, ignore_index=True)), pairs


NAMES = {
    "csi": "critical_success_index",
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "frequency_bias": "frequency_bias",
    "hss": "heidke_skill_score",
    "ets": "equitable_threat_score",
}


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_categorical_scores_are_those_of_the_package_scores(missing):
    categorical = pytest.importorskip("scores.categorical")
    table, pairs = table_of(Categorical(thresholds=(0.5, 4.0)), missing=missing)
    forecast = xr.concat([p[0].rain_rate for p in pairs], "start")
    truth = xr.concat([p[1].rain_rate for p in pairs], "start")
    for limit in (0.5, 4.0):
        event = categorical.ThresholdEventOperator(default_event_threshold=limit)
        manager = event.make_contingency_manager(forecast, truth).transform(
            preserve_dims="lead_time"
        )
        for name in SCORES:
            ours = table[table["metric"] == f"{name}_{limit:g}"].set_index("lead_time")["value"]
            theirs = getattr(manager, NAMES[name])()
            np.testing.assert_allclose(ours.loc[LEADS], theirs.values, rtol=1e-12)


def test_counts_are_pooled_before_they_are_divided():
    """A dry frame, in which no ratio exists, changes the bias by its false alarms alone."""
    forecast, truth, weight = pair()
    dry = truth * 0
    evaluator = Categorical(thresholds=(0.5,))
    later = forecast.assign_coords(init_time=forecast.init_time + np.timedelta64(1, "D"))
    both = [
        evaluator.score(forecast, truth, weight=weight),
        evaluator.score(later, dry, weight=weight),
    ]
    table = evaluator.summarise(pd.concat(both, ignore_index=True)).set_index(
        ["metric", "lead_time"]
    )
    said = (forecast.rain_rate >= 0.5).sum(["latitude", "longitude"])
    came = (truth.rain_rate >= 0.5).sum(["latitude", "longitude"])
    np.testing.assert_allclose(
        table.loc["frequency_bias_0.5", "value"].loc[LEADS], 2 * said / came, rtol=1e-12
    )


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_fractions_skill_score_is_roberts_and_leans(missing):
    """By plain loops over windows; missing cells are in no share and in no sum."""
    table, pairs = table_of(FSS(thresholds=(2.0,), windows_km=(16.0,)), number=2, missing=missing)
    half = 1  # 16 km are three cells of about five
    error = worst = np.zeros(2)
    for forecast, truth, _ in pairs:
        f, o = forecast.rain_rate.values, truth.rain_rate.values
        known = np.isfinite(o)
        for row, column in np.ndindex(*f.shape[1:]):
            top, left = max(row - half, 0), max(column - half, 0)
            window = (slice(None), slice(top, row + half + 1), slice(left, column + half + 1))
            count = known[window].sum((1, 2))
            share = [((g[window] >= 2) & known[window]).sum((1, 2)) / count for g in (f, o)]
            inside = known[:, row, column]
            error = error + inside * (share[0] - share[1]) ** 2
            worst = worst + inside * (share[0] ** 2 + share[1] ** 2)
    ours = table.set_index("lead_time")["value"].loc[LEADS]
    np.testing.assert_allclose(ours, 1 - error / worst, rtol=1e-10)


def test_fractions_skill_score_is_that_of_the_package_scores_where_windows_are_whole():
    """`scores` fills windows at the rim with zeros, so the rim is kept dry here."""
    spatial = pytest.importorskip("scores.spatial")
    forecast, truth, weight = pair()
    for field in (forecast, truth):
        inner = np.zeros(field.rain_rate.shape, bool)
        inner[:, 3:-3, 3:-3] = True
        field["rain_rate"] = field.rain_rate.where(inner, 0.0)
    evaluator = FSS(thresholds=(2.0,), windows_km=(16.0,))
    ours = evaluator.summarise(evaluator.score(forecast, truth, weight=weight))
    theirs = spatial.fss_2d(
        forecast.rain_rate,
        truth.rain_rate,
        event_threshold=2.0,
        window_size=(3, 3),
        spatial_dims=("latitude", "longitude"),
        preserve_dims=["lead_time"],
        zero_padding=True,
    )
    np.testing.assert_allclose(ours.set_index("lead_time")["value"].loc[LEADS], theirs, rtol=1e-9)


def test_a_window_of_one_cell_leaves_the_events_alone():
    events = np.array([[[True, False], [False, True]]])
    (found,) = shares([events], np.ones_like(events), [1, 1])
    np.testing.assert_array_equal(found, events.astype(float))


def test_the_power_of_all_bands_is_the_variance():
    field = np.random.default_rng(0).normal(size=(3, 24, 40))
    _, power = band_power(field, (1.0, 2.0))
    np.testing.assert_allclose(power.sum(axis=1), field.var(axis=(1, 2)), rtol=1e-12)


def test_a_wave_has_its_power_at_its_wavelength():
    x = (np.arange(64) + 0.5) * 2.0  # km
    field = np.broadcast_to(np.cos(2 * np.pi * x / 32), (1, 48, 64))
    wavelength, power = band_power(field, (2.0, 2.0))
    peak = wavelength[power[0].argmax()]
    assert 32 / 1.5 < peak < 32 * 1.5
    assert power[0].max() > 0.99 * power[0].sum()


def test_a_blurred_forecast_lacks_power_at_short_waves():
    _forecast, truth, _ = pair()
    blurred = truth.rolling(longitude=5, center=True, min_periods=1).mean()
    evaluator = RadialSpectrum()
    table = evaluator.summarise(evaluator.score(blurred, truth))
    first = table[table["lead_time"] == LEADS[0]].sort_values("wavelength_km")
    assert (first["power"] / first["true_power"]).iloc[0] < 0.6


def test_a_plane_without_geography_has_no_km():
    forecast, truth, weight = pair()
    for name in ("latitude", "longitude"):
        truth[name].attrs["grid"] = "plane"
    with pytest.raises(DataError, match="declare the projection"):
        FSS().score(forecast, truth, weight=weight)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("categorical", {"thresholds": []}),
        ("categorical", {"thresholds": [1, 1]}),
        ("fss", {"windows_km": [0]}),
        ("fss", {"windows_km": []}),
    ],
)
def test_options_without_sense_are_refused(name, options):
    with pytest.raises(PluginError):
        create("evaluators", name, options)


class TestCategorical(EvaluatorTests):
    evaluator = Categorical(thresholds=(280.0,))


class TestFSS(EvaluatorTests):
    evaluator = FSS(thresholds=(280.0, 101000.0), windows_km=(4000.0,))


class TestRadialSpectrum(EvaluatorTests):
    evaluator = RadialSpectrum()


def test_members_that_say_what_comes_are_reliable():
    """Truth and members drawn alike: an event comes as often as the share of members says."""
    generator, cells = np.random.default_rng(0), 400
    chance = generator.random((1, cells, cells))
    rain = (generator.random((5, *chance.shape)) < chance).astype("f4")  # four members, one truth
    coords = {
        "lead_time": LEADS[:1], "latitude": np.linspace(1, -1, cells),
        "longitude": np.linspace(0, 2, cells), "init_time": np.datetime64("2024-05-01", "ns"),
    }  # fmt: skip
    dims, one = ("lead_time", "latitude", "longitude"), {"units": "mm h-1"}
    truth = xr.Dataset({"rain_rate": (dims, rain[4], one)}, coords)
    forecast = xr.Dataset({"rain_rate": (("realization", *dims), rain[:4], one)}, coords)
    weight = xr.DataArray(
        np.full((1, cells, cells), 1 / cells**2), dims=("region", *dims[1:]),
        coords={"region": ["global"]},
    )  # fmt: skip
    reliability = create("evaluators", "reliability", {"events": ["rain_rate > 0.5 mm h-1"]})
    table = reliability.summarise(reliability.score(forecast, truth, weight=weight))
    # Of a uniform chance, k of four members say yes with 1/5, and it then comes with (k + 1) / 6.
    np.testing.assert_allclose(table["share"], 0.2, atol=0.005)
    np.testing.assert_allclose(table["frequency"], (np.arange(5) + 1) / 6, atol=0.01)


def test_a_film_of_rain_is_the_same_for_the_same_seed():
    one, other = (rain_film(5, seed=3).rain_rate for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert 0.05 < float((one > 0.5).mean()) < 0.6


def test_rain_of_a_film_grows_up_to_half_its_life():
    """Alone in its cells, rain rises while it is young and falls when it is old."""
    film = rain_film(40, Rain(cells=0.5, speed=0.0), seed=2)
    rain, age, life = (film[name].values.astype("f8") for name in ("rain_rate", "age", "life"))
    same = (life[1:] == life[:-1]) & (age[1:] == age[:-1] + 1) & (rain[:-1] > 0.5)
    change, middle = np.diff(rain, axis=0), (age[1:] + age[:-1] + 1) / 2 / np.maximum(life[1:], 1)
    assert same.any()
    assert (change[same & (middle < 0.45)] > 0).mean() > 0.95
    assert (change[same & (middle > 0.55)] < 0).mean() > 0.95
