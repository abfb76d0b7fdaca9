"""Variables of a source that hold a channel, by name, level, units and meaning."""

import re

import numpy as np
import pytest
import xarray as xr

from climlstm.data.cube.cube import build_cube
from climlstm.errors import DataError
from tests.small_sources import data, source


@pytest.mark.parametrize("name", ["t2m", "2t", "T2M", "2m_temperature", "tas"])
def test_variable_by_any_of_its_names(name):
    assert "t2m" in build_cube(source(name=name), data("t2m"))


@pytest.mark.parametrize("name", ["z500", "Z500", "z_500", "geopotential_500hPa", "hgt-500"])
def test_variable_with_its_level_in_the_name(name):
    assert "z500" in build_cube(source(name=name, units="m2 s-2"), data("z500"))


def test_scalar_level_counts():
    flat = source(name="t", levels=[850]).isel(level=0)
    assert "t850" in build_cube(flat, data("t850"))
    with pytest.raises(DataError, match="'t' at 850 hPa"):
        build_cube(flat, data("t500"))


def test_wind_at_10_m_is_not_wind_at_10_hpa():
    with pytest.raises(DataError, match="no channel 'u10hPa'"):
        build_cube(source(name="u10", units="m s-1"), data("u10hPa"))


def test_standard_name_identifies_where_it_is_unambiguous():
    pressure = source(name="PRMSL_GDS0", units="Pa", standard_name="air_pressure_at_mean_sea_level")
    assert "msl" in build_cube(pressure, data("msl"))
    warm = source(name="Tair", standard_name="air_temperature")  # at 2 m, or anywhere
    with pytest.raises(DataError, match=re.escape("'variables: {NAME: {name: t2m}}'")):
        build_cube(warm, data("t2m"))


def test_unknown_variable_shows_what_there_is():
    with pytest.raises(DataError, match=r"no channel 'msl'.*It has: 't2m'"):
        build_cube(source(), data("msl"))


def test_several_channels_of_one_variable():
    deep = source(name="t", levels=[850, 500])
    cube = build_cube(deep, data("t500", "t850"))
    assert list(cube) == ["t500", "t850"]
    np.testing.assert_array_equal(cube["t850"], deep["t"][:, 0])


@pytest.mark.parametrize(
    ("channel", "units", "expected"),
    [
        ("t2m", "degC", 275.15),
        ("t2m", "Kelvin", 2),
        ("msl", "hPa", 200),
        ("msl", "mb", 200),
        ("u10", "knots", 2 * 1852 / 3600),
        ("tcc", "%", 0.02),
    ],
)
def test_units_are_converted(channel, units, expected):
    cube = build_cube(source(name=channel, units=units), data(channel))
    assert float(cube[channel][0, 0, 2]) == pytest.approx(expected, rel=1e-6)


def test_geopotential_height_becomes_geopotential():
    cube = build_cube(source(name="hgt", units="gpm", levels=[500]), data("z500"))
    assert float(cube["z500"][0, 0, 2]) == pytest.approx(2 * 9.80665)


@pytest.mark.parametrize("name", ["orography", "z", "geopotential_at_surface"])
def test_orography_from_surface_geopotential_even_with_a_time_axis(name):
    ground = xr.merge([source(), source(name=name, units="m**2 s**-2")])
    cube = build_cube(ground, data("t2m", static=("orography",)))
    assert cube["orography"].dims == ("latitude", "longitude")
    assert float(cube["orography"][0, 2]) == pytest.approx(2 / 9.80665)


def test_geopotential_at_a_level_is_no_orography():
    deep = xr.merge([source(), source(name="z", units="m2 s-2", levels=[500])])
    with pytest.raises(DataError, match="no channel 'orography'"):
        build_cube(deep, data("t2m", static=("orography",)))


def test_missing_units_say_how_to_declare_them():
    with pytest.raises(DataError, match=r"'slp' has no units.*variables: \{slp: \{units: UNIT\}\}"):
        build_cube(source(name="slp", units=None), data("msl"))


def test_units_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="'t2m' is in 'Pa', but climlstm keeps 't2m' in 'K'"):
        build_cube(source(units="Pa"), data("t2m"))


def test_units_that_are_not_understood_are_refused():
    with pytest.raises(DataError, match="the unit 'bananas' is not understood"):
        build_cube(source(units="bananas"), data("t2m"))


@pytest.mark.parametrize(
    ("name", "channel", "units"),
    [
        ("HGT_2_ISBL", "z500", "gpm"),
        ("HGT_P0_L100_GLL0", "z500", "gpm"),
        ("TMP_3_ISBL", "t850", "K"),
        ("U_GRD_P0_L100_GLL0", "u850", "m s-1"),
        ("V_VEL_98_ISBL", "w500", "Pa s-1"),
        ("R_H_2_ISBL", "r850", "%"),
    ],
)
@pytest.mark.parametrize("level", ["lv_ISBL0", "lv_ISBL3"])
def test_names_that_ncl_gives_to_grib(name, channel, units, level):
    found = source(name=name, units=units, levels=[1000.0, 850.0, 500.0]).rename(level=level)
    cube = build_cube(found, data(channel))
    place = {level: 850 if channel.endswith("850") else 500}
    factor = 9.80665 if channel.startswith("z") else 1
    np.testing.assert_allclose(cube[channel], found[name].sel(place) * factor, rtol=1e-6)
