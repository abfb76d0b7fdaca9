"""Times of a source: which of them a cube takes."""

from datetime import date, timedelta

import cftime
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
from climlstm.data.windows.starts import valid_starts
from climlstm.errors import CatalogError, DataError
from climlstm.steps import DAY, Step
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
    with pytest.raises(DataError, match=r"No two successive times.*1h apart.*steps of 6h\."):
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


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "julian"])
def test_other_calendars_keep_their_dates(calendar):
    times = xr.date_range("2000-02-27", periods=16, freq="6h", calendar=calendar, use_cftime=True)
    cube = build_cube(source(times=times), data("t2m", step="12h"))
    assert cube["time"].dt.calendar == calendar
    assert list(cube["time"].values) == list(times[::2])


@pytest.mark.parametrize("first", ["2000-01-01T12", "2000-01-01T03", "2000-01-01T00:30"])
@pytest.mark.parametrize("step", ["6h", "12h", "1d"])
def test_steps_count_from_the_first_time_where_none_is_at_midnight(first, step):
    """Daily means at noon, analyses at 03, 09, 15 and 21 UTC, the half hours of MERRA."""
    times = pd.date_range(first, periods=9, freq=step.replace("d", "D"))
    cube = build_cube(source(times=times), data("t2m", step=step))
    assert pd.DatetimeIndex(cube["time"]).equals(times)


@pytest.mark.parametrize("shift", [pd.Timedelta(0), pd.Timedelta("7h")])
def test_hourly_data_from_any_hour_on_give_steps_from_midnight(shift):
    hourly = pd.date_range("2000-01-01", periods=48, freq="1h") + shift
    cube = build_cube(source(times=hourly), data("t2m", step="6h"))
    assert set(cube["time"].dt.hour.values) == {0, 6, 12, 18}


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize("stamp", ["start", "middle", "end"])
@pytest.mark.parametrize("bounds", [False, True])
def test_months_are_named_by_their_first_moment(calendar, stamp, bounds):
    """With bounds, the end may be the first moment of the next month, as in files of CESM."""
    edges = xr.date_range("1999-11-01", periods=7, freq="MS", calendar=calendar, use_cftime=True)
    start, stop = np.array(edges[:-1]), np.array(edges[1:])
    last = stop if bounds else stop - timedelta(days=1)
    stamps = {"start": start, "middle": start + (stop - start) / 2, "end": last}[stamp]
    dataset = source(times=stamps)
    if bounds:
        dataset["time"].attrs["bounds"] = "time_bnds"
        dataset["time_bnds"] = (("time", "bnds"), np.stack([start, stop], axis=1))
    cube = build_cube(dataset, data("t2m", step="1 month"))
    assert list(cube["time"].values) == list(start)
    np.testing.assert_array_equal(cube["t2m"], dataset["t2m"])


def test_a_missing_month_is_a_gap_and_a_month_twice_is_refused():
    months = pd.date_range("2000-01-01", periods=9, freq="MS").delete(4)
    assert build_cube(source(times=months), data("t2m", step="MS")).sizes["time"] == 8
    daily = pd.date_range("2000-01-01", periods=9, freq="1D")
    with pytest.raises(DataError, match=r"more than once in January 2000.*steps of 1d. Set 'step'"):
        build_cube(source(times=daily), data("t2m", step="1 month"))


def test_days_for_months_and_months_for_seasons_are_told():
    months = source(times=pd.date_range("2000-01-16T12", periods=36, freq="MS"))
    with pytest.raises(DataError, match=r"30d apart.*steps of 1 month. Set 'step'.*'1 month'"):
        build_cube(months, data("t2m", step="30d"))
    with pytest.raises(DataError, match=r"steps of 1 month, not of 3 months.*Set 'step'.*1 month"):
        build_cube(months, data("t2m", step="season"))


@given(
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
    start=st.integers(0, 800),
    hour=st.sampled_from([0, 0.5, 3, 12]),
    step=st.sampled_from(["6h", "1d", "5d"]),
    length=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_windows_are_those_that_cftime_would_cut(calendar, start, hour, step, length, seed):
    """Across 29 and 30 February, 31st, gaps and stamps: none is lost, and none goes over a gap."""
    each = Step.parse(step).duration
    first = cftime.datetime(1999, 1, 1, calendar=calendar) + timedelta(days=start, hours=hour)
    there = np.random.default_rng(seed).random(60) < 0.9
    there[:2] = True
    times = np.array([first + i * each for i in np.flatnonzero(there)])
    cube = build_cube(source(times=times), data("t2m", step=step))
    starts = valid_starts(cube["time"].values, length=length, step=Step.parse(step))
    known = set(times)
    naive = [t for t in times if all(t + i * each in known for i in range(length))]
    assert list(times[starts]) == naive


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
    chosen = select_times(source(times=times)["time"], Step.parse("6h"))
    np.testing.assert_array_equal(chosen.values, times)


def test_labels_that_change_half_way_are_told(caplog):
    """Daily means, labelled at 0 UTC in the first half and at 12 UTC in the second."""
    first = pd.date_range("2000-01-01", periods=20, freq="1D")
    times = first.append(first + pd.Timedelta("20.5D"))
    cube = build_cube(source(times=times), data("t2m", step="1d"))
    assert cube.sizes["time"] == 20
    assert "20 of 40 times of 'time' lie between the steps of 1d" in caplog.text
    findings = list(check_left_out(times.values, cube["time"].values, DAY))
    assert [finding.rule for finding in findings] == ["times-left-out"]
    assert findings[0].value.startswith("20 of 40 times, the first at 2000-01-21 12:00")


def test_what_is_thinned_or_rounded_is_not_left_out(caplog):
    hourly = pd.date_range("2000-01-01", periods=49, freq="1h").delete([7, 8])
    cube = build_cube(source(times=hourly), data("t2m", step="6h"))
    assert not list(check_left_out(hourly.values, cube["time"].values, Step.parse("6h")))
    late = hourly + pd.Timedelta("2s")
    cube = build_cube(source(times=late), data("t2m", step="6h"))
    found = list(check_left_out(late.values, cube["time"].values, Step.parse("6h")))
    assert [finding.rule for finding in found] == ["times-rounded"]
    assert found[0].value == "47 of 47 times, by up to 0:00:02"
    assert "left out" not in caplog.text


# Dates written as numbers


@pytest.mark.parametrize(
    ("form", "units"),
    [
        ("%Y%m%d%H", None),
        ("%Y%m%d%H%M", "YYYYMMDDHHMM"),
        ("%Y%m%d%H%M%S", None),
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
