"""Whole runs of calendar months and of other calendars: trained, forecast, scored, drawn."""

from datetime import timedelta

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from hypothesis import given
from hypothesis import strategies as st

import climlstm
from climlstm import runs
from climlstm.config import Config
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import climatology, climatology_at
from climlstm.data.windows.starts import valid_starts
from climlstm.errors import ConfigError, DataError
from climlstm.evaluation.tables import read_scores, useful_lead
from climlstm.forecasting import store
from climlstm.grid import cell_area_weights
from climlstm.steps import DAY, MONTH, Step
from tests.small_sources import source

PERIODS = {
    "train": ["1970-01-01", "1985-12-31"],
    "valid": ["1986-01-01", "1990-12-31"],
    "test": ["1991-01-01", "2003-12-31"],
}


def run_on(folder, dataset, **data):
    """A run file's content on a dataset, which is written as NetCDF."""
    dataset.to_netcdf(folder / "source.nc")
    return run_of(folder, folder / "source.nc", **data)


def run_of(folder, path, *, metadata=None, name="months", horizon=2, **data):
    entry = {"driver": "netcdf", "args": {"urlpath": str(path)}, "metadata": metadata or {}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"s": entry}}))
    given = {"state": ["t2m"], "forcing": ["season"], "step": "1 month", "periods": PERIODS}
    return Config.model_validate(
        {
            "name": name,
            "data": {"catalog": str(folder / "catalog.yaml"), "source": "s"} | given | data,
            "model": {"history": 2, "options": {"hidden": [3], "patch": 1, "kernel": 3}},
            "training": {"horizon": horizon, "epochs": 1, "batch_size": 8, "threads": 1},
            "forecast": {"steps": 4},
            "evaluation": {"evaluators": ["rmse", "acc"]},
            "cluster": {"storage": str(folder / "runs")},
        }
    )


def walk(config, folder):
    """Forecasts and scores of a run that is trained in this process."""
    trained = runs.train(config, under_ray=False)
    runs.forecast(trained, folder / "forecasts.zarr")
    forecasts = climlstm.open_forecasts(folder / "forecasts.zarr")
    return forecasts, runs.evaluate(forecasts, out=folder / "scores")


def monthly(*, calendar="standard", start="1970-01", years=34, stamp="middle"):
    """A wave through the year, which grows, with noise; stamped in the middle of the month."""
    edges = xr.date_range(start, periods=12 * years + 1, freq="MS", calendar=calendar,
                          use_cftime=True)  # fmt: skip
    first, last = np.array(edges[:-1]), np.array(edges[1:])
    times = first + (last - first) / 2 if stamp == "middle" else first
    number = np.arange(times.size)[:, None, None]
    noise = np.random.default_rng(1).standard_normal((times.size, 3, 4))
    values = 280 + 9 * np.sin(2 * np.pi * number / 12) + number / 100 + noise
    return source(times=times, values=values.astype("float32"))


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("months")
    config = run_on(folder, monthly())
    return config, *walk(config, folder), folder


def test_forecasts_of_months_have_leads_in_months(walked):
    _, forecasts, _, folder = walked
    assert forecasts["lead_time"].values.tolist() == [1, 2, 3, 4]
    assert forecasts["lead_time"].attrs["units"] == "months"
    assert forecasts["init_time"].values[0] == np.datetime64("1991-01-01")
    assert forecasts.sizes["init_time"] == 156  # each month
    stored = xr.open_zarr(folder / "forecasts.zarr")  # as anybody opens it
    assert stored["lead_time"].dtype == "int64"
    valid = stored["valid_time"].sel(time="1991-11-01").values
    assert valid.astype("M8[D]").astype(str).tolist() == [
        "1991-12-01", "1992-01-01", "1992-02-01", "1992-03-01",
    ]  # fmt: skip
    bounds = stored["valid_time_bnds"].sel(time="1991-11-01").values
    assert (bounds[:, 0] == valid).all()
    assert bounds[2].astype("M8[D]").astype(str).tolist() == ["1992-02-01", "1992-03-01"]


def test_scores_of_months_are_written_and_read_back(walked):
    _, _, evaluation, folder = walked
    scores = read_scores(folder / "scores")
    assert scores["lead_time"].tolist() == evaluation.scores["lead_time"].tolist()
    assert "3 months" in (folder / "scores" / "scores.csv").read_text()
    assert set(scores["model"]) == {"convlstm", "persistence", "climatology"}
    useful = useful_lead(scores, "rmse_skill_vs_persistence", 0.0)
    assert useful["useful_lead"].between(0, 4).all()


def test_climatology_of_months_is_that_of_xarray(walked):
    _, forecasts, evaluation, folder = walked
    values = xr.open_dataset(folder / "source.nc")["t2m"]
    check_climatology(values, cell_area_weights(values["latitude"]), forecasts, evaluation)


def check_climatology(values, area, forecasts, evaluation):
    """RMSE of the baseline is that of groupby("time.month") of the training years, to rounding."""
    values = values.astype("float64")
    normal = values.sel(time=slice("1970-01", "1985-12")).groupby("time.month").mean()
    errors = (values.groupby("time.month") - normal) ** 2
    known = errors.weighted(area).mean([dim for dim in values.dims if dim != "time"]).values
    numbers = MONTH.number(values["time"].values)
    scores = evaluation.scores
    for lead in range(1, 5):
        valid = MONTH.number(forecasts["init_time"].values, values["time"].values[0]) + lead
        rmse = np.sqrt(known[np.isin(numbers, valid)].mean())
        found = scores[
            (scores["model"] == "climatology") & (scores["metric"] == "rmse")
            & (scores["lead_time"] == lead)
        ]["value"].item()  # fmt: skip
        assert found == pytest.approx(rmse, rel=2e-4)


def test_maps_and_curves_say_months(walked):
    pytest.importorskip("cartopy")
    from climlstm.plots import plot_forecast, plot_scores

    config, forecasts, evaluation, _ = walked
    cube = runs.open_cube(config.data)
    figure = plot_forecast(forecasts, "t2m", truth=cube, init_time="1997-12-01", lead_time=3)
    words = " ".join(text.get_text() for text in figure.texts)
    assert "+3 months, valid March 1998" in words
    assert "from December 1997" in words
    assert plot_forecast(forecasts, "t2m", lead_time="3 months")
    with pytest.raises(DataError, match="expected one such as '3 months'"):
        plot_forecast(forecasts, "t2m", lead_time="72h")
    curves = plot_scores(evaluation.scores, metric="rmse")
    assert "lead time (months)" in " ".join(text.get_text() for text in curves.texts) + " ".join(
        axis.get_xlabel() for axis in curves.axes
    )


def test_climpred_finds_its_names(walked):
    _, forecasts, _, _ = walked
    renamed = climlstm.to_climpred(forecasts)
    assert set(renamed["t2m"].dims) == {"init", "lead", "latitude", "longitude"}
    assert renamed["lead"].attrs["units"] == "months"
    days = forecasts.assign_coords(lead_time=np.array([1, 2, 3, 4]) * np.timedelta64(24, "h"))
    assert climlstm.to_climpred(days)["lead"].values.tolist() == [1, 2, 3, 4]
    assert climlstm.to_climpred(days)["lead"].attrs["units"] == "days"


def test_starts_of_months_are_asked_for_by_any_day_of_them(walked):
    config, *_ = walked
    trained = runs.find_trained(f"{config.cluster.storage}/months")
    asked = ["1995-03-16", "1995-05-31T12"]
    made = runs.forecast(trained, init_times=asked, steps=2)
    assert made["init_time"].values.astype("M8[D]").astype(str).tolist() == [
        "1995-03-01", "1995-05-01",
    ]  # fmt: skip
    few = runs.forecast(trained, every="season", steps=1)
    assert np.unique(few["init_time"].dt.month).tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize(
    ("calendar", "step"),
    [
        ("360_day", "1d"),
        pytest.param("noleap", "1d", marks=pytest.mark.slow),
        pytest.param("noleap", "1 month", marks=pytest.mark.slow),
        pytest.param("360_day", "1 month", marks=pytest.mark.slow),
    ],
)
def test_other_calendars_from_source_to_scores(tmp_path, calendar, step):
    dataset = monthly(calendar=calendar)
    if step == "1d":
        first = cftime.datetime(1999, 12, 1, 12, calendar=calendar)
        number = xr.date_range(first, periods=900, freq="1D", use_cftime=True)
        values = np.random.default_rng(0).standard_normal((900, 3, 4)).cumsum(axis=0)
        dataset = source(times=np.array(number), values=(280 + values).astype("float32"))
        spans = [("2000-01-01", "2000-12-31"), ("2001-01-01", "2001-06-30"),
                 ("2001-07-01", "2002-03-31")]  # fmt: skip
        periods = dict(zip(("train", "valid", "test"), map(list, spans), strict=True))
        config = run_on(tmp_path, dataset, step=step, periods=periods)
        days = {"noleap": 365, "360_day": 360}[calendar]
        assert RunData(config).train_starts.size == days - 3  # none is lost in February
    else:
        config = run_on(tmp_path, dataset)
    forecasts, evaluation = walk(config, tmp_path)
    assert forecasts["init_time"].dt.calendar == calendar
    assert np.isfinite(evaluation.scores["value"]).all()
    reopened = climlstm.open_forecasts(tmp_path / "forecasts.zarr")
    assert list(reopened["init_time"].values) == list(forecasts["init_time"].values)


def test_years_before_1678(tmp_path):
    config = run_on(
        tmp_path,
        monthly(start="0850-01", years=12),
        periods={
            "train": ["0850-01-01", "0855-12-31"],
            "valid": ["0856-01-01", "0857-12-31"],
            "test": ["0858-01-01", "0861-12-31"],
        },
    )
    forecasts, evaluation = walk(config, tmp_path)
    assert str(forecasts["init_time"].values[0]).startswith("0858-01-01")
    assert np.isfinite(evaluation.scores["value"]).all()


def test_season_of_months_is_that_of_their_middle():
    months = np.arange("2001-01", "2002-01", dtype="M8[M]").astype("M8[ns]")
    season = forcing_fields(["season"], months, [0.0], [0.0], months=1)[:, :, 0, 0]
    angle = 2 * np.pi * (np.arange(12) + 0.5) / 12
    np.testing.assert_allclose(season, np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-6)
    day = np.array([cftime.datetime(2001, 7, 1, calendar="360_day")])
    assert forcing_fields(["season"], day, [0.0], [0.0])[0, 1, 0, 0] == pytest.approx(-1)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_the_sun_of_another_calendar_is_that_of_its_season(calendar):
    noon = [cftime.datetime(2001, month, 21, 12, calendar=calendar) for month in (3, 6, 9, 12)]
    real = pd.to_datetime(["2001-03-21T12", "2001-06-21T12", "2001-09-21T12", "2001-12-21T12"])
    found = forcing_fields(["cos_zenith"], np.array(noon), [50.0, -20.0], [0.0])
    expected = forcing_fields(["cos_zenith"], real.values, [50.0, -20.0], [0.0])
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_half_hours_have_a_climatology_of_their_own():
    times = pd.date_range("2000-01-01T00:30", periods=48 * 4, freq="30min")
    cube = source(times=times)
    period = (times[0], times[-1])
    normal = climatology(cube, period, channels=["t2m"])
    assert normal.sizes["hour"] == 48
    assert 0.5 in normal["hour"].values
    some = climatology_at(normal, times.values[:3])
    assert (some["time"].values == times.values[:3]).all()


def test_a_month_that_the_training_lacks_has_the_mean_of_its_period(caplog):
    cube = source(times=pd.date_range("2000-01-01", periods=12, freq="MS"))
    period = (pd.Timestamp("2000-01-01"), pd.Timestamp("2000-08-31"))
    normal = climatology(cube, period, channels=["t2m"])
    assert "no data of the months 9, 10, 11, 12:" in caplog.text
    october = climatology_at(normal, np.array(["2000-10-01"], "M8[ns]"))
    mean = cube["t2m"].isel(time=slice(0, 8)).mean("time").values
    np.testing.assert_allclose(october["t2m"].values[0], mean, rtol=1e-5)


def test_an_hour_that_a_training_of_less_than_a_day_lacks_has_the_mean_of_its_period(caplog):
    times = pd.date_range("2000-01-01T05:00", periods=60, freq="6min")
    normal = climatology(source(times=times), (times[0], times[39]), channels=["t2m"])
    assert "no data of the hours 9, 10:" in caplog.text
    later = climatology_at(normal, times.values[50:])["t2m"]
    np.testing.assert_allclose(
        later[0], normal["t2m"].sel(hour=[5, 6, 7, 8], dayofyear=1).mean("hour")
    )
    assert later.notnull().all()


def test_a_month_that_the_source_lacks_is_named():
    cube = source(times=pd.date_range("2000-01-01", periods=6, freq="MS"))
    period = (pd.Timestamp("2000-01-01"), pd.Timestamp("2000-06-30"))
    normal = climatology(cube, period, channels=["t2m"])
    with pytest.raises(DataError, match=r"has the months 1, 2, 3, 4, 5, 6, but not 7"):
        climatology_at(normal, np.array(["2000-07-01"], "M8[ns]"))


def test_a_step_of_months_has_no_sun(tmp_path):
    config = run_on(tmp_path, monthly(), forcing=["cos_zenith"])
    with pytest.raises(DataError, match=r"'cos_zenith' .* of a moment.*use 'season'"):
        runs.open_cube(config.data)


def test_a_start_that_the_calendar_lacks_is_refused(tmp_path):
    config = run_on(tmp_path, monthly(calendar="360_day"))
    times = RunData(config).cube["time"].values
    with pytest.raises(ConfigError, match="'1995-01-31' is no time of the calendar '360_day'"):
        runs.parse_times(["1995-01-31"], times, Step.parse("1 month"))


@pytest.mark.parametrize(
    ("place", "name", "scale", "metadata"),
    [
        ("ncep_slp_north_pacific_monthly/slp.nc", "slp", 100,
         {"variables": {"slp": {"units": "hPa"}}}),
        ("era5_psl_monthly_coarse/psl_ERA5_mon_194001-202212.nc", "psl", 1,
         {"plane": ["lat", "lon"]}),
    ],
    ids=["ncep", "era5"],
)  # fmt: skip
def test_real_months(real_data, tmp_path, place, name, scale, metadata):
    config = run_of(tmp_path, real_data / place, metadata=metadata, state=["msl"])
    forecasts, evaluation = walk(config, tmp_path)
    assert forecasts.sizes["init_time"] == 156
    assert set(evaluation.scores["lead_time"]) == {1, 2, 3, 4}
    values = xr.open_dataset(real_data / place)[name] * scale
    even = "plane" in metadata  # cells of a plane count alike
    area = xr.ones_like(values["lat"]) if even else cell_area_weights(values["latitude"])
    check_climatology(values, area, forecasts, evaluation)


@pytest.mark.parametrize(
    ("file", "variable", "edges", "days"),
    [
        ("tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc", "t2m",
         ("2000-01-01", "2007-12-31", "2008-01-01", "2008-12-31", "2009-01-01", "2009-12-31"),
         8 * 365),
        ("tasmin_day_HadGEM3-GC31-MM_dcppA-hindcast_s1960-r2i1p1f2_gn_19610101-19611230.nc",
         "tasmin",
         ("1961-01-01", "1961-08-30", "1961-09-01", "1961-10-30", "1961-11-01", "1961-12-30"),
         8 * 30),
    ],
    ids=["noleap", "360_day"],
)  # fmt: skip
def test_no_window_of_real_days_is_lost(real_data, tmp_path, file, variable, edges, days):
    """Neither at 29 February, which noleap lacks, nor at the 31st, which 360_day lacks."""
    spans = [list(edges[i : i + 2]) for i in (0, 2, 4)]
    periods = dict(zip(("train", "valid", "test"), spans, strict=True))
    path = real_data / "cmip6_calendars_daily" / file
    data = RunData(run_of(tmp_path, path, state=[variable], step="1d", periods=periods))
    assert data.train_starts.size == days - 3


@given(
    calendar=st.sampled_from(["noleap", "360_day", "standard", "julian", "all_leap"]),
    stamp=st.integers(0, 23),
    lost=st.sets(st.integers(0, 119), max_size=6),
    length=st.integers(1, 9),
    begin=st.integers(0, 300),
)
def test_windows_of_days_are_those_cut_with_cftime(calendar, stamp, lost, length, begin):
    """Whole around 29 February and the 31st; none across a day that the source lacks."""
    origin = cftime.datetime(2003, 11, 1, stamp, calendar=calendar)
    days = [origin + timedelta(days=begin + n) for n in range(120) if n not in lost]
    times, there = np.array(days), set(days)
    wanted = [
        place
        for place, day in enumerate(days)
        if all(day + timedelta(days=ahead) in there for ahead in range(length))
    ]
    found = valid_starts(times, length=length, step=DAY)
    assert found.tolist() == wanted


def test_daily_means_at_noon(real_data, tmp_path):
    path = real_data / "eraint_europe_daily_2000_2010" / "mslp_ei.nc"
    spans = [
        ["2000-01-01", "2001-12-31"],
        ["2002-01-01", "2002-12-31"],
        ["2003-01-01", "2003-03-31"],
    ]
    periods = dict(zip(("train", "valid", "test"), spans, strict=True))
    config = run_of(tmp_path, path, state=["msl"], step="1d", periods=periods)
    data = RunData(config)
    assert set(data.cube["time"].dt.hour.values) == {12}
    assert data.train_starts.size == 731 - 3


def test_long_forecasts_are_stored_in_several_chunks(walked, tmp_path, monkeypatch):
    config, forecasts, *_ = walked
    monkeypatch.setattr(store, "CHUNK_BYTES", 2 * 4 * 3 * 4)  # two fields
    trained = runs.find_trained(f"{config.cluster.storage}/months")
    runs.forecast(trained, tmp_path / "long.zarr", init_times=["1995-03"], steps=5)
    found = climlstm.open_forecasts(tmp_path / "long.zarr")["t2m"]
    assert found.encoding["chunks"] == (1, 2, 3, 4)
    expected = forecasts["t2m"].sel(init_time=["1995-03-01"])
    np.testing.assert_allclose(found.isel(lead_time=slice(4)), expected, rtol=1e-5)
