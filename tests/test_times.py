"""Times of a source: which of them a cube takes."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.cube.cube import build_cube
from climlstm.errors import DataError
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
