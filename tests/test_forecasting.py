"""Forecast stores: right values, other people's layout, and interruptions."""

import numpy as np
import pytest
import xarray as xr

from climlstm import forecasting
from climlstm.errors import DataError
from climlstm.forecasting import open_forecasts, write_forecasts
from climlstm.forecasting import store as forecast_store
from climlstm.model.saving import load_forecaster
from climlstm.runs import forecast_run, open_cube, parse_times


@pytest.fixture(scope="module")
def store(trained, tmp_path_factory):
    store = tmp_path_factory.mktemp("forecasts") / "forecasts.zarr"
    forecast_run(trained, store)
    return store


def test_plain_xarray_reads_weatherbench_layout(store):
    stored = xr.open_zarr(store, decode_timedelta=True)
    assert set(stored.dims) == {
        "time", "prediction_timedelta", "level", "latitude", "longitude",
    }  # fmt: skip
    assert {"2m_temperature", "temperature", "geopotential", "mean_sea_level_pressure"} & set(
        stored.data_vars
    ) == {"temperature", "geopotential", "mean_sea_level_pressure"}
    assert stored["prediction_timedelta"].dtype == "timedelta64[ns]"
    assert stored["prediction_timedelta"].values[0] == np.timedelta64(6, "h")
    assert stored["mean_sea_level_pressure"].attrs["units"] == "Pa"
    assert not stored["mean_sea_level_pressure"].isnull().any()


def test_opened_again_the_channels_are_those_that_were_forecast(store, trained):
    forecasts = open_forecasts(store)
    assert set(forecasts.data_vars) == set(trained.config.data.state)
    assert forecasts["z500"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert forecasts.sizes["lead_time"] == 4
    assert not forecasts.isnull().any().to_array().any()


def test_a_forecast_is_what_the_network_says_of_the_cubes_states(store, trained):
    forecasts = open_forecasts(store)
    forecaster, _ = load_forecaster(trained.checkpoint)
    cube = open_cube(trained.config.data)
    init = forecasts["init_time"].values[3]
    [one] = forecasting.forecast(forecaster, cube, init_times=np.array([init]), steps=4)
    xr.testing.assert_allclose(
        one.isel(init_time=0), forecasts.sel(init_time=init), rtol=1e-4, atol=1e-3
    )
    step = one["msl"].isel(init_time=0, lead_time=0) - cube["msl"].sel(time=init)
    assert 10 < float(abs(step).max()) < 3000  # Pa in six hours: neither persistence nor nonsense


def test_an_interrupted_forecast_goes_on_where_it_was(trained, tmp_path, monkeypatch, store):
    out = tmp_path / "again.zarr"
    write = forecast_store._write_region
    written = []

    def interrupted(part, forecasts, init_times):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(write(part, forecasts, init_times))

    monkeypatch.setattr(forecast_store, "_write_region", interrupted)
    config = trained.config
    small = config.model_copy(
        update={"forecast": config.forecast.model_copy(update={"batch_size": 8})}
    )
    trained_small = type(trained)(trained.checkpoint, small, trained.provenance)
    with pytest.raises(KeyboardInterrupt):
        forecast_run(trained_small, out)
    assert not out.exists()
    with pytest.raises(DataError, match="8 initialisations have been written"):
        open_forecasts(out)
    monkeypatch.setattr(forecast_store, "_write_region", write)
    forecast_run(trained_small, out)
    xr.testing.assert_allclose(open_forecasts(out), open_forecasts(store), rtol=1e-4, atol=1e-3)
    assert not list(out.glob(".*json")) or not (out / ".request.json").exists()


def test_an_existing_store_is_not_overwritten(trained, store):
    with pytest.raises(DataError, match="exists already"):
        forecast_run(trained, store)


def test_an_initial_time_without_history_is_named(trained, tmp_path):
    with pytest.raises(DataError, match="no data at 2000-12-31T18"):
        forecast_run(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-01-01T00"]))
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.drop_vars("msl"), "needs the channel 'msl'"),
        (lambda c: c.assign(msl=c["msl"].assign_attrs(units="hPa")), "has it in 'hPa'"),
        (lambda c: c.isel(latitude=slice(1, None)), "32 latitudes"),
        (lambda c: c.assign_coords(longitude=c["longitude"] - 180), "64 longitudes"),
    ],
)
def test_a_cube_that_does_not_fit_is_refused(trained, tmp_path, change, says):
    forecaster, provenance = load_forecaster(trained.checkpoint)
    with pytest.raises(DataError, match=says):
        write_forecasts(
            tmp_path / "f.zarr",
            forecaster,
            change(open_cube(trained.config.data)),
            init_times=parse_times(["2001-03-12T00"]),
            steps=2,
            provenance=provenance,
        )


def test_what_is_no_forecast_is_refused(weather, tmp_path):
    with pytest.raises(DataError, match="is no forecast"):
        open_forecasts(weather / "atmosphere.zarr")
    with pytest.raises(DataError, match="There is no forecast store"):
        open_forecasts(tmp_path / "nothing.zarr")
