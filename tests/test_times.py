"""Times of a source: which of them a cube takes."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.audit.chunking import check_left_out
from climlstm.data.cube.cube import build_cube
from climlstm.data.sources.declarations import Metadata, declare
from climlstm.data.sources.times import dates_in_numbers, select_times
from climlstm.errors import CatalogError, DataError
from tests.small_sources import data, source


def test_thinning_takes_the_full_steps():
    hourly = source(times=pd.date_range("2000-01-01T03", periods=24, freq="1h"))
    cube = build_cube(hourly, data("t2m"))
    assert list(cube["time"].dt.hour) == [6, 12, 18, 0]
    np.testing.assert_array_equal(cube["t2m"], hourly["t2m"][3::6])


def test_gaps_stay_gaps():
    times = pd.date_range("2000-01-01", periods=13, freq="1h").delete([6, 7])
    cube = build_cube(source(times=times), data("t2m", step="3h"))
    assert list(cube["time"].dt.hour) == [0, 3, 9, 12]


def test_uneven_times_are_kept_where_they_are_on_the_step():
    times = np.array(["2022-08-17", "2022-08-18", "2022-08-18T12", "2022-08-19"], "datetime64[ns]")
    assert build_cube(source(times=times), data("t2m", step="12h"))["time"].size == 4


def test_step_that_does_not_divide_a_day_counts_from_the_first_time():
    daily = source(times=pd.date_range("2000-01-02", periods=9, freq="1D"))
    cube = build_cube(daily, data("t2m", step="3d"))
    assert list(cube["time"].dt.day) == [2, 5, 8]


def test_step_that_no_two_times_have_is_refused():
    with pytest.raises(
        DataError, match=r"No two successive times.*1h apart.*steps of 6h \(3 times\)"
    ):
        build_cube(source(), data("t2m", step="1h"))


def test_unsorted_times_are_refused_and_named():
    times = np.array(["2000-01-01", "2000-01-02", "2000-01-01T12", "2000-01-03"], "datetime64[ns]")
    with pytest.raises(DataError, match="not in order: 2000-01-01T12:00 follows 2000-01-02T00:00"):
        build_cube(source(times=times), data("t2m"))


def test_duplicate_times_are_refused_and_named():
    times = np.array(
        ["2000-01-01", "2000-01-01T06", "2000-01-01T06", "2000-01-01T12"], "datetime64[ns]"
    )
    with pytest.raises(DataError, match="more than once: 2000-01-01T06:00"):
        build_cube(source(times=times), data("t2m"))


def test_time_without_epoch_says_how_to_declare_it():
    with pytest.raises(DataError, match=r"without an epoch \(0, 6, 12 ... 18\).*time_units"):
        build_cube(source(times=[0, 6, 12, 18]), data("t2m"))


def test_artificial_calendar_is_refused():
    times = xr.date_range("2000-01-01", periods=4, freq="6h", calendar="360_day", use_cftime=True)
    with pytest.raises(DataError, match="calendar of their own"):
        build_cube(source(times=times), data("t2m"))


def test_missing_time_is_refused():
    times = np.array(["2000-01-01", "NaT", "2000-01-02", "2000-01-03"], "datetime64[ns]")
    with pytest.raises(DataError, match="no time at position 1"):
        build_cube(source(times=times), data("t2m"))


# Rounding


@pytest.mark.parametrize(
    ("freq", "step", "decode"),
    [
        ("20min", "20m", lambda days: days),
        ("1h", "1h", lambda days: days.round(5)),
        ("8h", "8h", lambda days: days.astype("float32").astype("float64")),
        ("1h", "6h", lambda days: days.round(5)),
        ("1D", "1d", lambda days: days + 1e-7),
    ],
    ids=["nanoseconds", "five decimals", "single precision", "thinned", "a day"],
)
def test_times_that_miss_full_steps_by_rounding_are_kept(freq, step, decode):
    """Days since 1950 as files have them: none of the steps is left out."""
    exact = pd.date_range("2019-01-01", periods=240, freq=freq)
    days = decode(((exact - pd.Timestamp("1950-01-01")) / pd.Timedelta("1D")).to_numpy())
    rounded = pd.Timestamp("1950-01-01") + pd.to_timedelta(days, unit="D")
    cube = build_cube(source(times=rounded), data("t2m", step=step))
    expected = exact[exact.hour % 6 == 0] if step == "6h" else exact
    assert pd.DatetimeIndex(cube["time"]).equals(expected)


@given(
    minutes=st.sampled_from([10, 30, 60, 180, 360, 1440]),
    noise=st.floats(0, 0.01),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_noise_below_a_hundredth_of_a_step_changes_nothing(minutes, noise, seed):
    exact = pd.date_range("2001-03-01", periods=50, freq=f"{minutes}min")
    kept = np.random.default_rng(seed).random(50) < 0.8
    kept[:3] = True
    off = np.random.default_rng(seed).uniform(-noise, noise, 50) * pd.Timedelta(minutes=minutes)
    cube = build_cube(source(times=(exact + off)[kept]), data("t2m", step=f"{minutes}m"))
    assert pd.DatetimeIndex(cube["time"]).equals(exact[kept])


def test_exact_times_stay_bit_for_bit():
    times = pd.date_range("2000-01-01", periods=9, freq="6h")
    chosen = select_times(source(times=times)["time"], timedelta(hours=6))
    np.testing.assert_array_equal(chosen.values, times)


def test_labels_that_change_half_way_are_told(caplog):
    """Daily means, labelled at 0 UTC in the first half and at 12 UTC in the second."""
    first = pd.date_range("2000-01-01", periods=20, freq="1D")
    times = first.append(first + pd.Timedelta("20.5D"))
    cube = build_cube(source(times=times), data("t2m", step="1d"))
    assert cube.sizes["time"] == 20
    assert "20 of 40 times of 'time' lie between the steps of 1d" in caplog.text
    findings = list(check_left_out(times.values, cube["time"].values, timedelta(days=1)))
    assert [finding.rule for finding in findings] == ["times-left-out"]
    assert findings[0].value.startswith("20 of 40 times, the first at 2000-01-21T12")


def test_what_is_thinned_or_rounded_is_not_left_out(caplog):
    hourly = pd.date_range("2000-01-01", periods=49, freq="1h").delete([7, 8])
    cube = build_cube(source(times=hourly), data("t2m", step="6h"))
    assert not list(check_left_out(hourly.values, cube["time"].values, timedelta(hours=6)))
    late = hourly + pd.Timedelta("2s")
    cube = build_cube(source(times=late), data("t2m", step="6h"))
    found = list(check_left_out(late.values, cube["time"].values, timedelta(hours=6)))
    assert [finding.rule for finding in found] == ["times-rounded"]
    assert found[0].value == "47 of 47 times, by up to 0:00:02"
    assert "left out" not in caplog.text


# Dates written as numbers


@pytest.mark.parametrize(
    ("form", "units"),
    [
        ("%Y%m%d%H", None),
        ("%Y%m%d%H%M", "YYYYMMDDHHMM"),
        ("%Y%m%d", "day as %Y%m%d.%f"),
    ],
)
@given(start=st.dates(date(1850, 1, 1), date(2100, 1, 1)), hours=st.sampled_from([1, 3, 6, 24]))
@settings(max_examples=20, deadline=None)
def test_dates_written_as_numbers_are_recognised(form, units, start, hours):
    times = pd.date_range(start, periods=30, freq=f"{hours}h")
    numbers = times.strftime(form).astype("int64").to_numpy()
    if form == "%Y%m%d":
        numbers = numbers + times.hour.to_numpy() / 24
    written = source(times=numbers)
    written["time"].attrs = {} if units is None else {"units": units}
    found = build_cube(declare(written, Metadata(), "a"), data("t2m", step=f"{hours}h"))
    assert pd.DatetimeIndex(found["time"]).equals(times)
    with pytest.raises(CatalogError, match=r"are dates, the first .* leave out 'time_units'"):
        declare(written, Metadata(time_units="hours since 1996-01-05"), "a")


@pytest.mark.parametrize(
    "numbers", [np.arange(24), 20190101 + np.arange(50), np.array([20190101.25], "f4"),
                np.array([19001301]), np.array([np.nan, 20190101])],
)  # fmt: skip
def test_other_numbers_are_no_dates(numbers):
    assert dates_in_numbers(numbers) is None


def test_an_epoch_that_leads_beyond_all_dates_is_refused():
    far = source(times=np.arange(4) * 1e8 + 5e7)
    with pytest.raises(CatalogError, match="the times would run from"):
        declare(far, Metadata(time_units="hours since 1996-01-05"), "a")
