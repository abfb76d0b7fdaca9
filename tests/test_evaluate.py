"""Forecasts against a cube, with numbers that follow from how the two were made."""

import importlib
import logging
import re
from dataclasses import dataclass
from typing import ClassVar

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.statistics.climatology import climatology as make_climatology
from climlstm.errors import DataError, PluginError
from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.scores import ACC, RMSE, Bias, SpreadSkill
from climlstm.evaluation.tables import SCORE_COLUMNS, write_scores
from tests.small_forecasts import (
    ALL,
    BIAS,
    GRID,
    LATITUDE,
    LONGITUDE,
    STEP,
    TIMES,
    UNITS,
    make_cube,
    make_forecast,
    pick,
    random_cube,
    run,
)


@pytest.fixture
def cube():
    return random_cube()


@pytest.fixture
def normal(cube):
    return make_climatology(cube, (TIMES[0], TIMES[-1]), channels=list(UNITS))


def test_a_perfect_forecast(cube, normal):
    scores = evaluate(make_forecast(cube), cube, evaluators=ALL, climatology=normal).scores
    assert list(scores.columns) == SCORE_COLUMNS
    assert pick(scores, "rmse") == [0] * 5
    np.testing.assert_allclose(pick(scores, "acc"), 1, atol=1e-6)
    assert pick(scores, "rmse_skill_vs_persistence") == [1] * 5
    assert pick(scores, "rmse_skill_vs_climatology") == [1] * 5
    assert set(scores["model"]) == {"forecast", "persistence", "climatology"}
    assert scores["lead_time"].dtype.kind == "m"


def test_levels_and_units_have_their_columns(cube):
    scores = run(make_forecast(cube), cube, evaluators={"rmse": RMSE(), "bias": Bias()}).scores
    named = scores.drop_duplicates(["variable", "level"]).set_index("variable")
    assert named.loc["z", "level"] == 500
    assert pd.isna(named.loc["t2m", "level"])
    assert named["units"].to_dict() == {"t2m": "K", "z": "m2 s-2"}


def test_persistence_is_the_state_at_the_initialisation():
    """A degree warmer each step: persistence is k degrees too cold at step k."""
    cube = make_cube(np.arange(40.0)[:, None, None])
    scores = run(make_forecast(cube, 0.5), cube, evaluators=BIAS, baselines=["persistence"]).scores
    assert pick(scores, "bias") == pytest.approx([0.5] * 5)
    assert pick(scores, "bias", "persistence") == pytest.approx([-1, -2, -3, -4, -5])


def test_climatology_is_taken_at_the_valid_time():
    """Truth is the hour of the day plus a hundredth of the day of the year; so is climatology."""
    cube = make_cube((TIMES.hour + TIMES.day_of_year / 100).to_numpy()[:, None, None])
    hours, days = np.array([0, 6, 12, 18]), np.arange(1, 367)
    values = np.broadcast_to((hours[:, None] + days / 100)[:, :, None, None], (4, 366, 4, 6))
    normal = xr.Dataset(
        {"t2m": (("hour", "dayofyear", *GRID), values.astype("float32"), {"units": "K"})},
        coords={"hour": hours, "dayofyear": days, **GRID},
    )
    forecast = make_forecast(cube, 3.0)
    scores = evaluate(forecast, cube, evaluators=ALL, climatology=normal).scores
    np.testing.assert_allclose(pick(scores, "rmse", "climatology"), 0, atol=1e-6)
    assert pick(scores, "rmse") == pytest.approx([3.0] * 5)
    assert pick(scores, "acc", "climatology") == []


def test_pairs_without_truth_are_left_out_for_all_models_alike(cube, caplog):
    """Starts 0, 4, 8, 12, 16 of 19 steps with leads 1 to 5: the last start has leads 1 and 2."""
    caplog.set_level(logging.INFO)
    ended = cube.isel(time=slice(0, 19))
    scores = run(make_forecast(cube), ended, evaluators=BIAS, baselines=["persistence"]).scores
    counts = scores.pivot_table(index="lead_time", columns="model", values="n", aggfunc="max")
    assert counts["forecast"].tolist() == [5, 5, 4, 4, 4]
    assert counts["persistence"].tolist() == [5, 5, 4, 4, 4]
    assert "Left out, for all models alike: 3 pairs without truth" in caplog.text


def test_a_gap_costs_its_valid_times_and_its_initialisation(cube):
    """Step 8 is missing: a start itself, and lead 4 of start 4."""
    broken = cube.isel(time=[step for step in range(40) if step != 8])
    forecast = make_forecast(cube)

    def counts(baselines):
        scores = run(forecast, broken, evaluators=BIAS, baselines=baselines).scores
        own = scores[(scores["model"] == "forecast") & (scores["variable"] == "t2m")]
        return own.sort_values("lead_time")["n"].tolist()

    assert counts([]) == [5, 5, 5, 4, 5]
    assert counts(["persistence"]) == [4, 4, 4, 3, 4]


def test_unusable_times_are_like_missing_ones(cube):
    cube = cube.load()
    cube["t2m"][8, 2, 3] = np.nan
    forecast = make_forecast(cube.fillna(0.0))
    with pytest.raises(DataError, match=r"cube: 't2m' is nan at time 2020-01-03 00.*latitude -20"):
        run(forecast, cube)
    scores = run(forecast, cube, evaluators=BIAS, unusable=[TIMES.values[8]]).scores
    assert sorted(set(scores["n"])) == [4, 5]


def test_no_truth_at_all_is_an_error(cube):
    with pytest.raises(
        DataError, match="No forecast can be scored: they are valid from 2020-01-01"
    ):
        run(make_forecast(cube), cube.assign_coords(time=TIMES + pd.Timedelta("365D")))


def test_nan_in_a_forecast_is_an_error_with_its_place(cube):
    forecast = make_forecast(cube)
    forecast["z500"][1, 2, 0, 5] = np.nan
    with pytest.raises(DataError, match="'z500' is nan at init_time 2020-01-02 00:00:00, ") as e:
        run(forecast, cube)
    assert "lead_time 0 days 18:00:00" in str(e.value)
    assert "latitude 60, longitude 300 (1 such" in str(e.value)


def test_advice_about_nan_leads_to_scores(cube):
    """Each piece is tried as it stands in the message."""
    forecast, gap = make_forecast(cube), cube.load().copy(deep=True)
    gap["t2m"][8, 2, 3] = np.nan
    with pytest.raises(DataError) as error:
        run(forecast, gap)
    unusable = re.search(r"unusable=(\[.*?\])", str(error.value))[1]
    scores = run(forecast, gap, evaluators=BIAS, unusable=eval(unusable, {"np": np})).scores
    assert sorted(set(scores["n"])) == [4, 5]
    never = gap.where(gap["t2m"].notnull().all("time"))
    for name in never:
        never[name].attrs = {"units": UNITS[name]}
    observed = eval(re.search(r"observed=(\S+)\.$", str(error.value))[1], {"cube": never})
    assert pick(run(forecast, never, evaluators=BIAS, observed=observed).scores, "bias") == [0] * 5
    forecast["t2m"][2, 3] = np.nan
    with pytest.raises(DataError) as error:
        run(forecast, cube)
    advice = re.findall(r"forecasts\.(?:drop_)?sel\(.*?\)+(?=[,.])", str(error.value))
    shorter = [eval(each, {"forecasts": forecast, "np": np}) for each in advice]
    assert [dict(each.sizes)["init_time"] for each in shorter] == [4, 5]
    assert [pick(run(each, cube, evaluators=BIAS).scores, "bias") for each in shorter] == [
        [0] * 5,
        [0] * 3,
    ]


def test_the_climatology_that_is_asked_for_can_be_made(cube):
    forecast = make_forecast(cube)
    with pytest.raises(DataError) as error:
        run(forecast, cube, evaluators={"acc": ACC()})
    module, name = re.search(r"with (climlstm\S*)\.(\w+),", str(error.value)).groups()
    make = getattr(importlib.import_module(module), name)
    normal = make(cube, (TIMES[0], TIMES[-1]), channels=list(UNITS))
    scores = run(forecast, cube, evaluators={"acc": ACC()}, climatology=normal).scores
    np.testing.assert_allclose(pick(scores, "acc"), 1, atol=1e-6)


def test_an_evaluator_without_scores_is_told(cube, caplog):
    run(make_forecast(cube), cube, evaluators=BIAS | {"spread": SpreadSkill()})
    assert "The evaluator 'spread' has nothing to say of 'forecast'" in caplog.text


def test_nan_where_there_is_no_truth_is_none_of_our_business(cube):
    forecast = make_forecast(cube)
    forecast["t2m"][4, 4] = np.nan
    scores = run(forecast, cube.isel(time=slice(0, 19)), evaluators=BIAS).scores
    assert pick(scores, "bias") == [0] * 5


def test_never_observed_cells_are_not_scored(cube):
    """Sea surface temperature, say: on the two northern rows there is none."""
    cube = cube.load()
    forecast = make_forecast(cube, 1.0)
    forecast["t2m"][..., :2, :] = 999.0
    cube["t2m"][:, :2] = np.nan
    cube["t2m"].attrs = {"units": "K"}
    observed = cube.notnull().all("time")
    scores = run(forecast, cube, observed=observed, baselines=["persistence"]).scores
    assert pick(scores, "rmse") == pytest.approx([1.0] * 5)
    with pytest.raises(DataError, match="mask of observed cells has no z500"):
        run(forecast, cube, observed=observed[["t2m"]])


def test_each_step_of_the_truth_is_read_once(cube):
    """Whatever is held in memory: forecasts of all starts, or of one."""
    reads = []

    def note(block, block_info=None):
        reads.append(block_info[0]["array-location"][0])
        return block

    single = cube.chunk(time=1)
    counted = single.assign({
        name: (array.dims, da.map_blocks(note, array.data, dtype="f4", meta=np.empty(0, "f4")))
        for name, array in single.items()
    })  # fmt: skip
    for name in counted:
        counted[name].attrs = {"units": UNITS[name]}
    forecast = make_forecast(cube)
    results = []
    for memory in (2**30, 1):
        reads.clear()
        results.append(run(forecast, counted, memory=memory, baselines=["persistence"]).scores)
        steps = [start for start, _ in reads]
        assert sorted(steps) == sorted(2 * list(range(22)))  # steps 0 to 21, for two channels
    pd.testing.assert_frame_equal(*results)


def test_chunks_do_not_change_the_scores(cube, normal):
    forecast = make_forecast(cube, 1.0)
    whole = evaluate(forecast, cube.load(), evaluators=ALL, climatology=normal.load())
    parts = evaluate(
        forecast.chunk(init_time=2, latitude=3),
        cube.chunk(time=7, longitude=4),
        evaluators=ALL,
        climatology=normal.chunk(dayofyear=50),
    )
    pd.testing.assert_frame_equal(whole.scores, parts.scores)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.isel(latitude=slice(None, None, -1)),
        lambda ds: ds.assign_coords(longitude=ds.longitude - 180).roll(longitude=3),
        lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180),
        lambda ds: ds.isel(longitude=slice(None, None, -1)),
        lambda ds: ds.transpose("longitude", "latitude", ...),
    ],
    ids=["south first", "from the date line", "jump at the date line", "westward", "turned round"],
)
@pytest.mark.parametrize("which", ["forecast", "cube"])
def test_grids_are_aligned(cube, change, which):
    regions = ["global", "tropics", "north_pacific"]
    forecast = make_forecast(cube) + xr.DataArray(LATITUDE / 60, dims="latitude")
    forecast += xr.DataArray(LONGITUDE, dims="longitude")
    for name in forecast:
        forecast[name].attrs = {"units": UNITS[name]}
    plain = run(forecast, cube, evaluators=BIAS, regions=regions).scores
    if which == "forecast":
        changed = run(change(forecast), cube, evaluators=BIAS, regions=regions).scores
    else:
        changed = run(forecast, change(cube), evaluators=BIAS, regions=regions).scores
    assert plain["value"].abs().max() > 1
    pd.testing.assert_frame_equal(plain, changed, rtol=1e-5)


def test_a_regional_forecast_is_scored_on_its_part_of_the_cube(cube):
    forecast = make_forecast(cube, 2.0).isel(latitude=slice(0, 2), longitude=[5, 0, 1])
    scores = run(forecast, cube, baselines=["persistence"]).scores
    assert pick(scores, "rmse") == pytest.approx([2.0] * 5, rel=1e-6)


def test_other_grids_are_refused(cube):
    shifted = make_forecast(cube).assign_coords(longitude=LONGITUDE + 30)
    with pytest.raises(DataError, match="longitude 30, but the nearest of the cube is"):
        run(shifted, cube)


def test_other_units_are_refused_but_other_spellings_are_not(cube):
    forecast = make_forecast(cube)
    forecast["z500"].attrs["units"] = "m**2 s**-2"
    run(forecast, cube)
    forecast["t2m"].attrs["units"] = "degC"
    with pytest.raises(
        DataError, match="'t2m' is in 'degC' in the forecast, but in 'K' in the cube"
    ):
        run(forecast, cube)
    del forecast["t2m"].attrs["units"]
    with pytest.raises(DataError, match="'t2m' of the forecast has no units"):
        run(forecast, cube)


def test_what_cannot_be_asked_for_is_refused(cube):
    forecast = make_forecast(cube)
    with pytest.raises(DataError, match="'t2m', but the cube has not"):
        run(forecast, cube[["z500"]])
    with pytest.raises(
        PluginError, match=r"no baseline 'persistance' installed\. Did you mean 'persistence'"
    ):
        run(forecast, cube, baselines=["persistance"])
    with pytest.raises(DataError, match="'acc' and the baseline 'climatology' cannot do without"):
        run(forecast, cube, evaluators={"acc": ACC()}, baselines=["climatology"])
    with pytest.raises(DataError, match="cannot be called 'persistence'"):
        run(forecast, cube, model="persistence", baselines=["persistence"])
    with pytest.raises(DataError, match=r"'lead_time' \(timedelta64, or integers.*is int64"):
        run(forecast.assign_coords(lead_time=[6, 12, 18, 24, 30]), cube)
    with pytest.raises(DataError, match=r"no variable has the dimensions .*; there are t2m \("):
        run(forecast.isel(latitude=0, drop=True), cube)
    with pytest.raises(DataError, match="init_time 2020-01-01 00:00:00 occurs more than once"):
        run(xr.concat([forecast, forecast], "init_time"), cube)


def test_ensembles_go_beside_single_baselines(cube):
    forecast = xr.concat([make_forecast(cube, e) for e in (1.0, 5.0)], "realization")
    scores = run(forecast, cube, baselines=["persistence"]).scores
    assert pick(scores, "rmse") == pytest.approx([3.0] * 5, rel=1e-6)
    assert len(pick(scores, "rmse", "persistence")) == 5


def test_pressure_of_january_1996(real_data):
    """Two corners without data, times without an epoch, latitudes from the south: persistence of
    two days, as a forecast made by hand and as the baseline, against the formula written out."""
    source = xr.open_dataset(
        real_data / "storm_jan1996" / "Pstorm.cdf", engine="netcdf4", decode_times=False
    )
    cube = source[["p"]].rename(p="msl", timestep="time", lat="latitude", lon="longitude").load()
    cube = cube.assign_coords(time=np.datetime64("1996-01-05") + cube.time.values * STEP // 6)
    cube["msl"].attrs["units"] = "Pa"
    inits = cube.time.values[:56:4]
    lead = xr.DataArray([8 * STEP], dims="lead_time", coords={"lead_time": [8 * STEP]})
    forecast = cube.sel(time=inits).rename(time="init_time").expand_dims(lead_time=lead.lead_time)
    observed = cube.notnull().all("time")
    scores = run(
        forecast,
        cube.isel(latitude=slice(None, None, -1)),
        evaluators={"rmse": RMSE()},
        observed=observed,
        baselines=["persistence"],
    ).scores
    values = cube["msl"].values.astype("float64")
    error = values[:56:4] - values[8:64:4]
    phi = np.deg2rad(cube.latitude.values.astype("float64"))
    half = np.deg2rad(1.25 / 2)
    area = (np.sin(phi + half) - np.sin(phi - half))[:, None] * observed["msl"].values
    expected = np.sqrt(np.nansum(error**2 * area) / area.sum() / len(inits))
    assert 500 < expected < 2000
    assert pick(scores, "rmse", variable="msl") == pytest.approx([expected])
    assert pick(scores, "rmse", "persistence", "msl") == pytest.approx([expected])
    assert pick(scores, "rmse_skill_vs_persistence", variable="msl") == pytest.approx([0], abs=1e-9)


# Evaluators of others


@dataclass(frozen=True)
class Warmest:
    """The warmest cell, one row an initialisation: a table that is no score."""

    requires: ClassVar[tuple[str, ...]] = ("t2m",)

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        return pd.DataFrame({"at": [float(forecast.t2m.max())], "true": [float(truth.t2m.max())]})

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"error": [(scores["at"] - scores["true"]).abs().mean()]})


@dataclass(frozen=True)
class Plain:
    """An evaluator as the style guide writes one."""

    requires: ClassVar[tuple[str, ...]] = ()

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        mse = ((forecast - truth) ** 2).mean(["latitude", "longitude"])
        return mse.to_array("variable").to_series().rename("mse").reset_index()

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        mse = scores.groupby(["variable", "lead_time"], as_index=False)["mse"].mean()
        return mse.assign(metric="plain", value=np.sqrt(mse.pop("mse")))


def test_tables_that_are_no_scores_stay_apart(cube, tmp_path):
    forecast = make_forecast(cube, 1.5)
    evaluators = {"warmest": Warmest(), "rmse": RMSE()}
    evaluation = run(forecast, cube, evaluators=evaluators, baselines=["persistence"])
    assert set(evaluation.scores["metric"]) == {"rmse", "rmse_skill_vs_persistence"}
    table = evaluation.tables["warmest"].set_index("model")["error"]
    assert table["forecast"] == pytest.approx(1.5)
    cases = evaluation.cases["warmest"]
    assert list(cases["model"]) == ["forecast", "persistence"] * 5
    assert list(cases["init_time"].unique()) == list(TIMES[:20:4])
    paths = write_scores(evaluation, tmp_path)
    assert {path.name for path in paths} == {
        "scores.csv", "scores.nc", "warmest.csv", "warmest_cases.csv"
    }  # fmt: skip


def test_a_plain_evaluator_gives_scores(cube):
    scores = run(make_forecast(cube, 2.0), cube, evaluators={"plain": Plain()}).scores
    assert pick(scores, "plain") == pytest.approx([2.0] * 5, rel=1e-6)
    assert set(scores["region"]) == {"global"}


def test_an_evaluator_says_what_it_lacks(cube):
    forecast = make_forecast(cube)
    with pytest.raises(DataError, match="'warmest' needs t2m, but the forecast has z500 only"):
        run(forecast[["z500"]], cube, evaluators={"warmest": Warmest()})

    class Curious(Warmest):
        needs: ClassVar[tuple[str, ...]] = ("orography",)

    with pytest.raises(PluginError, match="declares that it needs orography"):
        run(forecast, cube, evaluators={"curious": Curious()})
