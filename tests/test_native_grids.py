"""The whole way on grids that follow no latitudes: check, prepare, train, forecast, evaluate."""

import numpy as np
import pytest
import xarray as xr
import yaml

from climlstm import runs
from climlstm.advice import declarations
from climlstm.config import load_config
from climlstm.data.cube.cube import build_cube, plan_cube
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.forecasts import open_forecasts
from climlstm.data.sources.catalog import open_source
from climlstm.errors import DataError
from climlstm.evaluation.regions import region_weights
from climlstm.grid import grid_of
from climlstm.grid.find import ordered
from climlstm.runs import check_run
from climlstm.runs.trained import find_trained
from tests.test_grid_projected import LAMBERT, lambert, tripolar

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(400) * np.timedelta64(6, "h")


def waves(grid):
    """A pressure wave that moves along the rows, (time, H, W) in Pa."""
    step = np.arange(TIMES.size)[:, None, None]
    column = np.arange(grid.shape[1])[None, None]
    rows = 0.1 * np.arange(grid.shape[0])[None, :, None]
    return (1e5 + 1e3 * np.sin(2 * np.pi * (column / 12 - step / 10) + rows)).astype("f4")


def projected_file(folder):
    """A file on a Lambert grid in km, rows from the south, without 2-D coordinates."""
    grid = lambert(10, 12)
    names = ("projection_y_coordinate", "projection_x_coordinate")
    coords = {
        dim: (dim, values / 1e3, {"units": "km", "standard_name": name})
        for dim, values, name in zip(("y", "x"), (grid.y[::-1], grid.x), names, strict=True)
    }
    values = waves(grid)[:, ::-1]
    attributes = {"units": "Pa", "grid_mapping": "lambert"}
    mapping = {k: v for k, v in grid.crs.to_cf().items() if k != "crs_wkt"}
    source = xr.Dataset(
        {"msl": (("time", "y", "x"), values, attributes), "lambert": ((), 0, mapping)},
        coords | {"time": TIMES},
    )
    source.to_netcdf(folder / "data.nc", engine="netcdf4")
    return grid


def curvilinear_file(folder):
    """A tripolar file whose rows run from the south."""
    latitude, longitude = tripolar(12, 24)
    places = {"lat": (("j", "i"), latitude, {"units": "degrees_north"}),
              "lon": (("j", "i"), longitude, {"units": "degrees_east"})}  # fmt: skip
    source = xr.Dataset(coords=places | {"time": TIMES})
    grid = grid_of(ordered(source.assign(t=(("j", "i"), latitude))))
    source["msl"] = ("time", "j", "i"), waves(grid)[:, ::-1], {"units": "Pa"}
    source.to_netcdf(folder / "data.nc", engine="netcdf4")
    return grid


def run_file(folder, **data):
    catalog = {
        "sources": {"data": {"driver": "netcdf", "args": {"urlpath": "{{ CATALOG_DIR }}/data.nc"}}}
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    content = {
        "name": "native",
        "data": {
            "catalog": "catalog.yaml",
            "source": "data",
            "state": ["msl"],
            "step": "6h",
            "forcing": ["cos_zenith", "day"],
            "periods": {
                "train": ["2001-01-01", "2001-03-01"],
                "valid": ["2001-03-02", "2001-03-20"],
                "test": ["2001-03-21", "2001-04-10"],
            },
        } | data,
        "model": {"history": 2, "options": {"hidden": [8], "blocks": 0}},
        "training": {"horizon": 1, "batch_size": 8, "epochs": 3, "learning_rate": 1e-2,
                     "precision": "float32"},
        "forecast": {"steps": 3, "every": "1d"},
        "evaluation": {"evaluators": [{"name": "rmse"}, {"name": "power_spectrum"}],
                       "regions": ["global", "north_america"]},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return load_config(folder / "run.yaml")


@pytest.mark.parametrize("write", [projected_file, curvilinear_file])
def test_a_run_on_the_native_grid(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = write(tmp_path)
    run = run_file(tmp_path)
    assert {f.rule for f in check_run(run).findings if f.severity == "error"} == set()
    runs.train(run, under_ray=False)
    trained = find_trained(tmp_path / "runs" / "native")
    runs.forecast(trained, tmp_path / "forecasts.zarr")
    forecasts = open_forecasts(tmp_path / "forecasts.zarr")
    assert forecasts["msl"].dims == ("init_time", "lead_time", "y", "x")
    assert grid_of(forecasts).is_close(grid, 1e-6)
    np.testing.assert_allclose(forecasts["latitude"], grid.latitude, atol=1e-9)
    scores = runs.evaluate(forecasts).scores
    first = scores[(scores.metric == "rmse") & (scores.lead_time == scores.lead_time.min())]
    value = first[first.region == "global"].set_index("model").value
    assert 0 < value["convlstm"] < value["persistence"]
    assert set(scores.region) == {"global", "north_america"}


def test_other_tools_find_the_projection_in_a_store(tmp_path, monkeypatch):
    import pyproj

    monkeypatch.chdir(tmp_path)
    grid = projected_file(tmp_path)
    run = run_file(tmp_path)
    cube = build_cube(open_source(run.data.catalog, "data"), run.data)
    cube.isel(time=slice(3)).to_netcdf("cube.nc", engine="netcdf4")
    again = xr.open_dataset("cube.nc", engine="netcdf4", decode_coords="all")
    mapping = again[again["msl"].encoding["grid_mapping"]]
    assert pyproj.CRS.from_cf(mapping.attrs) == grid.crs == pyproj.CRS(mapping.attrs["spatial_ref"])
    assert {"latitude", "longitude"} <= set(again["msl"].coords)
    np.testing.assert_array_equal(again["msl"], waves(grid)[:3])


def test_a_prepared_store_is_the_same_cube(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    projected_file(tmp_path)
    run = run_file(tmp_path)
    cube = build_cube(open_source(run.data.catalog, "data"), run.data)
    runs.prepare(run, tmp_path / "cube.zarr")
    prepared = build_cube(xr.open_zarr(tmp_path / "cube.zarr"), run.data)
    xr.testing.assert_identical(prepared.load(), cube.sel(time=prepared.time).load())


def test_the_sun_stands_where_the_cells_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = projected_file(tmp_path)
    noon = np.array(["2001-06-21T18:20"], "M8[m]")
    field = forcing_fields(["cos_zenith"], noon, *grid.places)[0, 0]
    one = forcing_fields(["cos_zenith"], noon, [grid.latitude[2, 3]], [grid.longitude[2, 3]])
    assert field[2, 3] == one.item() > 0.8


def test_a_region_takes_the_rows_and_columns_that_hold_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = projected_file(tmp_path)
    box = {"latitude": [38, 42], "longitude": [-98, -93]}
    run = run_file(tmp_path, region=box)
    plan = plan_cube(open_source(run.data.catalog, "data"), run.data)
    inside = (grid.latitude > 38) & (grid.latitude < 42) & (np.abs(grid.longitude + 95.5) < 2.5)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert plan.grid.is_close(grid.take(rows, columns), 1e-6)
    elsewhere = run_file(tmp_path, region={"latitude": [-20, 0], "longitude": [0, 20]})
    with pytest.raises(DataError, match="No cell of the source lies within"):
        plan_cube(open_source(run.data.catalog, "data"), elsewhere.data)


def test_blocks_of_cells_are_means_by_area(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = projected_file(tmp_path)
    run = run_file(tmp_path, coarsen=2)
    cube = build_cube(open_source(run.data.catalog, "data"), run.data)
    block, area = waves(grid)[0, :2, :2].astype("f8"), grid.area[:2, :2]
    assert float(cube["msl"][0, 0, 0]) == pytest.approx((block * area).sum() / area.sum(), rel=1e-6)


def test_regions_and_areas_of_scores_follow_the_cells():
    grid = lambert()
    data = xr.Dataset(coords=grid.coordinates())
    weight = region_weights(data, ["global", "north_america"])
    np.testing.assert_allclose(weight[0], grid.area / grid.area.sum())
    named = (grid.latitude <= 60) & (grid.longitude >= -120) & (grid.longitude <= -75)
    assert ((weight[1] > 0) == named).all()


def test_a_projection_that_a_file_leaves_out_is_declared_as_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = projected_file(tmp_path)
    data = run_file(tmp_path, forcing=[]).data
    with xr.open_dataset("data.nc", engine="netcdf4") as source:
        source.drop_vars("lambert").load().to_netcdf("other.nc", engine="netcdf4")
    content = yaml.safe_load((tmp_path / "catalog.yaml").read_text())
    content["sources"]["data"]["args"]["urlpath"] = "{{ CATALOG_DIR }}/other.nc"

    def cube(metadata):
        content["sources"]["data"]["metadata"] = metadata
        (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(content))
        return build_cube(open_source("catalog.yaml", "data"), data)

    with pytest.raises(DataError, match="coordinates of a projection") as error:
        cube({})
    projection, plane = declarations(str(error.value))
    assert grid_of(cube(projection)).crs.to_epsg() == 3413
    declared = cube(projection | {"crs": LAMBERT})
    np.testing.assert_allclose(declared["latitude"], grid.latitude)
    assert grid_of(cube(plane)).kind == "plane"
