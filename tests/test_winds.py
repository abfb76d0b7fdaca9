"""Winds along a grid inside, towards east and north in files and scores; WRF's sides of cells."""

import numpy as np
import pytest
import xarray as xr
import yaml

from climlstm import runs
from climlstm.advice import declarations
from climlstm.config import DataConfig
from climlstm.data.cube.cube import build_cube
from climlstm.data.forecasts import open_forecasts
from climlstm.data.sources.catalog import open_path, open_source
from climlstm.data.sources.declarations import Metadata, declare
from climlstm.errors import DataError
from climlstm.grid.find import ordered
from climlstm.grid.winds import frame_of, to_earth, turned
from climlstm.runs.trained import find_trained
from climlstm.steps import Step
from tests.test_grid_projected import lambert
from tests.test_native_grids import TIMES, run_file

GRID = lambert(10, 12)
NAMES = {"earth": ("eastward_wind", "northward_wind"), "grid": ("x_wind", "y_wind")}


def source(frame, **attributes):
    """A wind of 10 m/s towards the east everywhere, as components in a frame of the file."""
    east = np.full((TIMES.size, *GRID.shape), 10, "f4")
    east += np.sin(np.arange(TIMES.size) / 3)[:, None, None].astype("f4")
    north = 0.3 * east
    parts = (east, north) if frame == "earth" else turned(east, north, GRID.angle)
    fields = {
        name: (("time", "y", "x"), np.float32(part),
               {"units": "m s-1", "standard_name": standard} | attributes)
        for name, part, standard in zip(("u10", "v10"), parts, NAMES[frame], strict=True)
    }  # fmt: skip
    return xr.Dataset(fields, GRID.coordinates() | {"time": TIMES}), (east, north)


def data(*state):
    return DataConfig(catalog="c", source="s", state=state, step="6h", periods={
        "train": ["2001-01-01", "2001-03-01"], "valid": ["2001-03-02", "2001-03-20"],
        "test": ["2001-03-21", "2001-04-10"],
    })  # fmt: skip


@pytest.mark.parametrize("frame", ["earth", "grid"])
def test_a_cube_has_winds_along_its_rows_whatever_the_file_has(frame):
    given, (east, north) = source(frame)
    cube = build_cube(given, data("u10", "v10"))
    u, v = turned(east, north, GRID.angle)
    np.testing.assert_allclose(cube["u10"], u, atol=1e-5)
    np.testing.assert_allclose(cube["v10"], v, atol=1e-5)
    assert cube["u10"].attrs["standard_name"] == "x_wind"
    assert cube["v10"].attrs["long_name"] == "10 m along y wind"
    again = to_earth(cube)
    np.testing.assert_allclose(again["u10"], east, atol=1e-5)
    np.testing.assert_allclose(again["v10"], north, atol=1e-5)
    assert again["u10"].attrs["long_name"] == "10 m eastward wind"


def test_east_of_the_middle_of_a_cone_rows_point_to_the_north_of_east_no_more():
    """Right of the central meridian x turns clockwise of east, so an east wind has v > 0 there."""
    given, _ = source("earth")
    given["v10"] = 0 * given["v10"]
    given["v10"].attrs = {"units": "m s-1", "standard_name": "northward_wind"}
    cube = build_cube(given, data("u10", "v10")).isel(time=0)
    right = GRID.longitude > -95
    assert (cube["v10"].values[right] > 0).all()
    assert (cube["v10"].values[~right & (GRID.longitude < -95.5)] < 0).all()


def test_what_is_said_of_a_wind_in_order_of_trust():
    wind = xr.DataArray(0.0, attrs={"standard_name": "eastward_wind"})
    assert frame_of(wind) == "earth"
    assert frame_of(wind.assign_attrs(GRIB_uvRelativeToGrid=1)) == "grid"
    assert frame_of(wind.assign_attrs(GRIB_uvRelativeToGrid=1, winds="earth")) == "earth"
    assert frame_of(xr.DataArray(0.0)) is None


def test_a_wind_of_unknown_direction_is_declared_as_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, (east, _) = source("earth")
    for name in ("u10", "v10"):
        del given[name].attrs["standard_name"]
    given.to_netcdf("data.nc", engine="netcdf4")
    run_file(tmp_path)
    content = yaml.safe_load((tmp_path / "catalog.yaml").read_text())

    def cube(**metadata):
        content["sources"]["data"]["metadata"] = metadata
        (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(content))
        return build_cube(open_source("catalog.yaml", "data"), data("u10", "v10"))

    with pytest.raises(DataError, match="does not say whether the wind") as error:
        cube()
    along, earth = declarations(str(error.value))
    np.testing.assert_allclose(to_earth(cube(**earth))["u10"], east, atol=1e-5)
    np.testing.assert_allclose(cube(**along)["u10"], east)


def test_one_component_alone_is_refused():
    with pytest.raises(DataError, match="together with 'v10' alone"):
        build_cube(source("earth")[0], data("u10"))


def test_forecasts_and_scores_have_east_and_north(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source("grid")[0].to_netcdf("data.nc", engine="netcdf4")
    run = run_file(tmp_path, state=["u10", "v10"], forcing=[])
    runs.train(run, under_ray=False)
    runs.forecast(find_trained(tmp_path / "runs" / "native"), tmp_path / "forecasts.zarr")
    forecasts = open_forecasts(tmp_path / "forecasts.zarr")
    assert forecasts["u10"].attrs["standard_name"] == "eastward_wind"
    assert float(np.abs(forecasts["u10"][:, 0] - 10).max()) < 3
    table = runs.evaluate(forecasts).scores
    rmse = table[(table.metric == "rmse") & (table.region == "global")]
    first = rmse[(rmse.lead_time == rmse.lead_time.min()) & (rmse.model == "persistence")]
    value = first.set_index("variable").value
    change = np.sin(np.arange(401) / 3)
    typical = np.sqrt(np.mean(np.diff(change) ** 2))
    assert value["u10"] == pytest.approx(typical, rel=0.1)
    assert value["v10"] == pytest.approx(0.3 * typical, rel=0.1)


def test_real_wrf_output_is_a_cube_with_winds_in_the_middle_of_cells(real_data):
    file = real_data / "wrf_cropped" / "wrf_d01_allvars_cropped.nc"
    opened, raw = open_path(str(file)), xr.open_dataset(file, engine="netcdf4")
    config = data("u10", "v10", "t2m").model_copy(update={"step": Step.parse("3h")})
    cube = build_cube(opened, config)
    np.testing.assert_array_equal(cube["u10"][:, ::-1], raw["U10"])
    np.testing.assert_allclose(cube["latitude"][::-1], raw["XLAT"], atol=1e-4)
    middle = (raw["U"].values[..., 1:] + raw["U"].values[..., :-1]) / 2
    np.testing.assert_allclose(opened["U"], middle, rtol=1e-6)
    sine, cosine = raw["SINALPHA"].values, raw["COSALPHA"].values
    expected = raw["U10"].values * cosine - raw["V10"].values * sine  # WRF's own formula
    np.testing.assert_allclose(to_earth(cube)["u10"][:, ::-1], expected, atol=2e-3)


def test_a_nest_that_moves_is_a_plane_as_said(real_data):
    opened = open_path(str(real_data / "wrf_cropped" / "mercator_sample.nc"))
    config = data("t2m").model_copy(update={"step": Step.parse("3h")})
    with pytest.raises(DataError, match="3 dimensions") as error:
        build_cube(opened, config)
    [said] = declarations(str(error.value))
    planar = declare(opened, Metadata(**said), "source")
    assert build_cube(planar, config)["t2m"].shape == (4, 48, 48)


def test_winds_of_nam_turn_by_the_analytic_angle(real_data, tmp_path):
    """Grid-relative GRIB (uvRelativeToGrid = 1): ignoring it changes u by 0.6 m/s."""
    pytest.importorskip("cfgrib", reason="needs the extra grib")
    file = real_data / "projected_grids" / "nam.t00z.awp21100.tm00.grib2"
    keys = {"typeOfLevel": "heightAboveGround", "level": 10}
    options = {"indexpath": "", "filter_by_keys": keys}
    entry = {"driver": "grib", "args": {"urlpath": str(file), "backend_kwargs": options}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"nam": entry}}))
    found = ordered(open_source(str(tmp_path / "catalog.yaml"), "nam"))
    assert frame_of(found["u10"]) == "grid"
    turn = np.deg2rad(
        np.sin(np.deg2rad(25)) * ((found["longitude"].values - 265 + 180) % 360 - 180)
    )
    expected = found["u10"].values * np.cos(turn) + found["v10"].values * np.sin(turn)
    for name, standard in (("u10", "x_wind"), ("v10", "y_wind")):
        found[name].attrs["standard_name"] = standard
    east = to_earth(found)["u10"].values
    np.testing.assert_allclose(east, expected, atol=1e-4)
    assert np.sqrt(np.mean((east - found["u10"].values) ** 2)) == pytest.approx(0.6, abs=0.2)
