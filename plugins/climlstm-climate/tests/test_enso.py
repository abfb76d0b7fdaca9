"""ENSO skill on indices whose forecasts are made by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_climate.enso import ENSO
from climlstm_climate.indices import area_index
from climlstm_climate.series import Series

from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import Bootstrap
from climlstm.testing import EvaluatorTests

DIMS = ("lead_time", "latitude", "longitude")


class TestENSO(EvaluatorTests):
    evaluator = ENSO(channel="sst")


def sst(values, west=0.0):
    """A field (1, H, W) on a globe of 5° cells whose longitudes begin in the west given."""
    latitude, longitude = np.arange(87.5, -90, -5.0), west + np.arange(0.0, 360.0, 5.0)
    shape = (1, latitude.size, longitude.size)
    coords = {"latitude": latitude, "longitude": longitude}
    return xr.DataArray(np.broadcast_to(values, shape).astype("float64"), coords, DIMS)


@pytest.mark.parametrize("west", [0.0, -180.0, 20.0])
def test_indices_are_area_means_over_their_boxes(west):
    """1 K in the Niño3.4 box, 2 K in the west of the Indian Ocean, 5 K in its east, else 9 K."""
    field = sst(9.0, west)
    north, east = field.latitude, field.longitude % 360
    field = field.where(~((abs(north) <= 5) & (east >= 190) & (east <= 240)), 1.0)
    field = field.where(~((abs(north) <= 10) & (east >= 50) & (east <= 70)), 2.0)
    field = field.where(~((north >= -10) & (north <= 0) & (east >= 90) & (east <= 110)), 5.0)
    assert area_index(field, "nino34").tolist() == pytest.approx([1.0])
    assert area_index(field, "iod").tolist() == pytest.approx([-3.0])
    land = field.where(abs(field.latitude) > 4)  # the rows next to the equator
    assert np.isnan(area_index(land, "nino34")).all()


def test_a_grid_without_the_pacific_has_no_index_and_one_without_any_says_so():
    field = sst(1.0).sel(longitude=slice(30, 120))
    assert area_index(field, "nino34") is None
    assert area_index(field, "iod").tolist() == pytest.approx([0.0])
    half = sst(1.0).sel(longitude=slice(200, 220))
    assert area_index(half, "nino34") is None
    forecast = (
        half.rename("sst")
        .to_dataset()
        .assign_coords(init_time=np.datetime64("2000-01-01"), lead_time=[1])
    )
    with pytest.raises(DataError, match=r"covers neither Niño3\.4"):
        ENSO().score(forecast, forecast, climatology=forecast * 0)


def test_the_channel_is_found_or_its_name_is_asked_for():
    """Anomalies of a source of its own count; the climatology is taken off in any case."""
    fields = sst(1.0).rename("sst_anomaly").to_dataset()
    fields = fields.assign_coords(init_time=np.datetime64("2000-01-01"), lead_time=[1])
    table = ENSO().score(fields + 0.5, fields, climatology=fields * 0)
    assert table[table["index"] == "nino34"]["forecast"].tolist() == pytest.approx([1.5])
    other = fields.rename(sst_anomaly="water")
    with pytest.raises(DataError, match="but the forecast has water"):
        ENSO().score(other, other, climatology=other * 0)
    named = ENSO(channel="water").score(other, other, climatology=other * 0)
    assert named["truth"].iloc[0] == pytest.approx(1.0)


def cases(forecast, truth, starts=None, leads=None):
    """Rows of Niño3.4 from arrays (N, L): starts a month apart, leads of 1 to L months."""
    number, length = np.shape(forecast)
    starts = pd.date_range("1991-01-01", periods=number, freq="MS") if starts is None else starts
    leads = np.arange(1, length + 1) if leads is None else leads
    index = pd.MultiIndex.from_product([starts, leads], names=["init_time", "lead_time"])
    values = {"forecast": np.ravel(forecast), "truth": np.ravel(truth), "index": "nino34"}
    return pd.DataFrame(values, index).reset_index()


def pick(table, metric, variable="nino34"):
    rows = table[(table["metric"] == metric) & (table["variable"] == variable)]
    return rows.sort_values("lead_time")["value"].tolist()


def test_correlation_and_rmse_are_numpys_over_all_starts():
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 1, (50, 3))
    forecast = truth + generator.normal(0, 1, (50, 3)) + 0.5
    table = ENSO().summarise(cases(forecast, truth))
    wanted = [np.corrcoef(forecast[:, lead], truth[:, lead])[0, 1] for lead in range(3)]
    assert pick(table, "correlation") == pytest.approx(wanted)
    assert pick(table, "rmse") == pytest.approx(np.sqrt(((forecast - truth) ** 2).mean(axis=0)))
    assert table[table["variable"] == "nino34"]["n"].unique().tolist() == [50]


def test_a_trend_alone_is_no_skill():
    """Forecast and truth share nothing but a line: 0.9 with it, about nothing without."""
    generator = np.random.default_rng(1)
    line = np.arange(300.0)[:, None] / 50
    truth, forecast = (line + generator.normal(0, 0.5, (300, 1)) for _ in range(2))
    table = ENSO().summarise(cases(forecast, truth))
    assert pick(table, "correlation")[0] > 0.9
    assert abs(pick(table, "correlation_detrended")[0]) < 0.15
    x = line[:, 0]
    lines = [np.polyval(np.polyfit(x, y[:, 0], 1), x) for y in (forecast, truth)]
    wanted = np.corrcoef(forecast[:, 0] - lines[0], truth[:, 0] - lines[1])[0, 1]
    assert pick(table, "correlation_detrended")[0] == pytest.approx(wanted, abs=5e-3)


def test_blocks_of_a_year_make_intervals_wider_than_single_months():
    """An autoregressive index: months resemble each other, so single months know too much."""
    generator = np.random.default_rng(2)
    series = np.zeros(240)
    for month in range(1, 240):
        series[month] = 0.9 * series[month - 1] + generator.normal(0, 0.4)
    truth = series[:, None]
    forecast = np.roll(series, 3)[:, None]
    rows = cases(forecast, truth)
    own = ENSO().summarise(rows)
    single = Bootstrap().interval([(forecast - truth) ** 2], np.sqrt, block=1)
    chosen = own[own["metric"] == "rmse"].iloc[0]
    assert chosen["ci_high"] - chosen["ci_low"] > 1.3 * (single[1] - single[0])[0]
    assert Series.of(rows).starts_of(1) == 12
    assert Series.of(rows).starts_of(2) == 24


def test_oni_is_the_mean_of_three_months_and_the_month_of_the_start_is_observed():
    """Truth is the number of the month since 1991; forecasts are half a degree too warm."""
    month = np.arange(20)[:, None] + np.arange(1, 5)
    oni = Series.of(cases(month + 0.5, month)).three_months()
    assert oni.leads.tolist() == [1, 2, 3]
    np.testing.assert_allclose(oni.truth[5], month[5, :3])
    np.testing.assert_allclose(oni.forecast[5] - oni.truth[5], [1 / 3, 0.5, 0.5])
    assert np.isnan(oni.forecast[0, 0])  # nobody has forecast, nor observed, January 1991
    table = ENSO().summarise(cases(month + 0.5, month))
    assert pick(table, "rmse", "oni") == pytest.approx([1 / 3, 0.5, 0.5])


def test_the_spring_barrier_is_seen_by_month_of_the_start():
    """Forecasts from March to May are noise after three months, all others perfect."""
    generator = np.random.default_rng(3)
    truth = generator.normal(0, 1, (240, 6))
    forecast = truth.copy()
    spring = np.isin(np.arange(240) % 12, [2, 3, 4])
    forecast[spring, 3:] = generator.normal(0, 1, (int(spring.sum()), 3))
    table = ENSO().by_start(cases(forecast, truth))
    table = table[table["index"] == "nino34"]
    square = table.pivot(index="start_month", columns="lead_time", values="correlation")
    assert square.shape == (12, 6)
    assert (square.loc[[3, 4, 5], [4, 5, 6]] < 0.6).to_numpy().all()
    assert (square.drop(index=[3, 4, 5]) > 0.999).to_numpy().all()
    assert table["n"].unique().tolist() == [20]


def test_gain_over_another_forecast_is_paired():
    """Only starts that both have count; equal forecasts gain nothing."""
    generator = np.random.default_rng(4)
    truth = generator.normal(0, 1, (40, 2))
    better, worse = (truth + generator.normal(0, size, (40, 2)) for size in (0.5, 2.0))
    rows, others = cases(better, truth), cases(worse, truth)
    assert pick(ENSO().compare(rows, rows), "correlation_gain") == [0, 0]
    kept = others[others["init_time"] >= "1992-01-01"]
    table = ENSO().compare(rows, kept)
    wanted = [
        np.corrcoef(better[12:, k], truth[12:, k])[0, 1]
        - np.corrcoef(worse[12:, k], truth[12:, k])[0, 1]
        for k in range(2)
    ]
    assert pick(table, "correlation_gain") == pytest.approx(wanted)
    assert table[table["variable"] == "nino34"]["n"].unique().tolist() == [28]


def test_files_and_figures(tmp_path):
    pytest.importorskip("matplotlib")
    generator = np.random.default_rng(5)
    truth = generator.normal(0, 1, (60, 6))
    rows = cases(truth + 0.3, truth)
    months = zip(rows["init_time"], rows["lead_time"], strict=True)
    valid = [start + pd.DateOffset(months=int(lead)) for start, lead in months]
    rows = rows.assign(valid_time=valid)
    paths = ENSO().write(rows, tmp_path)
    assert [path.name for path in paths] == ["enso_by_start.csv", "enso_indices.csv"]
    written = pd.read_csv(paths[0])
    assert len(written[written["index"] == "nino34"]) == 72
    both = pd.concat([rows.assign(model="network"), rows.assign(model="persistence")])
    made = ENSO().figures(both)
    assert [title.split(",")[0] for title in made] == [
        "Correlation by lead time", "Niño3.4", "Niño3.4 as forecast",
    ]  # fmt: skip
    barrier = list(made.values())[1]
    assert [ax.get_title(loc="left") for ax in barrier.axes[:2]] == ["network", "persistence"]
