"""From sources of all shapes to the one shape of a cube, on grids small enough to print."""

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.cube.cube import build_cube, plan_cube
from climlstm.errors import DataError
from tests.small_sources import data, source


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
    monkeypatch.setattr(
        "climlstm.data.cube.cube.channel_in", lambda _, name, __: Channel(name, hour)
    )
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
        stored = [plan.stored(field) for field in recipe.fields]
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
