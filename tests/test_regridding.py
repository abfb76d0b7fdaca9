"""Regridding in a catalog: methods, missing values, winds, and what the cube says of it."""

import numpy as np
import pytest
import xarray as xr
import yaml

from climlstm import runs
from climlstm.advice import declarations
from climlstm.data.cube.cube import build_cube, plan_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.sources.regridding import REGRIDDED
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import CatalogError, DataError
from climlstm.grid import LatLon, grid_of
from tests.test_grid_projected import lambert, tripolar
from tests.test_native_grids import TIMES, run_file

BOX = {"latitude": [42.0, 38.0, 1.0], "longitude": [-97.0, -93.0, 1.0]}


def smooth(latitude, longitude):
    """A field that is nearly linear over a cell."""
    return 1e5 + 100 * latitude + 50 * longitude


def write(folder, source, **regrid):
    """A catalog whose source is regridded, and a run file."""
    file = f"data{len(list(folder.glob('data*.nc')))}.nc"
    source.to_netcdf(folder / file, engine="netcdf4")
    run = run_file(folder, forcing=[])
    content = yaml.safe_load((folder / "catalog.yaml").read_text())
    content["sources"]["data"]["args"]["urlpath"] = "{{ CATALOG_DIR }}/" + file
    content["sources"]["data"]["metadata"] = {"regrid": regrid}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(content))
    return run


def on(grid, name="msl", **extra):
    values = np.broadcast_to(smooth(grid.latitude, grid.longitude), (TIMES.size, *grid.shape))
    fields = {name: (("time", *grid.dims), values.astype("f4"), {"units": "Pa"})}
    return xr.Dataset(fields | extra, grid.coordinates() | {"time": TIMES})


def globe(spacing):
    rows = np.arange(90 - spacing / 2, -90, -spacing)
    return LatLon(rows, np.arange(0, 360.0, spacing))


@pytest.mark.parametrize(("method", "error"), [("nearest", 80), ("inverse_distance", 40)])
def test_a_projected_source_on_latitudes_and_longitudes(method, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write(tmp_path, on(lambert(20, 20, 40e3)), method=method, **BOX)
    cube = build_cube(open_source("catalog.yaml", "data"), run.data)
    assert cube["msl"].dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(cube["latitude"], np.arange(42.0, 37, -1))
    expected = smooth(cube.latitude, cube.longitude)
    assert float(np.abs(cube["msl"][0] - expected).max()) < error
    assert cube.attrs[REGRIDDED].startswith(f"{method} to 5 × 5 cells")


def test_the_stream_and_a_prepared_store_have_the_same_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write(tmp_path, on(lambert(20, 20, 40e3)), method="nearest", **BOX)
    plan = plan_cube(open_source("catalog.yaml", "data"), run.data)
    [part] = make_parts(plan, ("msl",))
    steps = np.arange(3)
    np.testing.assert_array_equal(part.read(steps)[0], plan.cube["msl"].values[steps])
    runs.prepare(run, tmp_path / "cube.zarr")
    prepared = xr.open_zarr(tmp_path / "cube.zarr")
    wanted = plan.cube["msl"].sel(time=prepared.time)
    np.testing.assert_array_equal(prepared["msl"], wanted)
    assert prepared.attrs[REGRIDDED] == plan.cube.attrs[REGRIDDED]
    assert build_cube(prepared, run.data).attrs[REGRIDDED] == plan.cube.attrs[REGRIDDED]


def test_a_list_of_cells_becomes_rows_and_columns_as_the_refusal_says(tmp_path, monkeypatch):
    """A reduced Gaussian grid: fewer cells near the poles."""
    monkeypatch.chdir(tmp_path)
    rows = np.arange(87.5, -90, -5.0)
    numbers = (8 + 64 * np.cos(np.deg2rad(rows))).astype(int)
    latitude = rows.repeat(numbers)
    longitude = np.concatenate([np.arange(n) * 360 / n for n in numbers])
    values = np.broadcast_to(1e5 + 100 * latitude, (TIMES.size, latitude.size)).astype("f4")
    source = xr.Dataset(
        {"msl": (("time", "cell"), values, {"units": "Pa"})},
        {"time": TIMES, "latitude": ("cell", latitude), "longitude": ("cell", longitude)},
    )
    with pytest.raises(DataError, match=r"both lie along 'cell'.*'regrid: ") as error:
        build_cube(source, run_file(tmp_path).data)
    [said] = declarations(str(error.value))
    run = write(tmp_path, source, **said["regrid"])
    cube = build_cube(open_source("catalog.yaml", "data"), run.data)
    assert float(np.abs(cube["msl"][0] - 1e5 - 100 * cube.latitude).max()) < 300
    assert grid_of(cube).continuation.wraps


def test_conservative_means_keep_the_mean_of_the_globe(tmp_path, monkeypatch):
    pytest.importorskip("xarray_regrid", reason="needs the extra regrid")
    monkeypatch.chdir(tmp_path)
    fine, coarse = globe(5.0), globe(15.0)
    target = {"latitude": [82.5, -82.5, 15.0], "longitude": [5.0, 350.0, 15.0]}
    run = write(tmp_path, on(fine), method="conservative", **target)
    cube = build_cube(open_source("catalog.yaml", "data"), run.data)
    blocks = smooth(fine.latitude, fine.longitude) * fine.area
    expected = blocks.reshape(12, 3, 24, 3).sum((1, 3)) / fine.area.reshape(12, 3, 24, 3).sum(
        (1, 3)
    )
    np.testing.assert_allclose(cube["msl"][0], expected, rtol=3e-4)
    mean = float((cube["msl"][0] * coarse.area).mean())
    assert mean == pytest.approx(
        (smooth(fine.latitude, fine.longitude) * fine.area).mean(), rel=1e-4
    )


@pytest.mark.parametrize(("missing", "expected"), [(0.0, False), (0.6, True)])
def test_a_new_cell_without_enough_values_is_missing(missing, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = on(globe(10.0))
    source["msl"] = source["msl"].where((source.latitude < 40) | (source.latitude > 60))
    grid = {"latitude": [50.0, 39.0, 11.0], "longitude": [10.0, 60.0, 10.0]}
    run = write(tmp_path, source, method="inverse_distance", missing=missing, **grid)
    cube = build_cube(open_source("catalog.yaml", "data"), run.data)
    assert np.isfinite(cube["msl"][0, 1]).all() == expected
    assert np.isnan(cube["msl"][0, 0]).all()


@pytest.mark.parametrize("layout", ["esmf", "scrip"])
def test_weights_of_another_tool(layout, tmp_path, monkeypatch):
    """Means of two cells in a row, from a file in each layout."""
    monkeypatch.chdir(tmp_path)
    latitude, longitude = tripolar(12, 24)
    number = np.arange(12 * 24).reshape(12, 24)
    rows, columns = np.arange(12 * 12).repeat(2) + 1, number.ravel() + 1
    lat, lon = latitude[:, ::2].ravel(), longitude[:, ::2].ravel()
    share = np.full(rows.size, 0.5)
    if layout == "esmf":
        file = xr.Dataset({
            "row": ("n_s", rows), "col": ("n_s", columns), "S": ("n_s", share),
            "yc_b": ("n_b", lat, {"units": "degrees"}), "xc_b": ("n_b", lon, {"units": "degrees"}),
            "dst_grid_dims": ("rank", np.array([12, 12], "i4")), "frac_a": ("n_a", np.ones(288)),
        })  # fmt: skip
    else:
        file = xr.Dataset({
            "dst_address": ("links", rows), "src_address": ("links", columns),
            "remap_matrix": (("links", "num_wgts"), share[:, None]),
            "dst_grid_center_lat": ("dst_grid_size", np.deg2rad(lat), {"units": "radians"}),
            "dst_grid_center_lon": ("dst_grid_size", np.deg2rad(lon), {"units": "radians"}),
            "dst_grid_dims": ("rank", np.array([12, 12], "i4")),
            "src_grid_area": ("src_grid_size", np.ones(288)),
        })  # fmt: skip
    file.to_netcdf("weights.nc", engine="netcdf4")
    field = np.broadcast_to(number, (TIMES.size, 12, 24)).astype("f4")
    source = xr.Dataset(
        {"msl": (("time", "j", "i"), field, {"units": "Pa"})},
        {"time": TIMES, "lat": (("j", "i"), latitude, {"units": "degrees_north"}),
         "lon": (("j", "i"), longitude, {"units": "degrees_east"})},
    )  # fmt: skip
    run = write(tmp_path, source, method="weights", weights="weights.nc")
    cube = build_cube(open_source("catalog.yaml", "data"), run.data)
    means = number.reshape(12, 12, 2).mean(axis=2)
    np.testing.assert_allclose(cube["msl"][0], means[::-1])
    assert grid_of(cube).kind == "curvilinear"
    run = write(tmp_path, source.isel(i=slice(1, None)), method="weights", weights="weights.nc")
    with pytest.raises(CatalogError, match="the weights are for 288 cells, but it has 276"):
        open_source("catalog.yaml", "data")


def test_winds_along_rows_are_turned_before(tmp_path, monkeypatch):
    from climlstm.grid.winds import turned

    monkeypatch.chdir(tmp_path)
    grid = lambert(20, 20, 40e3)
    u, v = turned(np.full(grid.shape, 10.0), np.zeros(grid.shape), grid.angle)
    fields = {
        name: (("time", *grid.dims), np.broadcast_to(part, (TIMES.size, *grid.shape)).astype("f4"),
               {"units": "m s-1", "standard_name": standard})
        for name, part, standard in (("u10", u, "x_wind"), ("v10", v, "y_wind"))
    }  # fmt: skip
    source = xr.Dataset(fields, grid.coordinates() | {"time": TIMES})
    write(tmp_path, source, method="nearest", **BOX)
    found = open_source("catalog.yaml", "data")
    np.testing.assert_allclose(found["u10"][0], 10, atol=1e-4)
    np.testing.assert_allclose(found["v10"][0], 0, atol=1e-4)
    assert found["u10"].attrs["standard_name"] == "eastward_wind"


@pytest.mark.parametrize(
    ("regrid", "says"),
    [
        ({"method": "nearest"}, "needs 'latitude' and 'longitude'"),
        ({"method": "weights"}, "'weights' names a file"),
        ({"method": "cubic", **BOX}, "method"),
        ({"method": "weights", "weights": "none.nc"}, "holds no weights"),
    ],
)
def test_a_regridding_that_cannot_be_done_says_so(regrid, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, on(lambert()), **regrid)
    with pytest.raises(CatalogError, match=says):
        open_source("catalog.yaml", "data")
