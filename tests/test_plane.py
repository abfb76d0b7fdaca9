"""Data without geography, such as a film, from a catalog to scores, with its own variable."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from climlstm import runs
from climlstm.config import load_config
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.weatherbench import from_weatherbench, to_weatherbench
from climlstm.errors import CatalogError, DataError
from climlstm.forecasting import open_forecasts
from climlstm.grid import grid_of
from climlstm.model.geometry import Geometry
from climlstm.model.saving import read_forecaster
from climlstm.runs import check_run, find_trained

EXAMPLE = Path(__file__).parents[1] / "catalogs" / "examples" / "film"


def catalog() -> str:
    return (EXAMPLE / "catalog.yaml").read_text()


def test_film_is_forecast_and_scored(film):
    run = load_config(film / "run.yaml")
    assert {finding.rule for finding in check_run(run).findings} <= {"reading"}
    runs.train(run, under_ray=False)
    trained = find_trained(film / "runs" / "film")
    geometry = read_forecaster(trained.checkpoint)[0].spec.geometry
    assert geometry == Geometry(12, 120, sign=(1,))
    runs.forecast(trained, film / "forecasts.zarr")
    forecasts = open_forecasts(film / "forecasts.zarr")
    assert list(forecasts.data_vars) == ["film_variables:BRIGHTNESS"]
    scores = runs.evaluate(forecasts).scores
    rmse = scores[(scores.metric == "rmse") & (scores.lead_time == scores.lead_time.min())]
    value = rmse.set_index("model").value
    assert 0 < value["convlstm"] < value["persistence"]


def test_rows_and_columns_lie_as_in_the_file(film):
    cube = open_source(str(film / "catalog.yaml"), "film")
    frames = xr.open_dataset(film / "film.nc", engine="netcdf4").brightness
    np.testing.assert_array_equal(cube.brightness.sortby("latitude", ascending=False), frames)
    assert (np.diff(cube.latitude) < 0).all()
    assert (np.diff(cube.longitude) > 0).all()


@pytest.mark.parametrize(
    ("said", "message"),
    [("[y, z]", "expected two of its dimensions: frame, y, x"), ("[y, y]", "expected two")],
)
def test_plane_of_what_is_not_there_is_refused(film, said, message):
    (film / "catalog.yaml").write_text(catalog().replace("[y, x]", said))
    with pytest.raises(CatalogError, match=message):
        open_source(str(film / "catalog.yaml"), "film")


def test_plane_with_geography_is_refused(film):
    data = xr.open_dataset(film / "film.nc", engine="netcdf4").load()
    data.assign_coords(latitude=("y", np.arange(12.0))).to_netcdf(film / "other.nc")
    (film / "catalog.yaml").write_text(catalog().replace("film.nc", "other.nc"))
    with pytest.raises(CatalogError, match="it has 'latitude'"):
        open_source(str(film / "catalog.yaml"), "film")


@pytest.mark.parametrize("forcing", ["cos_zenith", "day"])
def test_nothing_that_needs_a_place_goes_with_a_plane(film, forcing):
    run = load_config(film / "run.yaml")
    data = run.data.model_copy(update={"forcing": (forcing,)})
    source = open_source(data.catalog, data.source)
    with pytest.raises(DataError, match=f"plane without geography, but '{forcing}'"):
        plan_cube(source, data)
    cube = plan_cube(source, run.data.model_copy(update={"forcing": ("season",)})).cube
    assert grid_of(cube).kind == "plane"


def test_variables_named_by_their_place_keep_that_name_in_a_store(film):
    (film / "own_levels.py").write_text(
        "from climlstm.plugins import Variable\n"
        'OZONE = Variable("o3", "Ozone", units="kg kg-1", on_levels=True)\n'
    )
    axes = ("init_time", "lead_time", "latitude", "longitude")
    field = xr.DataArray(np.zeros((1, 1, 2, 2), "float32"), dims=axes)
    names = ["own_levels:OZONE50", "own_levels:OZONE100", "film_variables:BRIGHTNESS"]
    coords = {
        "init_time": np.array(["2020-01-01"], "datetime64[ns]"),
        "lead_time": np.array([6], "timedelta64[h]"),
    }
    fields = {name: field + number for number, name in enumerate(names)}
    forecasts = xr.Dataset(fields, coords)
    stored = to_weatherbench(forecasts)
    assert set(stored.data_vars) == {"o3", "brightness"}
    again = from_weatherbench(stored)
    assert set(again.data_vars) == set(names)
    for number, name in enumerate(names):
        assert again[name].values.max() == number
