"""Fields of any dataset: names, units, order of axes, chunks, and what is said about wrong ones."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climlstm_storms.centres import Detector
from climlstm_storms.search import detect

from benchmarks.lows import Low, moving_lows
from climlstm.errors import DataError

LOWS = [
    Low(45, 1, 80, 45),
    Low(-30, 181, 90, 40),
    Low(88, 40, 0, 0),
    Low(-89, 200, 0, 0),
    Low(10, 90, 0, 0, depth_pa=1500),
]


@pytest.fixture(scope="module")
def weather_map():
    latitude, longitude = np.arange(90, -91, -1.5), np.arange(0, 360, 1.5)
    times = np.array(["2020-01-01T00", "2020-01-01T06"], "M8[ns]")
    return moving_lows(LOWS, latitude, longitude, times)


def _centres(fields, **options):
    table = detect(fields, Detector(**options))
    return table.sort_values(["time", "slp", "lat"])[["time", "lat", "lon", "slp", "wind", "depth"]]


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize(
    "variant", ["ascending", "minus180", "rolled", "westward", "hPa", "closed circle", "long names"]
)
def test_order_origin_and_units_change_nothing(weather_map, variant, refine):
    if variant == "ascending":
        other = weather_map.isel(latitude=slice(None, None, -1))
    elif variant == "minus180":
        longitude = (weather_map.longitude + 180) % 360 - 180
        other = weather_map.assign_coords(longitude=longitude).sortby("longitude")
    elif variant == "rolled":
        other = weather_map.roll(longitude=100, roll_coords=True)
    elif variant == "westward":
        other = weather_map.isel(longitude=slice(None, None, -1))
    elif variant == "hPa":
        other = weather_map.assign(msl=weather_map.msl.astype("float64") / 100)
        other.msl.attrs["units"] = "hPa"
    elif variant == "closed circle":
        again = weather_map.isel(longitude=[0]).assign_coords(longitude=[360.0])
        other = xr.concat([weather_map, again], "longitude")
    else:
        other = weather_map.rename(
            latitude="lat",
            longitude="lon",
            msl="mean_sea_level_pressure",
            u10="10m_u_component_of_wind",
        )
        other = other.rename(v10="10m_v_component_of_wind")
    expected = _centres(weather_map, refine=refine)
    actual = _centres(other, refine=refine)
    assert len(expected) == 2 * len(LOWS)
    assert (actual["time"].to_numpy() == expected["time"].to_numpy()).all()
    numbers = ["lat", "slp", "wind", "depth"]
    np.testing.assert_allclose(actual[numbers], expected[numbers], atol=2e-5)
    turn = (actual["lon"].to_numpy() - expected["lon"].to_numpy() + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=1e-3)  # degrees of longitude, near the pole too


def test_indices_point_into_the_dataset_that_was_given(weather_map):
    flipped = weather_map.isel(latitude=slice(None, None, -1), longitude=slice(None, None, -1))
    for row in detect(flipped, Detector(refine=False)).itertuples():
        assert flipped.latitude[row.j] == row.lat
        assert (flipped.longitude[row.i] - row.lon) % 360 == 0
        there = flipped.msl.sel(time=row.time)[row.j, row.i]
        assert row.slp == pytest.approx(float(there) / 100)


def test_chunks_are_searched_as_the_whole_is(weather_map):
    whole = detect(weather_map, Detector())
    for chunks in ({"time": 1}, {"time": 1, "latitude": 40, "longitude": 50}):
        lazy = detect(weather_map.chunk(chunks), Detector())
        assert lazy.equals(whole)


def test_forecasts_and_ensembles_keep_their_axes(weather_map):
    step = weather_map.isel(time=0, drop=True)
    ensemble = xr.concat([step, step.roll(longitude=2)], "number").expand_dims(
        time=np.array(["2020-01-01", "2020-01-02"], "M8[ns]"),
        prediction_timedelta=np.array([6, 12, 18], "m8[h]"),
    )
    table = detect(ensemble.assign_coords(number=[3, 5]), Detector())
    assert set(table["member"]) == {3, 5}
    assert len(table) == 2 * 2 * 3 * len(LOWS)
    assert (table["time"] == table["init_time"] + table["lead_time"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("msl"), r"no sea-level pressure.*u10.*names=\{'msl'"),
        (lambda ds: ds.assign(msl=ds.msl.assign_attrs(units="K")), r"in 'K'.*'hPa' is expected"),
        (lambda ds: ds.isel(latitude=[0, 1]), r"2 rows and 240 columns.*at least 3"),
        (
            lambda ds: ds.isel(latitude=[0, 5, 3]),
            r"latitudes are not in order.*sortby\('latitude'\)",
        ),
        (lambda ds: ds.expand_dims(tile=2), r"dims tile, but only init_time"),
        (lambda ds: ds.assign_coords(time=[0, 6]), r"'time' holds int64, but datetime64"),
    ],
)
def test_what_is_wrong_with_the_fields_is_said(weather_map, change, message):
    with pytest.raises(DataError, match=message):
        detect(change(weather_map), Detector())


def test_units_may_be_left_out_where_they_are_plain(weather_map):
    for scale in (1, 100):
        bare = (weather_map[["msl"]] / scale).drop_attrs()
        assert detect(bare, Detector())["slp"].min() == pytest.approx(983, abs=1)
    with pytest.raises(DataError, match="neither hPa nor Pa"):
        detect((weather_map[["msl"]] / 10).drop_attrs(), Detector())
    with pytest.raises(DataError, match="mean of 1011 Pa"):
        detect(weather_map.assign(msl=weather_map.msl / 100), Detector())  # keeps the attribute Pa
    with pytest.raises(DataError, match=r"'msll'.*Did you mean 'msl'"):
        detect(weather_map, Detector(), names={"msl": "msll"})


@pytest.mark.parametrize(("units", "per_hour"), [("hours", 1), ("seconds", 3600), (None, 1)])
def test_lead_times_that_are_not_decoded(weather_map, units, per_hour):
    attrs = {"units": units} if units else {}
    leads = ("step", np.array([6, 12]) * per_hour, attrs)
    start = np.datetime64("2020-01-01", "ns")
    forecast = weather_map.rename(time="step").assign_coords(step=leads, time=start)
    table = detect(forecast, Detector())
    assert set(table["lead_time"]) == {pd.Timedelta(hours=6), pd.Timedelta(hours=12)}
    assert (table["time"] == start + table["lead_time"]).all()


def test_units_of_wind_are_converted(weather_map):
    expected = _centres(weather_map)["wind"]
    knots = weather_map.copy()
    for name in ("u10", "v10"):
        knots[name] = (weather_map[name] * 3600 / 1852).assign_attrs(units="knots")
    np.testing.assert_allclose(_centres(knots)["wind"], expected, rtol=1e-6)
    speed = np.hypot(weather_map.u10, weather_map.v10) * 3.6
    other = weather_map[["msl"]].assign(sfcWind=speed.assign_attrs(units="km/h"))
    np.testing.assert_allclose(_centres(other)["wind"], expected, rtol=1e-6)
    wrong = weather_map.assign(u10=weather_map.u10.assign_attrs(units="K"))
    with pytest.raises(DataError, match="'u10' is in 'K', but a speed such as 'm s-1'"):
        detect(wrong, Detector())
