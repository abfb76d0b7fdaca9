"""Forcings against almanac values and against geometry that can be done by hand."""

import numpy as np
import pytest

from climlstm.data.cube.forcing import forcing_channels, forcing_fields
from climlstm.errors import DataError


def zenith_degrees(time, latitude, longitude):
    times = np.array([time], "datetime64[s]")
    field = forcing_fields(["cos_zenith"], times, [latitude], [longitude])
    return np.rad2deg(np.arccos(field[0, 0, 0, 0].astype("float64")))


@pytest.mark.parametrize(
    ("time", "latitude"),
    [
        ("2020-06-20T12:01:40", 23.436),
        ("2019-12-22T11:58:20", -23.436),
        ("2000-03-20T12:07:30", 0.08),
    ],
)
def test_sun_is_overhead_at_solstice_and_equinox(time, latitude):
    """At noon of apparent time on the tropic circles, and near the equator at the equinox.

    Declinations at 12 UTC: Astronomical Almanac; the seconds beside noon are the equation of time.
    """
    assert zenith_degrees(time, latitude, 0.0) < 0.1


def test_equation_of_time_moves_noon():
    """On 3 November the sun is 16 min 25 s ahead, on 11 February 14 min 14 s behind."""
    for day, shift in (("2021-11-03", -(16 * 60 + 25)), ("2021-02-11", 14 * 60 + 14)):
        seconds = np.arange(-1800, 1801, 5)
        times = np.datetime64(f"{day}T12:00:00", "s") + seconds.astype("timedelta64[s]")
        height = forcing_fields(["cos_zenith"], times, [0.0], [0.0])[:, 0, 0, 0]
        top = np.polyfit(seconds, height.astype("float64"), 2)
        assert -top[1] / (2 * top[0]) == pytest.approx(shift, abs=15)


def test_quarter_of_a_day_is_a_quarter_of_the_globe():
    """What Greenwich sees at 12 UTC, 90° E saw at 06 UTC, but for a quarter day's declination."""
    times = np.array(["2020-03-20T12:00", "2020-03-20T06:00"], "datetime64[m]")
    field = forcing_fields(
        ["cos_zenith"], times, np.array([60.0, 0.0, -60.0]), np.array([0.0, 90.0])
    )
    np.testing.assert_allclose(field[0, 0, :, 0], field[1, 0, :, 1], atol=3e-3)


def test_polar_night_and_midnight_sun():
    times = np.datetime64("2020-12-21T00", "h") + np.arange(24).astype("timedelta64[h]")
    field = forcing_fields(["cos_zenith"], times, [80.0, -80.0], [30.0])
    assert field[:, 0, 0].max() < 0 < field[:, 0, 1].min()


@pytest.mark.parametrize("latitude", [51.48, 0.0, -33.0])
def test_sun_rises_everywhere_six_hours_before_noon_at_the_equinox(latitude):
    """Apparent noon at Greenwich is at 12:07:30 UTC on 20 March 2020."""
    assert zenith_degrees("2020-03-20T06:07:30", latitude, 0.0) == pytest.approx(90, abs=0.2)


def test_season_is_a_full_turn_a_year_also_in_leap_years():
    times = np.array(["2019-01-01", "2020-01-01", "2020-07-02", "2019-07-02T12"], "datetime64[h]")
    season = forcing_fields(["season"], times, [0.0], [0.0])[:, :, 0, 0]
    np.testing.assert_allclose(season, [[0, 1], [0, 1], [0, -1], [0, -1]], atol=1e-6)


def test_day_is_local_solar_time():
    field = forcing_fields(
        ["day"], np.array(["2020-05-01T06"], "datetime64[h]"), [10.0], [0, 90, -90]
    )
    np.testing.assert_allclose(field[0, 0, 0], [1, 0, 0], atol=1e-6)  # 6, 12 and 0 h
    np.testing.assert_allclose(field[0, 1, 0], [0, -1, 1], atol=1e-6)


def test_longitudes_a_turn_apart_agree():
    times = np.array(["2020-05-01T06"], "datetime64[h]")
    names = ["cos_zenith", "season", "day"]
    west, east = (forcing_fields(names, times, [10.0], [lon]) for lon in (-30.0, 330.0))
    np.testing.assert_allclose(west, east, atol=1e-6)


def test_order_shape_and_range():
    times = np.array(["2020-05-01T06", "2020-05-01T12"], "datetime64[ns]")
    names = ["season", "cos_zenith"]
    field = forcing_fields(names, times, np.linspace(90, -90, 5), np.arange(0, 360, 60))
    assert forcing_channels(names) == ("season_sin", "season_cos", "cos_zenith")
    assert field.shape == (2, 3, 5, 6)
    assert field.dtype == np.float32
    assert np.abs(field).max() <= 1


def test_unknown_forcing():
    with pytest.raises(DataError, match=r"no forcing 'cos_zenit'. Did you mean 'cos_zenith'"):
        forcing_channels(["cos_zenit"])
