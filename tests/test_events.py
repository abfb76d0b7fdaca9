"""Probabilities of events and scores of extremes, against the package `scores` and by hand."""

import operator

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.errors import DataError, PluginError
from climlstm.evaluation.events import Brier, Event, Reliability
from climlstm.evaluation.extremes import QuantileScore, ThresholdCRPS
from climlstm.evaluation.regions import region_weights
from climlstm.evaluation.tables import join_scores
from climlstm.plugins import create
from climlstm.testing import EvaluatorTests

LEADS = np.arange(1, 3) * np.timedelta64(6, "h")


def starts(number=6, members=5, *, missing=False):
    """Forecasts (realization, lead_time, ...) and truths of several days, about 280 K."""
    generator = np.random.default_rng(4)
    coords = {"lead_time": LEADS, "latitude": [5.0, 0.0, -5.0], "longitude": [0.0, 5.0, 10.0]}
    for day in range(number):
        signal = generator.normal(280, 4, (2, 3, 3))
        truth = signal + generator.normal(0, 2, signal.shape)
        if missing:
            truth[:, 0, 0] = np.nan
        ensemble = signal + generator.normal(0, 2, (members, *signal.shape))
        time = {"init_time": np.datetime64("2020-01-01", "us") + np.timedelta64(day, "D")}
        dims = ("lead_time", "latitude", "longitude")
        yield tuple(
            xr.Dataset({"t2m": (d, values, {"units": "K"})}, coords | time)
            for d, values in ((("realization", *dims), ensemble), (dims, truth))
        )


def cases(evaluator, pairs):
    weight = region_weights(pairs[0][1], ("global",))
    weight = weight * 0 + 1 / 9  # equal cells, as those of the package `scores`
    return pd.concat([evaluator.score(*pair, weight=weight) for pair in pairs], ignore_index=True)


def by_lead(table, metric):
    return table[table["metric"] == metric].set_index("lead_time")["value"].loc[LEADS].to_numpy()


def stacked(pairs):
    return [xr.concat([pair[n]["t2m"] for pair in pairs], "init_time") for n in (0, 1)]


@pytest.mark.parametrize("missing", [False, True])
def test_the_brier_score_is_that_of_the_package_scores(missing):
    probability = pytest.importorskip("scores.probability")
    pairs = list(starts(missing=missing))
    evaluator = Brier(events=("t2m > 8.85 degC",))
    table = evaluator.summarise(cases(evaluator, pairs))
    forecast, truth = stacked(pairs)
    theirs = probability.brier_score_for_ensemble(
        forecast,
        truth,
        "realization",
        282.0,
        event_threshold_operator=operator.gt,
        fair_correction=False,
        preserve_dims=["lead_time"],
    )
    np.testing.assert_allclose(by_lead(table, "brier[t2m > 8.85 degC]"), theirs.values.ravel())


def test_reliability_resolution_and_uncertainty_add_up_to_the_score():
    pairs = list(starts(12))
    evaluator = Brier(events=("t2m < 278 K", "t2m > 283"))
    table = evaluator.summarise(cases(evaluator, pairs))
    for event in evaluator.events:
        score, honest, sharp, base = (
            by_lead(table, f"brier{part}[{event}]")
            for part in ("", "_reliability", "_resolution", "_uncertainty")
        )
        np.testing.assert_allclose(honest - sharp + base, score, rtol=1e-12)
        assert (score > 0).all()
        assert (base > score).all()  # the forecasts know something


def test_a_perfect_ensemble_has_no_brier_score_and_skill_one():
    pairs = list(starts())
    sure = [(truth.expand_dims(realization=3), truth) for _, truth in pairs]
    evaluator = Brier(events=("t2m > 282 K",))
    good, poor = cases(evaluator, sure), cases(evaluator, pairs)
    np.testing.assert_allclose(by_lead(evaluator.summarise(good), "brier[t2m > 282 K]"), 0)
    skill = evaluator.compare(good, poor)
    assert set(skill["metric"]) == {"brier_skill[t2m > 282 K]"}
    np.testing.assert_allclose(skill["value"], 1)


def test_an_ensemble_is_compared_with_a_single_forecast():
    pairs = list(starts())
    single = [(ensemble.isel(realization=0), truth) for ensemble, truth in pairs]
    evaluator = Brier(events=("t2m > 282 K",))
    models = {"own": cases(evaluator, pairs), "other": cases(evaluator, single)}
    together = pd.concat(models, names=["model"])  # as an evaluation keeps them
    own, other = (together.loc[name].reset_index(drop=True) for name in models)
    scores = [by_lead(evaluator.summarise(t), "brier[t2m > 282 K]") for t in (own, other)]
    skill = evaluator.compare(own, other).set_index("lead_time")["value"].loc[LEADS]
    np.testing.assert_allclose(skill, 1 - scores[0] / scores[1], rtol=1e-12)


def test_reliability_counts_how_often_it_came():
    pairs = list(starts(20))
    evaluator = Reliability(events=("t2m > 282 K",))
    table = evaluator.summarise(cases(evaluator, pairs))
    forecast, truth = stacked(pairs)
    said, came = (forecast > 282).mean("realization"), truth > 282
    for _, row in table.iterrows():
        chosen = np.isclose(said.sel(lead_time=row["lead_time"]), row["probability"])
        there = came.sel(lead_time=row["lead_time"]).values[chosen]
        assert row["share"] == pytest.approx(chosen.mean())
        assert row["frequency"] == pytest.approx(there.mean(), nan_ok=True)
    assert table["n"].eq(20).all()


@pytest.mark.parametrize(("event", "tail"), [("t2m > 283 K", "upper"), ("t2m < 278", "lower")])
def test_the_weighted_crps_is_that_of_the_package_scores(event, tail):
    probability = pytest.importorskip("scores.probability")
    pairs = list(starts())
    evaluator = ThresholdCRPS(events=(event,))
    table = evaluator.summarise(cases(evaluator, pairs))
    forecast, truth = stacked(pairs)
    theirs = probability.tail_tw_crps_for_ensemble(
        forecast,
        truth,
        "realization",
        Event.parse(event).limit,
        tail=tail,
        method="fair",
        preserve_dims=["lead_time"],
    )
    np.testing.assert_allclose(by_lead(table, f"twcrps[{event}]"), theirs, rtol=1e-6)


def test_the_quantile_score_is_twice_the_pinball_loss():
    continuous = pytest.importorskip("scores.continuous")
    pairs = list(starts())
    evaluator = QuantileScore(levels=(0.1, 0.9))
    table = evaluator.summarise(cases(evaluator, pairs))
    forecast, truth = stacked(pairs)
    for level in (0.1, 0.9):
        quantile = forecast.quantile(level, "realization", method="linear").drop_vars("quantile")
        theirs = continuous.quantile_score(quantile, truth, level, preserve_dims=["lead_time"])
        np.testing.assert_allclose(by_lead(table, f"quantile_{level}"), 2 * theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "limit", "units"),
    [("msl < 990 hPa", 99000.0, "Pa"), ("t2m<0degC", 273.15, "K"), ("rain_rate > 1e-1", 0.1, "x")],
)
def test_limits_are_in_the_units_of_the_data(text, limit, units):
    assert Event.parse(text).limit_in(units) == pytest.approx(limit)


@pytest.mark.parametrize("text", ["msl = 3", "msl", "< 990 hPa", "msl < hPa"])
def test_what_is_no_event_is_refused_with_an_example(text):
    with pytest.raises(PluginError, match="write one as 'msl < 990 hPa'"):
        create("evaluators", "brier", {"events": [text]})


def test_a_limit_in_units_of_something_else_is_refused():
    with pytest.raises(DataError, match="cannot be converted"):
        Event.parse("t2m < 3 hPa").limit_in("K")


def test_tables_join_with_others():
    pairs = list(starts())
    evaluator = Brier(events=("t2m > 282 K",))
    joined = join_scores(
        [evaluator.summarise(cases(evaluator, pairs)).assign(model="m")], {"t2m": "K"}
    )
    assert set(joined["units"]) == {"1"}


class TestBrier(EvaluatorTests):
    evaluator = Brier(events=("t2m > 280 K",))


class TestReliability(EvaluatorTests):
    evaluator = Reliability(events=("t2m > 280 K",))


class TestThresholdCRPS(EvaluatorTests):
    evaluator = ThresholdCRPS(events=("t2m > 280 K",))


class TestQuantileScore(EvaluatorTests):
    evaluator = QuantileScore()
