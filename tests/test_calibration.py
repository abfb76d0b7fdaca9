"""Ensembles made honest by an earlier period."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import climlstm
from climlstm import plots
from climlstm.cli.commands import app
from climlstm.errors import DataError
from climlstm.evaluation.calibration import EMOS, calibrated, fit, gaussian_crps
from climlstm.evaluation.evaluate import evaluate
from climlstm.forecasting.joining import join_members
from climlstm.report import sections
from climlstm.runs.calibrating import starts_apart
from climlstm.testing import EvaluatorTests

TRUE = (3.0, 0.8, 1.5, 0.6)  # intercept, slope, variance, spread


def drawn(number=20000, seed=0):
    """Ensemble means, variances and truths that follow TRUE."""
    generator = np.random.default_rng(seed)
    mean, spread = generator.normal(10, 4, number), generator.gamma(4, 1, number)
    a, b, c, d = TRUE
    return mean, spread, generator.normal(a + b * mean, np.sqrt(c + d * spread))


def test_known_coefficients_are_found():
    np.testing.assert_allclose(fit(*drawn()), TRUE, atol=0.2)


def test_coefficients_follow_the_unit():
    mean, spread, truth = drawn(4000)
    a, b, c, d = fit(mean, spread, truth)
    thousands = fit(1000 * mean + 5e4, 1e6 * spread, 1000 * truth + 5e4)
    np.testing.assert_allclose(thousands[1:], [b, 1e6 * c, d], rtol=0.05)
    np.testing.assert_allclose(
        thousands[0] + thousands[1] * 6e4, 1000 * (a + 10 * b) + 5e4, rtol=1e-3
    )


def test_the_crps_of_a_normal_law_is_that_of_a_large_ensemble():
    members = np.random.default_rng(1).normal(2, 3, 4000)
    spread = np.abs(members - members[:, None]).mean() / 2
    for truth in (-4.0, 2.0, 7.0):
        of_members = np.abs(members - truth).mean() - spread
        assert gaussian_crps(np.array(2.0), np.array(3.0), np.array(truth)) == pytest.approx(
            of_members, abs=0.05
        )
    assert gaussian_crps(np.array(2.0), np.array(0.0), np.array(5.0)) == 3


def test_too_few_values_are_refused():
    with pytest.raises(DataError, match="Forecast more starts"):
        fit(*(part[:5] for part in drawn()))


def weather(days, seed):
    """An ensemble of five that is 2 K too warm and half as wide as its errors, and its truth."""
    generator = np.random.default_rng(seed)
    time = np.datetime64("2020-01-01", "us") + np.arange(days + 2) * np.timedelta64(1, "D")
    grid = {"latitude": [5.0, 0.0, -5.0], "longitude": [0.0, 5.0, 10.0, 15.0]}
    truth = generator.normal(280, 5, (days + 2, 3, 4))
    dims = ("time", "latitude", "longitude")
    cube = xr.Dataset({"t2m": (dims, truth, {"units": "K"})}, {"time": time} | grid)
    guess = truth[1:-1] + generator.normal(0, 2, (days, 3, 4))
    members = guess[:, None] + 2 + generator.normal(0, 1, (days, 5, 3, 4))
    dims = ("init_time", "realization", "lead_time", "latitude", "longitude")
    coords = {"init_time": time[:-2], "lead_time": [np.timedelta64(1, "D")]} | grid
    return xr.Dataset({"t2m": (dims, members[:, :, None], {"units": "K"})}, coords), cube


def scores(forecast, cube):
    evaluators = {name: climlstm.plugins.create("evaluators", name, {}) for name in NAMES}
    found = evaluate(forecast, cube, evaluators=evaluators, climatology=None, baselines={})
    return found.scores.set_index("metric")["value"]


NAMES = ("bias", "crps", "spread_skill")


def test_another_period_is_corrected_by_what_one_taught():
    earlier, truth = weather(80, 0)
    emos = {"emos": EMOS()}
    table = evaluate(earlier, truth, evaluators=emos, climatology=None, baselines={}).tables["emos"]
    assert (table["crps_after"] < table["crps_before"]).all()
    later, cube = weather(80, 1)
    before, after = scores(later, cube), scores(calibrated(later, table), cube)
    assert before["bias"] == pytest.approx(2, abs=0.2)
    assert after["bias"] == pytest.approx(0, abs=0.2)
    assert before["spread_skill"] < 0.5
    assert after["spread_skill"] == pytest.approx(1, abs=0.1)
    assert after["crps"] < 0.75 * before["crps"]


def test_members_keep_their_ranks():
    earlier, truth = weather(10, 0)
    emos = {"emos": EMOS()}
    table = evaluate(earlier, truth, evaluators=emos, climatology=None, baselines={}).tables["emos"]
    made = calibrated(earlier, table)["t2m"]
    axis = made.dims.index("realization")
    np.testing.assert_array_equal(made.argsort(axis), earlier["t2m"].argsort(axis))


def test_lead_times_without_coefficients_are_named():
    later, _ = weather(5, 1)
    table = pd.DataFrame({"variable": ["t2m"], "lead_time": [pd.Timedelta("6h")]})
    with pytest.raises(DataError, match="no coefficients of 't2m' at 1 lead times"):
        calibrated(later, table)


def test_figures_show_spread_ranks_and_reliability_of_the_ensemble_alone():
    forecast, truth = weather(60, 0)
    wanted = {"rmse": {}, "spread_skill": {}, "rank_histogram": {}}
    wanted |= {"reliability": {"events": ["t2m > 280 K", "t2m < 3.85 degC"]}}
    evaluators = {n: climlstm.plugins.create("evaluators", n, o) for n, o in wanted.items()}
    still = {"persistence": climlstm.plugins.create("baselines", "persistence", {})}
    found = evaluate(forecast, truth, evaluators=evaluators, climatology=None, baselines=still)
    figures = plots.calibration_figures(found.scores, found.tables, "forecast")
    assert list(figures) == ["spread_and_error", "rank_histogram", "reliability"]
    lines = {line.get_label(): line for line in figures["spread_and_error"].axes[0].lines}
    assert set(lines) >= {"error of the mean", "spread"}
    assert lines["spread"].get_ydata() < 0.5 * lines["error of the mean"].get_ydata()
    panels = figures["reliability"].axes
    assert [panel.get_title(loc="left") for panel in panels] == ["t2m > 280 K", "t2m < 3.85 degC"]
    table = found.tables["reliability"]
    rows = table[(table["model"] == "forecast") & (table["event"] == "t2m > 280 K")]
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), rows["frequency"].dropna())
    assert not plots.calibration_figures(found.scores, found.tables, "persistence").keys() - {
        "reliability"
    }
    with pytest.raises(DataError, match="missing: frequency"):
        plots.plot_reliability(table.drop(columns="frequency"))


@pytest.fixture(scope="module")
def stores(noisy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    how = {"members": 4, "perturbation": 0, "every": timedelta(days=1), "steps": 2}
    run = str(noisy.checkpoint)
    valid = ["forecast", run, "--init", "valid", "--members", "4", "--perturbation", "0"]
    app([*valid, "--steps", "2", "--out", str(folder / "valid.zarr")], standalone_mode=False)
    climlstm.forecast(noisy, folder / "test.zarr", **how)
    return folder


def test_a_store_is_calibrated_by_that_of_the_validation_period(stores, tmp_path):
    made = climlstm.calibrate(stores / "test.zarr", stores / "valid.zarr", tmp_path / "c.zarr")
    plain = climlstm.open_forecasts(stores / "test.zarr")
    assert made.sizes == plain.sizes
    said = json.loads(made.attrs["climlstm_provenance"])["calibration"]
    assert said["period"][0].startswith("2001-02-16")
    wanted = ["rmse", "spread_skill", "rank_histogram"]
    before, after = (
        climlstm.evaluate(each, evaluators=wanted, baselines=["persistence"])
        for each in (plain, made)
    )
    scores = [found.scores[found.scores["metric"] == "spread_skill"] for found in (before, after)]
    assert np.diff([each["value"].sub(1).abs().mean() for each in scores]) < 0
    page = sections.calibration(after, "convlstm")
    assert all(f'aria-label="{name}"' in page for name in ("Spread and error", "Rank histogram"))
    assert not sections.calibration(after, "persistence")


def test_members_of_several_runs_are_calibrated_and_keep_their_run(stores, tmp_path):
    for name in ("valid.zarr", "test.zarr"):
        join_members({"one": stores / name, "another": stores / name}, tmp_path / name)
    made = climlstm.calibrate(tmp_path / "test.zarr", tmp_path / "valid.zarr", tmp_path / "c.zarr")
    assert list(made["run"].values) == ["one"] * 4 + ["another"] * 4


def test_starts_that_reach_into_the_other_period_teach_nothing():
    later, _ = weather(10, 0)
    earlier = later.assign_coords(init_time=later.init_time - np.timedelta64(8, "D"))
    kept = starts_apart(later, earlier, "valid.zarr")
    np.testing.assert_array_equal(kept.init_time, earlier.init_time[:8])


def test_what_it_would_be_scored_on_teaches_nothing(stores, tmp_path):
    with pytest.raises(DataError, match=r"share \d+ valid times"):
        climlstm.calibrate(stores / "test.zarr", stores / "test.zarr", tmp_path / "c.zarr")


def test_a_single_forecast_is_told_how_to_have_members(trained, stores, tmp_path):
    climlstm.forecast(trained, tmp_path / "one.zarr", init_times=["2001-03-20"])
    with pytest.raises(DataError, match="--members 10"):
        climlstm.calibrate(tmp_path / "one.zarr", stores / "valid.zarr", tmp_path / "c.zarr")


class TestEMOS(EvaluatorTests):
    evaluator = EMOS()
