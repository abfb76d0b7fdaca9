"""From sources of all shapes to the one shape of a cube, on grids small enough to print."""

import re
from datetime import date

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.config import DataConfig, Periods, Region
from climlstm.data.cube.cube import build_cube, plan_cube
from climlstm.errors import DataError

YEARS = [(date(year, 1, 1), date(year, 12, 31)) for year in (2000, 2001, 2002)]
PERIODS = Periods(train=YEARS[0], valid=YEARS[1], test=YEARS[2])


def data(*state, step="6h", region=None, **options):
    if region is not None:
        region = Region(latitude=region[0], longitude=region[1])
    return DataConfig(
        catalog="c", source="s", state=state, step=step, region=region, periods=PERIODS, **options
    )


def source(
    *,
    name="t2m",
    units="K",
    times=None,
    latitude=(10.0, 0.0, -10.0),
    longitude=(0.0, 90.0, 180.0, 270.0),
    levels=None,
    values=None,
    **attributes,
):
    """One variable (time[, level], latitude, longitude), numbered on from zero."""
    times = pd.date_range("2000-01-01", periods=4, freq="6h") if times is None else times
    coords = {"time": times, "latitude": list(latitude), "longitude": list(longitude)}
    dims = ["time", "latitude", "longitude"]
    if levels is not None:
        coords["level"] = ("level", levels, {"units": "hPa"})
        dims.insert(1, "level")
    shape = [len(coords[d]) if d != "level" else len(levels) for d in dims]
    if values is None:
        values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    attributes |= {} if units is None else {"units": units}
    return xr.Dataset({name: (dims, values, attributes)}, coords=coords)


def test_cube_has_our_names_units_order_and_attributes():
    cube = build_cube(source(units="degC"), data("t2m"))
    assert cube["t2m"].dims == ("time", "latitude", "longitude")
    assert cube["t2m"].dtype == np.float32
    assert dask.is_dask_collection(cube["t2m"])
    assert cube["t2m"].attrs["units"] == "K"
    assert cube["t2m"].attrs["standard_name"] == "air_temperature"
    assert cube["latitude"].attrs["units"] == "degrees_north"
    assert cube["longitude"].attrs["standard_name"] == "longitude"
    np.testing.assert_allclose(cube["t2m"][0, 0, :2], [273.15, 274.15])


def test_cube_reads_back_through_itself():
    """A cube written out is a source like any other."""
    cube = build_cube(source(), data("t2m"))
    xr.testing.assert_identical(build_cube(cube, data("t2m")), cube)


# Axes


@pytest.mark.parametrize(
    "names",
    [
        {"latitude": "lat", "longitude": "lon"},
        {"latitude": "Lat", "longitude": "LON"},
        {"latitude": "nav_lat", "longitude": "nav_lon", "time": "valid_time"},
        {"latitude": "y", "longitude": "x", "time": "date"},
    ],
)
def test_axes_by_common_names(names):
    cube = build_cube(source().rename(names), data("t2m"))
    np.testing.assert_array_equal(cube["t2m"], source()["t2m"])


def test_axes_by_cf_attributes_whatever_their_names():
    odd = source().rename({"latitude": "a", "longitude": "b", "time": "c"})
    odd["a"].attrs["units"] = "degrees_north"
    odd["b"].attrs["standard_name"] = "longitude"
    odd["c"].attrs["axis"] = "T"
    np.testing.assert_array_equal(build_cube(odd, data("t2m"))["t2m"], source()["t2m"])


def test_dimensions_may_come_in_any_order():
    turned = source().transpose("longitude", "time", "latitude")
    xr.testing.assert_equal(build_cube(turned, data("t2m")), build_cube(source(), data("t2m")))


def test_unrecognised_axis_says_how_to_declare_it():
    with pytest.raises(DataError, match=re.escape("'axes: {latitude: NAME}'")):
        build_cube(source().rename(latitude="rows"), data("t2m"))


def test_curvilinear_grid_is_refused():
    curved = source().rename(latitude="j", longitude="i")
    curved = curved.assign_coords(
        lat=(("j", "i"), np.zeros((3, 4))), lon=(("j", "i"), np.ones((3, 4)))
    )
    with pytest.raises(DataError, match="not regular in latitude and longitude"):
        build_cube(curved, data("t2m"))


def test_time_step_layout_uses_valid_time():
    forecast = source().rename(time="step")
    forecast = forecast.assign_coords(
        step=pd.to_timedelta([0, 6, 12, 18], unit="h"), time=np.datetime64("2000-01-01", "ns")
    )
    forecast = forecast.assign_coords(valid_time=("step", (forecast.time + forecast.step).values))
    np.testing.assert_array_equal(build_cube(forecast, data("t2m"))["time"], source()["time"])


def test_new_climate_data_store_layout():
    new = source(name="t", levels=[1000.0, 850.0, 500.0])
    new = new.rename(time="valid_time", level="pressure_level")
    new = new.assign_coords(number=0, expver=("valid_time", ["0001"] * 4))
    cube = build_cube(new, data("t850"))
    np.testing.assert_array_equal(cube["t850"], new["t"].sel(pressure_level=850))


def test_layout_of_weatherbench():
    """Longitude before latitude, south first, ERA5 names, levels without units."""
    first, ground = source(name="2m_temperature"), source(name="land_sea_mask", units="(0 - 1)")
    deep = source(name="geopotential", units="m**2 s**-2", levels=[50, 500, 850])
    deep["level"].attrs = {}
    stored = xr.merge([first, deep, ground.isel(time=0, drop=True)])
    stored = stored.transpose("time", "level", "longitude", "latitude").isel(
        latitude=slice(None, None, -1)
    )
    cube = build_cube(stored.chunk(time=2), data("t2m", "z500", static=("land_mask",)))
    np.testing.assert_array_equal(cube["t2m"], first["2m_temperature"])
    np.testing.assert_array_equal(cube["z500"], deep["geopotential"][:, 1])
    np.testing.assert_array_equal(cube["land_mask"], ground["land_sea_mask"][0])


@pytest.mark.parametrize(
    ("units", "factor"), [("Pa", 100), ("hPa", 1), ("millibars", 1), (None, 100)]
)
def test_levels_in_pascal_or_hectopascal(units, factor):
    deep = source(name="z", units="m2 s-2", levels=[850.0 * factor, 500.0 * factor])
    deep["level"].attrs = {} if units is None else {"units": units}
    np.testing.assert_array_equal(build_cube(deep, data("z500"))["z500"], deep["z"][:, 1])


def test_model_levels_are_no_pressures():
    deep = source(name="t", levels=[500, 501])
    deep["level"].attrs = {"units": "1", "standard_name": "model_level_number"}
    with pytest.raises(DataError, match="no channel 't500'"):
        build_cube(deep, data("t500"))


def test_absent_level_lists_those_there_are():
    with pytest.raises(DataError, match="no channel 't700': it has 't' at 850, 500 hPa"):
        build_cube(source(name="t", levels=[850, 500]), data("t700"))


# Names


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
    with pytest.raises(DataError, match=re.escape("'variables: {NAME: {name: t2m, units: K}}'")):
        build_cube(warm, data("t2m"))


def test_unknown_variable_shows_what_there_is():
    with pytest.raises(DataError, match=r"no channel 'msl'.*It has: 't2m'"):
        build_cube(source(), data("msl"))


def test_several_channels_of_one_variable():
    deep = source(name="t", levels=[850, 500])
    cube = build_cube(deep, data("t500", "t850"))
    assert list(cube) == ["t500", "t850"]
    np.testing.assert_array_equal(cube["t850"], deep["t"][:, 0])


# Units


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


# Latitude and longitude


def test_latitude_goes_from_north_to_south():
    rising = source().isel(latitude=slice(None, None, -1))
    xr.testing.assert_equal(build_cube(rising, data("t2m")), build_cube(source(), data("t2m")))


def globe(*longitude):
    """Each value is the longitude of its column, within 0..360."""
    values = np.broadcast_to(np.array(longitude) % 360, (4, 3, len(longitude)))
    return source(longitude=longitude, values=values.astype("float32"))


EAST_0_360 = globe(*range(0, 360, 30))
EAST_180_180 = globe(*range(-180, 180, 30))
ROLLED = globe(*range(0, 180, 30), *range(-180, 0, 30))


@pytest.mark.parametrize("world", [EAST_0_360, EAST_180_180, ROLLED])
@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((-60, 60), [-60, -30, 0, 30, 60]),  # across Greenwich
        ((300, 60), [-60, -30, 0, 30, 60]),
        ((150, 210), [150, 180, 210]),  # across the date line
        ((150, -150), [150, 180, 210]),
        ((40, 100), [60, 90]),
        ((-180, 180), list(range(-180, 180, 30))),  # once round
        ((0, 360), list(range(0, 360, 30))),
    ],
)
def test_region_is_monotonic_in_longitude(world, bounds, expected):
    cube = build_cube(world, data("t2m", region=((10, -10), bounds)))
    np.testing.assert_array_equal(cube["longitude"], expected)
    np.testing.assert_array_equal(cube["t2m"][0, 0], np.array(expected) % 360)


def test_whole_globe_keeps_the_meridian_it_starts_at():
    for world in (EAST_0_360, EAST_180_180):
        np.testing.assert_array_equal(
            build_cube(world, data("t2m"))["longitude"], world["longitude"]
        )
    np.testing.assert_array_equal(
        build_cube(ROLLED, data("t2m"))["longitude"], np.arange(0, 360, 30)
    )


def test_westward_longitudes_are_turned():
    cube = build_cube(globe(270, 180, 90, 0), data("t2m"))
    np.testing.assert_array_equal(cube["longitude"], [0, 90, 180, 270])
    np.testing.assert_array_equal(cube["t2m"][0, 0], [0, 90, 180, 270])


def test_repeated_meridian_is_taken_once():
    cube = build_cube(globe(0, 90, 180, 270, 360), data("t2m"))
    np.testing.assert_array_equal(cube["longitude"], [0, 90, 180, 270])


def test_float32_coordinates_lose_their_noise():
    cube = build_cube(globe(*np.arange(0, 360, 0.4, dtype="float32")), data("t2m"))
    assert cube["longitude"].values[3] == 1.2


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (((80, 40), (0, 90)), "latitudes 40..80 go beyond the source's -10..10"),
        (((9, 1), (0, 90)), "No row of the source lies within the latitudes 1..9"),
        (((10, -10), (1, 80)), "No column of the source"),
    ],
)
def test_region_without_data_is_refused(region, message):
    with pytest.raises(DataError, match=message):
        build_cube(source(), data("t2m", region=region))


def test_region_beyond_a_regional_source_is_refused():
    west = source(longitude=(-10, -8, -6, -4))
    with pytest.raises(DataError, match=r"longitudes -10..30 go beyond the source's -10..-4"):
        build_cube(west, data("t2m", region=((10, -10), (-10, 30))))
    build_cube(west, data("t2m", region=((10, -10), (350, -4))))


def test_hole_in_longitude_is_refused():
    with pytest.raises(DataError, match="not evenly spaced"):
        build_cube(globe(0, 30, 60, 300, 330), data("t2m", region=((10, -10), (0, 360))))


def test_latitudes_beyond_the_poles_are_refused():
    with pytest.raises(DataError, match="beyond 90 degrees"):
        build_cube(source(latitude=(100, 0, -100)), data("t2m"))


# Coarsening


def test_coarsening_takes_area_weighted_means_of_whole_cells():
    values = np.arange(16, dtype="float32").reshape(1, 4, 4).repeat(4, axis=0)
    fine = source(latitude=(75, 45, 15, -15), longitude=(0, 10, 20, 30), values=values)
    cube = build_cube(fine, data("t2m", coarsen=2))
    np.testing.assert_array_equal(cube["latitude"], [60, 0])
    np.testing.assert_array_equal(cube["longitude"], [5, 25])
    north, south = 1 - np.sin(np.pi / 3), np.sin(np.pi / 3) - 0.5  # 60..90 and 30..60 degrees
    top = (north * 0.5 + south * 4.5) / (north + south)
    np.testing.assert_allclose(cube["t2m"][0], [[top, top + 2], [10.5, 12.5]], rtol=1e-6)


def test_coarse_cell_is_missing_where_any_of_its_cells_is():
    values = np.zeros((4, 2, 4), "float32")
    values[:, 0, 0] = np.nan
    fine = source(latitude=(10, -10), values=values)
    cube = build_cube(fine, data("t2m", coarsen=2))
    np.testing.assert_array_equal(np.isnan(cube["t2m"][0]), [[True, False]])


def test_cells_that_do_not_divide_are_refused():
    with pytest.raises(
        DataError, match=r"3 latitude rows \(10..-10\) do not make whole blocks of 2"
    ):
        build_cube(source(), data("t2m", coarsen=2))


# Time


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


# Members, missing values, packing


def test_members_need_a_choice():
    members = source().expand_dims(number=[3, 4])
    with pytest.raises(DataError, match=r"'number' with 2 ensemble members.*select: \{number: 3\}"):
        build_cube(members, data("t2m"))
    alone = members.isel(number=[1])
    assert build_cube(alone, data("t2m"))["t2m"].dims == ("time", "latitude", "longitude")


@pytest.mark.parametrize(
    "spelling", ["_FillValue", "missing_value", "fill_value", "FillValue", "undef"]
)
def test_fill_values_by_any_spelling(spelling):
    values = np.full((4, 3, 4), 7, "float32")
    values[0, 0, 0] = 9.96921e36
    found = build_cube(source(values=values, **{spelling: 9.9692e36}), data("t2m"))["t2m"]
    assert np.isnan(found.values[0, 0, 0])
    assert int(found.isnull().sum()) == 1


def test_packed_integers_are_unpacked_and_converted_in_one():
    packed = np.full((4, 3, 4), -32767, "int16")
    packed[1] = 100
    found = source(
        values=packed, units="degC", scale_factor=0.01, add_offset=5.0, _FillValue=-32767
    )
    cube = build_cube(found, data("t2m")).compute()
    np.testing.assert_allclose(cube["t2m"][1], 279.15, rtol=1e-6)
    assert bool(cube["t2m"][0].isnull().all())


def test_packed_file_gives_the_same_decoded_or_not(tmp_path):
    values = np.random.default_rng(0).normal(280, 10, (4, 3, 4))
    encoding = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    source(values=values).to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding={"t2m": encoding})
    decoded, stored = (
        build_cube(
            xr.open_dataset(tmp_path / "a.nc", engine="netcdf4", mask_and_scale=flag), data("t2m")
        )
        for flag in (True, False)
    )
    xr.testing.assert_allclose(decoded, stored, rtol=1e-7)
    np.testing.assert_allclose(decoded["t2m"], values, atol=0.0051)


def test_nan_stays_nan():
    values = np.zeros((4, 3, 4), "float32")
    values[:, 2, 1] = np.nan
    assert int(build_cube(source(values=values), data("t2m"))["t2m"].isnull().sum()) == 4


@pytest.mark.parametrize("dtype", [">f4", "<f8", "int32", ">i2", "uint8"])
def test_any_number_type_becomes_float32(dtype):
    values = np.arange(48).reshape(4, 3, 4).astype(dtype)
    cube = build_cube(source(values=values, units="degC"), data("t2m")).compute()
    assert cube["t2m"].dtype == np.dtype("float32")
    np.testing.assert_allclose(cube["t2m"], values + 273.15, rtol=1e-6)


# Derived and static


def wind():
    return xr.merge([source(name="10u", units="m s-1"), source(name="v10", units="knots")])


def test_derived_variable_from_its_inputs():
    cube = build_cube(wind(), data("ws10"))
    values = source()["t2m"]
    np.testing.assert_allclose(cube["ws10"], np.hypot(values, values * 1852 / 3600), rtol=1e-6)


def test_derived_variable_names_the_input_that_is_absent():
    with pytest.raises(DataError, match="no channel 'ws10', which is derived from 'v10'"):
        build_cube(source(name="u10", units="m s-1"), data("ws10"))


def test_derive_sees_the_coordinates_of_its_block(monkeypatch):
    from climlstm.plugins import Variable
    from climlstm.plugins.channels import Channel

    hour = Variable(
        name="hour",
        long_name="hour",
        units="1",
        inputs=("t2m",),
        derive=lambda ds: ds["t2m"] * 0 + ds["time"].dt.hour + ds["latitude"],
    )
    monkeypatch.setattr("climlstm.data.cube.cube.channel", lambda name: Channel(name, hour))
    cube = build_cube(source().chunk(time=2), data("hour"))
    np.testing.assert_array_equal(cube["hour"][:, 0, 0], [10, 16, 22, 28])


def test_static_and_state_are_not_confused():
    land = xr.merge([source(), source(name="lsm", units="(0 - 1)").isel(time=0, drop=True)])
    cube = build_cube(land, data("t2m", static=("land_mask",)))
    assert cube["land_mask"].dims == ("latitude", "longitude")
    with pytest.raises(DataError, match="'land_mask' stands under 'state', but never changes"):
        build_cube(land, data("t2m", "land_mask"))
    with pytest.raises(DataError, match="'t2m' stands under 'static', but varies"):
        build_cube(land, data("msl", static=("t2m",)))


def test_state_without_time_is_refused():
    with pytest.raises(DataError, match=r"without time.*ask for what never changes under 'static'"):
        build_cube(xr.merge([source(), source(name="sp", units="Pa").isel(time=0)]), data("sp"))


# Laziness


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"region": ((10, -10), (-90, 90))},
        {"region": ((10, 0), (0, 270)), "coarsen": 2},
    ],
)
def test_lazily_built_equals_eagerly_read(options):
    whole = xr.merge([wind(), source(name="t", units="degC", levels=[850, 500])]).chunk(time=2)
    plan = plan_cube(whole, data("ws10", "t500", **options))
    cube = plan.cube
    for recipe in plan.recipes:
        stored = [plan.stored(field).compute() for field in recipe.fields]
        eager = recipe.read(stored, plan.times.values)
        assert eager.dtype == np.float32
        np.testing.assert_array_equal(cube[recipe.channel.name].values, eager)


def test_chunks_follow_the_source_and_each_is_one_task():
    times = pd.date_range("2000-01-01", periods=48, freq="1h")
    cube = build_cube(source(times=times).chunk(time=12, latitude=1), data("t2m"))
    assert cube["t2m"].chunks == ((2, 2, 2, 2), (3,), (4,))
    whole = build_cube(source(times=times).chunk(time=12), data("t2m", step="1h"))
    graph = dask.optimize(whole["t2m"].data)[0].dask
    assert len(graph) <= 2 * whole["t2m"].data.numblocks[0]


def test_building_reads_nothing():
    def explode(block):
        raise AssertionError("read too early")

    lazy = source()
    lazy["t2m"] = lazy["t2m"].copy(
        data=dask.array.map_blocks(
            explode, lazy["t2m"].chunk(time=1).data, dtype="f4", meta=np.empty((0, 0, 0), "f4")
        )
    )
    cube = build_cube(lazy, data("t2m", region=((10, -10), (-90, 90))))
    with pytest.raises(AssertionError, match="too early"):
        cube.compute()


def test_tasks_can_be_sent_to_other_processes():
    import cloudpickle

    cube = build_cube(wind().chunk(time=2), data("ws10", "u10"))
    xr.testing.assert_identical(
        cloudpickle.loads(cloudpickle.dumps(cube)).compute(), cube.compute()
    )


def test_plain_float32_is_not_copied():
    plan = plan_cube(source(), data("t2m"))
    stored = source()["t2m"].values
    assert np.shares_memory(plan.recipes[0].read([stored]), stored)
