"""Scores by hand, by brute force, and by what is known of their statistics."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm import plugins
from climlstm.errors import DataError, PluginError
from climlstm.evaluation.bootstrap import Bootstrap, block_lengths
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.regions import region_weights
from climlstm.evaluation.scores import (
    ACC,
    CRPS,
    MAE,
    RMSE,
    Bias,
    RankHistogram,
    SpreadSkill,
    fair_crps,
)
from climlstm.evaluation.statistic import GridError, GridScore
from climlstm.evaluation.tables import read_scores, write_scores
from climlstm.grid.regions import REGIONS

LATITUDE = np.array([60.0, 0.0, -60.0])  # rows of a quarter, a half and a quarter of the globe
LONGITUDE = np.array([0.0, 90.0, 180.0, 270.0])


def fields(values, *, init="2020-01-01", latitude=LATITUDE, longitude=LONGITUDE, name="t2m"):
    """One initialisation: values (…, latitude, longitude), leads and members before."""
    values = np.asarray(values, dtype="float32")
    dims = ("realization", "lead_time", "latitude", "longitude")[-values.ndim :]
    return xr.Dataset(
        {name: (dims, values, {"units": "K"})},
        coords={
            "init_time": np.datetime64(init, "us"),
            "lead_time": np.arange(1, values.shape[-3] + 1) * np.timedelta64(6, "h"),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


def rows(*by_latitude):
    """A single lead time, (1, 3, 4), constant along latitude rows."""
    return np.broadcast_to(np.array(by_latitude, dtype=float)[None, :, None], (1, 3, 4))


def weight_of(dataset, regions=("global",)):
    return region_weights(dataset, regions)


def score(evaluator, pairs, **keywords):
    """Summary over (forecast, truth), one a day."""
    tables = []
    for day, (forecast, truth) in enumerate(pairs):
        init = np.datetime64("2020-01-01") + day
        forecast, truth = fields(forecast, init=init), fields(truth, init=init)
        given = {name: fields(value, init=init) for name, value in keywords.items()}
        tables.append(evaluator.score(forecast, truth, weight=weight_of(truth), **given))
    return evaluator.summarise(pd.concat(tables, ignore_index=True))


def value(table):
    assert len(table) == 1
    return table["value"].item()


ZERO = rows(0, 0, 0)


def test_the_root_is_taken_after_the_mean_over_initialisations():
    table = score(RMSE(), [(ZERO + 1, ZERO), (ZERO + 7, ZERO)])
    assert value(table) == pytest.approx(5.0)  # √((1 + 49) / 2), and not (1 + 7) / 2
    assert table["n"].item() == 2


def test_rows_count_by_their_area():
    assert value(score(RMSE(), [(rows(0, 2, 0), ZERO)])) == pytest.approx(np.sqrt(4 / 2))
    assert value(score(MAE(), [(rows(-4, 0, 0), ZERO)])) == pytest.approx(4 / 4)


def test_bias_is_forecast_minus_truth():
    assert value(score(Bias(), [(rows(1, 1, 1), rows(3, 3, 3))])) == pytest.approx(-2)


@pytest.mark.parametrize(
    ("forecast", "truth", "acc"),
    [
        ((3, 3, 3), (1, 1, 1), 1.0),  # uncentred: the same sign everywhere is agreement
        ((-2, 0, 2), (1, 0, -1), -1.0),
        ((1, 0, 1), (1, 0, -1), 0.0),
        ((2, 2, 2), (0, 2, 0), np.sqrt(0.5)),  # (½·4) / √(4 · ½·4)
    ],
)
def test_anomaly_correlation(forecast, truth, acc):
    normal = rows(280, 290, 270)
    table = score(ACC(), [(normal + rows(*forecast), normal + rows(*truth))], climatology=normal)
    assert value(table) == pytest.approx(acc, abs=1e-6)


def test_anomaly_correlation_is_averaged_over_initialisations():
    pairs = [(rows(1, 1, 1), rows(1, 1, 1)), (rows(9, 9, 9), rows(-1, -1, -1))]
    assert value(score(ACC(), pairs, climatology=ZERO)) == pytest.approx(0.0)


def test_anomaly_correlation_of_climatology_is_undefined_and_has_no_row():
    assert score(ACC(), [(ZERO, rows(1, 1, 1))], climatology=ZERO).empty


def test_scores_agree_with_the_formulas_of_weatherbench_2_in_float64():
    """Written out anew: 33 latitudes with poles, geopotential in float32, rows of exact area."""
    generator = np.random.default_rng(0)
    latitude, longitude = np.linspace(90, -90, 33), np.arange(64) * 5.625
    normal = 54000 + 3000 * np.cos(np.deg2rad(latitude))[:, None] + np.zeros((5, 33, 64))
    truth = normal + 800 * generator.standard_normal((5, 33, 64))
    forecast = truth + 300 * generator.standard_normal((5, 33, 64)) + 20
    grid = {"latitude": latitude, "longitude": longitude, "name": "z500"}
    f, t, c = (fields(a, **grid) for a in (forecast, truth, normal))
    regions = ["global", "tropics", "extratropics"]
    keywords = {"weight": weight_of(t, regions)}

    phi = np.deg2rad(latitude)
    edges = np.concatenate([[np.pi / 2], (phi[1:] + phi[:-1]) / 2, [-np.pi / 2]])
    area = np.sin(edges[:-1]) - np.sin(edges[1:])
    inside = [np.ones(33), abs(latitude) <= 20, abs(latitude) >= 20]
    weights = [(area * where)[:, None] * np.ones(64) for where in inside]
    f64, t64, c64 = (a.z500.values.astype("float64") for a in (f, t, c))

    def mean(field):
        return np.stack([(field * w).sum((1, 2)) / w.sum() for w in weights], axis=1).ravel()

    anomaly, true_anomaly = f64 - c64, t64 - c64
    expected = {
        RMSE(): np.sqrt(mean((f64 - t64) ** 2)),
        MAE(): mean(abs(f64 - t64)),
        Bias(): mean(f64 - t64),
        ACC(): mean(anomaly * true_anomaly) / np.sqrt(mean(anomaly**2) * mean(true_anomaly**2)),
    }
    for evaluator, numbers in expected.items():
        needed = {"climatology": c} if "climatology" in evaluator.needs else {}
        table = evaluator.summarise(evaluator.score(f, t, **keywords, **needed))
        assert list(table["region"].unique()) == regions
        np.testing.assert_allclose(table["value"], numbers, rtol=1e-6)


def test_never_observed_cells_are_left_out():
    truth, forecast = rows(np.nan, 0, 0), rows(np.nan, 2, 8)
    assert value(score(MAE(), [(forecast, truth)])) == pytest.approx((2 * 0.5 + 8 * 0.25) / 0.75)


def test_an_ensemble_is_scored_by_its_mean():
    members = np.stack([ZERO + 1, ZERO + 5])
    assert value(score(RMSE(), [(members, ZERO)])) == pytest.approx(3)
    assert value(score(MAE(), [(members, ZERO + 3)])) == pytest.approx(0)


def test_fair_crps_against_all_pairs():
    generator = np.random.default_rng(1)
    members, truth = generator.standard_normal((5, 3, 4)), generator.standard_normal((3, 4))
    pairs = abs(members[:, None] - members[None]).sum((0, 1)) / (2 * 5 * 4)
    np.testing.assert_allclose(fair_crps(members, truth), abs(members - truth).mean(0) - pairs)


def test_crps_by_hand():
    members = np.stack([ZERO, ZERO + 2])
    assert value(score(CRPS(), [(members, ZERO + 1)])) == pytest.approx(0)  # 1 - ½ · 2
    assert value(score(CRPS(), [(members, ZERO + 5)])) == pytest.approx(3)  # 4 - ½ · 2
    assert value(score(CRPS(), [(ZERO, ZERO + 5)])) == pytest.approx(5)  # one forecast: MAE


def ensemble_cases(spread, members=9, cases=20):
    """Truth and members around one predictable state, 20 lead times; the truth has unit spread."""
    generator = np.random.default_rng(2)
    for _ in range(cases):
        state = 10 * generator.standard_normal((20, 3, 4))
        noise = generator.standard_normal((members, 20, 3, 4))
        yield state + spread * noise, state + generator.standard_normal((20, 3, 4))


def test_spread_matches_error_where_truth_is_like_a_member():
    table = score(SpreadSkill(), ensemble_cases(1.0)).groupby("metric")["value"].mean()
    assert table["spread"] == pytest.approx(np.sqrt(10 / 9), rel=0.05)
    assert table["spread_skill"] == pytest.approx(1, abs=0.06)
    narrow = score(SpreadSkill(), ensemble_cases(0.3)).groupby("metric")["value"].mean()
    assert narrow["spread_skill"] < 0.4


def test_rank_histogram_is_flat_where_truth_is_like_a_member():
    share = score(RankHistogram(), ensemble_cases(1.0, members=4)).groupby("rank")["share"].mean()
    assert list(share.index) == [0, 1, 2, 3, 4]
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(share, 0.2, atol=0.025)
    narrow = score(RankHistogram(), ensemble_cases(0.2, members=4)).groupby("rank")["share"].mean()
    assert narrow[[0, 4]].sum() > 0.7


def test_ties_in_ranks_are_broken_evenly():
    table = score(RankHistogram(), [(np.zeros((3, 100, 3, 4)), np.zeros((100, 3, 4)))] * 5)
    np.testing.assert_allclose(table.groupby("rank")["share"].mean(), 0.25, atol=0.03)


@pytest.mark.parametrize("evaluator", [SpreadSkill(), RankHistogram()])
def test_a_single_forecast_has_no_spread(evaluator):
    truth = fields(ZERO)
    assert evaluator.score(fields(ZERO), truth, weight=weight_of(truth)).empty


def test_regions_hold_the_points_on_their_bounds():
    latitude = xr.DataArray([20.0, 0.0, -20.0, -25.0], dims="latitude", name="latitude")
    longitude = xr.DataArray([0.0, 120.0, 240.0], dims="longitude", name="longitude")
    latitude, longitude = (c.assign_coords({c.name: c}) for c in (latitude, longitude))
    inside = region_weights(latitude * longitude, ["tropics", "extratropics"]).values > 0
    assert inside[0, :, 0].tolist() == [True, True, True, False]
    assert inside[1, :, 0].tolist() == [True, False, True, True]


def test_europe_crosses_greenwich_however_longitudes_are_counted():
    truth = fields(np.zeros((1, 37, 72)), latitude=np.linspace(90, -90, 37), longitude=STEPS_OF_5)
    west = truth.assign_coords(longitude=STEPS_OF_5 - 180)
    east = weight_of(truth, ["europe"])[0]
    found = set(east.longitude.values[(east > 0).any("latitude")])
    assert found == {350, 355, *range(0, 45, 5)}
    other = weight_of(west, ["europe"])[0]
    assert {lon % 360 for lon in other.longitude.values[(other > 0).any("latitude")]} == found
    assert float(east.sum()) == pytest.approx(1)


STEPS_OF_5 = np.arange(0.0, 360.0, 5.0)


def test_hemispheres_make_up_the_extratropics():
    truth = fields(np.zeros((1, 37, 72)), latitude=np.linspace(90, -90, 37), longitude=STEPS_OF_5)
    both, north, south = weight_of(
        truth, ["extratropics", "extratropics_north", "extratropics_south"]
    )
    np.testing.assert_allclose(both, (north + south) / 2, atol=1e-12)


def test_every_named_region_lies_on_a_global_grid():
    truth = fields(np.zeros((1, 37, 72)), latitude=np.linspace(90, -90, 37), longitude=STEPS_OF_5)
    np.testing.assert_allclose(weight_of(truth, list(REGIONS)).sum(("latitude", "longitude")), 1)


def test_unknown_and_empty_regions_are_refused():
    truth = fields(ZERO)
    with pytest.raises(DataError, match=r"no region .europa.\. Did you mean .europe."):
        weight_of(truth, ["europa"])
    with pytest.raises(DataError, match="'ausnz' holds no point of the grid"):
        weight_of(truth, ["ausnz"])


# Evaluators of others, from the building block


@dataclass(frozen=True)
class CubicError(GridError):
    """Root of the mean cubed error, as a plugin would write it."""

    metric, columns, units = "rmce", ("cubed",), "K"

    def statistic(self, forecast, truth):
        return np.abs(forecast - truth) ** 3

    def finish(self, cubed):
        return np.cbrt(cubed)


def test_a_statistic_and_a_finish_make_an_evaluator():
    assert isinstance(CubicError(), plugins.Evaluator)
    table = score(CubicError(), [(ZERO + 1, ZERO), (ZERO + 3, ZERO)])
    assert value(table) == pytest.approx(14 ** (1 / 3))
    assert table[["metric", "units", "n"]].values.tolist() == [["rmce", "K", 2]]
    own, other = (CubicError().score(*case(e, 0), weight=WEIGHT) for e in (1.0, 4.0))
    skill = CubicError().compare(own, other)
    assert skill[["metric", "units", "value"]].values.tolist() == [["rmce_skill", "1", 0.75]]


def test_an_evaluator_without_a_statistic_says_so():
    with pytest.raises(NotImplementedError, match=r"GridScore has no statistic\(forecast, truth\)"):
        score(GridScore(), [(ZERO, ZERO)])


# Confidence intervals


def autoregressive(number, r, *, groups=1, seed=0):
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((number, groups)) * np.sqrt(1 - r**2)
    series = [generator.standard_normal(groups)]
    for shock in noise[1:]:
        series.append(r * series[-1] + shock)
    return np.array(series)


def test_interval_of_independent_cases_is_that_of_the_normal_distribution():
    cases = autoregressive(400, 0.0)
    low, high = Bootstrap(resamples=4000).interval([cases], np.asarray, block=1)
    half = 1.96 * cases.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], cases.mean() + np.array([[-half], [half]]), atol=0.01)


def test_intervals_cover_the_truth_as_often_as_they_say_though_cases_are_correlated():
    """With r = 0.6 single cases would give intervals half as wide as they should be; blocks come
    near to 95 %, though the autocorrelation must be estimated from the same 120 cases."""
    covered = {"single": 0, "blocks": 0}
    for seed in range(200):
        cases = autoregressive(120, 0.6, seed=seed)
        for name, block in (("single", 1), ("blocks", block_lengths(cases)[0])):
            low, high = Bootstrap(resamples=200).interval([cases], np.asarray, block=block)
            covered[name] += bool(low[0] <= 0 <= high[0])
    assert covered["single"] / 200 < 0.75
    assert 0.86 < covered["blocks"] / 200 < 0.97


def test_block_lengths_follow_the_autocorrelation_of_each_group():
    white = autoregressive(200, 0.0, groups=100)
    red = autoregressive(200, 0.8, groups=50, seed=1)
    lengths = block_lengths(np.concatenate([white, red], axis=1))
    assert np.median(lengths[:100]) == 1
    exponent = 2 / 3 * (1 - 0.22 / 1.78)  # r is about 0.78
    length = np.median(lengths[100:])
    assert length == pytest.approx((200 - length + 1) ** exponent, abs=2)
    assert block_lengths(red)[7] == block_lengths(red[:, [7]])[0]


def scored(cases, evaluator=RMSE(), regions=("global", "tropics"), leads=slice(None)):  # noqa: B008
    tables = []
    for day, (forecast, truth) in enumerate(cases):
        init = np.datetime64("2020-01-01") + day
        forecast, truth = (fields(v, init=init).isel(lead_time=leads) for v in (forecast, truth))
        if forecast.sizes["lead_time"]:
            tables.append(evaluator.score(forecast, truth, weight=weight_of(truth, regions)))
    table = evaluator.summarise(pd.concat(tables, ignore_index=True))
    table = table.astype({"region": str})
    return table.set_index(["region", "lead_time"])[["value", "ci_low", "ci_high", "n"]]


def smooth_errors(days=60, leads=4):
    """Errors that last for days in the tropics, and change daily elsewhere; the last ones end."""
    slow, fast = (autoregressive(days, r, groups=leads, seed=5)[:, :, None] for r in (0.9, 0.0))
    for day in range(days):
        rows = np.stack([fast[day], 5 * slow[day], fast[day]], axis=1)
        error = np.broadcast_to(rows, (leads, 3, 4)).copy()
        kept = min(leads, days - day)
        yield error[:kept], np.zeros((kept, 3, 4))


@pytest.mark.parametrize(
    "alone",
    [
        {"regions": ("global",)},
        {"regions": ("tropics",)},
        {"leads": slice(0, 1)},
        {"leads": slice(3, None)},
    ],
    ids=str,
)
def test_an_interval_does_not_depend_on_what_else_is_scored(alone):
    cases = list(smooth_errors())
    together, apart = scored(cases), scored(cases, **alone)
    assert together["ci_low"].notna().any()
    assert together.loc["tropics", "n"].nunique() == 4
    pd.testing.assert_frame_equal(apart, together.loc[apart.index], rtol=1e-12)


def test_enormous_errors_are_shown_and_not_left_out():
    """1e30 K squared is too large for float32; a statistic that is infinite stays infinite."""
    forecast = rows(1e30, 0, 0)
    assert value(score(RMSE(), [(forecast, ZERO)])) == pytest.approx(5e29)  # a quarter of the area
    assert value(score(ACC(), [(forecast, forecast)], climatology=ZERO)) == pytest.approx(1)
    tables = []
    for day, error in ((0, np.inf), (1, 1.0)):
        own = fields(rows(error, 1, 1), init=np.datetime64("2020-01-01") + day)
        weight = weight_of(own, ["global", "tropics"])
        tables.append(MAE().score(own, fields(ZERO), weight=weight))
    found = MAE().summarise(pd.concat(tables)).set_index("region")
    assert found["value"].to_dict() == {"global": np.inf, "tropics": 1}
    assert found["n"].tolist() == [2, 2]
    assert found["ci_low"].isna().all()


def test_paired_intervals_are_narrower():
    generator = np.random.default_rng(3)
    shared = generator.standard_normal((100, 1))
    own, other = shared + 2, shared + 3 + 0.1 * generator.standard_normal((100, 1))
    low, high = Bootstrap().interval([own, other], lambda a, b: a - b, block=1)
    assert -1.05 < low[0] < -1 < high[0] < -0.95


def test_too_few_cases_have_no_interval():
    table = score(RMSE(), [(ZERO + 1, ZERO)] * 4)
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_skill_is_over_the_same_cases_only():
    """The reference lacks the second day, so only the first counts: 1 - 1 / 2."""
    own = [RMSE().score(*case(e, day), weight=WEIGHT) for day, e in enumerate([1.0, 100.0])]
    reference = [RMSE().score(*case(2.0, 0), weight=WEIGHT)]
    table = RMSE().compare(pd.concat(own), pd.concat(reference))
    assert value(table) == pytest.approx(0.5)
    assert table["n"].item() == 1
    assert table["metric"].item() == "rmse_skill"


WEIGHT = weight_of(fields(ZERO))


def case(error, day):
    init = np.datetime64("2020-01-01") + day
    return fields(ZERO + error, init=init), fields(ZERO, init=init)


def test_missing_lead_times_do_not_shift_the_others():
    """The second initialisation ends after one lead time."""
    two = fields(np.concatenate([ZERO + 1, ZERO + 5])), fields(np.concatenate([ZERO, ZERO]))
    one = case(3.0, 1)
    table = MAE().summarise(pd.concat([MAE().score(*pair, weight=WEIGHT) for pair in (two, one)]))
    assert table["value"].tolist() == pytest.approx([2, 5])
    assert table["n"].tolist() == [2, 1]


def test_options_of_the_run_file_are_validated():
    rmse = plugins.create("evaluators", "rmse", {"bootstrap": {"resamples": 50, "seed": 1}})
    assert rmse == RMSE(bootstrap=Bootstrap(resamples=50, seed=1))
    with pytest.raises(PluginError, match=r"bootstrap\.resample'"):
        plugins.create("evaluators", "rmse", {"bootstrap": {"resample": 50}})
    with pytest.raises(PluginError, match=r"bootstrap\.level' is 95"):
        plugins.create("evaluators", "rmse", {"bootstrap": {"level": 95}})


def test_a_score_of_whole_forecasts_has_no_lead_time_on_disk_either(tmp_path):
    row = {"variable": "storm_track", "level": None, "region": "global", "metric": "pod_storms"}
    row |= {"model": "ConvLSTM", "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 3, "units": "1"}
    leads = pd.Series([pd.Timedelta("6h"), pd.NaT])
    scores = pd.DataFrame([row, row]).assign(lead_time=leads)
    write_scores(Evaluation(scores=scores, tables={}, cases={}), tmp_path)
    found = read_scores(tmp_path)
    assert found["lead_time"].tolist()[0] == pd.Timedelta("6h")
    assert found["lead_time"].isna().tolist() == [False, True]
