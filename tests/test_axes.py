"""Axes of a source: which they are, and which rows and columns a region takes."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.cube.cube import build_cube
from climlstm.data.sources.declarations import Metadata, declare
from climlstm.errors import CatalogError, DataError
from climlstm.grid.axes import orient
from tests.small_sources import data, source


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


def test_cells_that_all_lie_in_one_place_are_refused():
    curved = source().rename(latitude="j", longitude="i")
    curved = curved.assign_coords(
        lat=(("j", "i"), np.zeros((3, 4))), lon=(("j", "i"), np.ones((3, 4)))
    )
    with pytest.raises(DataError, match="All cells have the same latitude and longitude"):
        build_cube(curved, data("t2m"))


ROTATED = {"standard_name": "grid_latitude", "units": "degrees"}, {
    "standard_name": "grid_longitude", "units": "degrees"
}  # fmt: skip
PROJECTED = tuple(
    {"standard_name": f"projection_{axis}_coordinate", "units": "km"} for axis in "yx"
)


@pytest.mark.parametrize(
    ("names", "attrs", "extra", "said"),
    [
        (("rlat", "rlon"), ROTATED, {}, "'rlat' and 'rlon' are coordinates of a projection"),
        (("rlat", "rlon"), ({}, {}), {}, "'rlat' and 'rlon' are coordinates of a projection"),
        (("lat", "lon"), ROTATED, {}, "'lat' and 'lon' are coordinates of a projection"),
        (("grid_latitude", "grid_longitude"), ({"units": "degrees"},) * 2, {}, "'grid_latitude'"),
        (("y", "x"), PROJECTED, {}, "'y' and 'x' are coordinates of a projection"),
        (("y", "x"), ({"units": "m"}, {"units": "m"}), {}, "'y' and 'x' are coordinates"),
        (("y", "x"), ({}, {}), {"crs": "lambert_conformal_conic"}, "The grid mapping 'crs' cannot"),
        (("lat", "lon"), ({"units": "degrees"},) * 2, {"pole": "rotated_latitude_longitude"},
         "The grid mapping 'pole' cannot"),
    ],
)  # fmt: skip
def test_rotated_and_projected_coordinates_are_refused(names, attrs, extra, said):
    other = source().rename(latitude=names[0], longitude=names[1])
    for name, given in zip(names, attrs, strict=True):
        other[name].attrs = given
    for name, mapping in extra.items():
        other[name] = xr.DataArray(0, attrs={"grid_mapping_name": mapping})
    with pytest.raises(DataError, match=f"{said}.*'crs: EPSG:3413'"):
        build_cube(other, data("t2m"))
    planar = declare(other, Metadata(plane=names), "source")
    assert build_cube(planar, data("t2m")).sizes == {"time": 4, "latitude": 3, "longitude": 4}


def test_coordinates_of_a_rotated_pole_cannot_be_declared_as_degrees():
    rotated = source().rename(latitude="grid_latitude", longitude="grid_longitude")
    with pytest.raises(CatalogError, match="'grid_latitude' its latitude, but that counts from a"):
        declare(rotated, Metadata(axes={"latitude": "grid_latitude"}), "a")


def test_a_grid_mapping_of_latitudes_and_longitudes_is_fine():
    described = source()
    described["crs"] = xr.DataArray(0, attrs={"grid_mapping_name": "latitude_longitude"})
    build_cube(described, data("t2m"))


def test_lists_of_points_are_refused():
    """A reduced Gaussian grid: latitudes and longitudes along one dimension."""
    points = xr.Dataset(
        {"t2m": (("time", "values"), np.zeros((4, 5), "f4"), {"units": "K"})},
        {
            "time": source()["time"],
            "latitude": ("values", np.linspace(80, -80, 5)),
            "longitude": ("values", np.linspace(0, 300, 5)),
        },
    )
    with pytest.raises(DataError, match=r"both lie along 'values'.*reduced Gaussian.*'regrid: "):
        build_cube(points, data("t2m"))


def test_positions_that_vary_in_time_are_no_axes():
    """WRF: the message says what works, and what it says works."""
    moving = source().rename(latitude="south_north", longitude="west_east", time="Time")
    moving = moving.drop_vars(["south_north", "west_east", "Time"])
    dims, shape = ("Time", "south_north", "west_east"), (4, 3, 4)
    moving = moving.assign_coords(
        XLAT=(dims, np.zeros(shape), {"units": "degree_north"}),
        XLONG=(dims, np.zeros(shape), {"units": "degree_east"}),
        XTIME=("Time", source()["time"].values),
    )
    with pytest.raises(DataError, match=r"has 3 dimensions.*plane: \[south_north, west_east\]"):
        build_cube(moving, data("t2m"))
    said = Metadata(axes={"latitude": "south_north", "longitude": "west_east"})
    with pytest.raises(CatalogError, match=r"this dimension has no values.*plane"):
        declare(moving, said, "source")
    planar = declare(moving, Metadata(plane=("south_north", "west_east")), "source")
    assert build_cube(planar, data("t2m"))["t2m"].shape == (4, 3, 4)


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


@pytest.mark.parametrize(
    ("x", "y", "attrs", "said"),
    [
        (np.arange(9.0), np.arange(7.0), {}, "an index"),
        (np.arange(9.0), np.arange(7.0), {"units": "1"}, "coordinate in '1'"),
        (np.arange(-4.0, 5), np.arange(-3.0, 4), {"units": "km"}, "coordinate in 'km'"),
        (np.arange(-4e3, 5e3, 1e3), np.arange(-3e3, 4e3, 1e3), {}, "beyond 90 degrees"),
        (np.arange(-300.0, 301, 75), np.arange(-3.0, 4), {}, "no degrees around the Earth"),
    ],
    ids=["indices", "units 1", "km", "m without units", "more than once round"],
)
def test_x_and_y_that_are_no_degrees_are_never_taken_for_them(x, y, attrs, said):
    plane = xr.DataArray(np.zeros((y.size, x.size)), {"y": y, "x": x}, ("y", "x"), name="rain")
    plane["x"].attrs.update(attrs)
    plane["y"].attrs.update(attrs)
    with pytest.raises(DataError, match=said):
        orient(plane)


def test_the_advice_for_a_field_without_coordinates_leads_to_a_right_map():
    """Following it needs degrees, so that indices or rotated coordinates cannot slip through."""
    field = xr.DataArray(np.zeros((3, 4)), dims=("rows", "columns"), name="t2m")
    with pytest.raises(DataError, match=re.escape(".assign_coords(latitude=('NAME', DEGREES))")):
        orient(field)
    placed = field.assign_coords(
        latitude=("rows", [10.0, 5, 0]), longitude=("columns", [0.0, 5, 10, 15])
    )
    assert orient(placed).dims == ("latitude", "longitude")
    rotated = xr.DataArray(
        np.zeros((3, 4)),
        {"rlat": ("rlat", [0.0, 1, 2], ROTATED[0]), "rlon": ("rlon", [0.0, 1, 2, 3], ROTATED[1])},
        ("rlat", "rlon"),
    )
    with pytest.raises(DataError) as refused:
        orient(rotated)
    assert "rename" not in str(refused.value)
    with pytest.raises(DataError, match="grid_latitude"):
        orient(rotated.rename(rlat="latitude", rlon="longitude"))
