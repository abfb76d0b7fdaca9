"""Channels of other sources: forecasts of others, hosts, longer steps; and what must not leak."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from climlstm import runs
from climlstm.config import load_config
from climlstm.data.run_data import RunData
from climlstm.errors import DataError
from climlstm.runs import find_trained
from tests.small_world import make_world, write_world

torch.set_num_threads(1)

INIT = np.datetime64("2001-04-02T00")
QUICK = ["training.epochs=1", "training.validation_windows=4"]
LEADS = pd.timedelta_range("0h", "48h", freq="6h")


def add(folder, name, dataset):
    """A further store, named in the catalog of the world."""
    dataset.to_zarr(folder / f"{name}.zarr", mode="w", zarr_format=3, consolidated=False)
    text = (folder / "catalog.yaml").read_text()
    if f"  {name}:" not in text:
        place = f'"{{{{ CATALOG_DIR }}}}/{name}.zarr"'
        (folder / "catalog.yaml").write_text(
            f"{text}  {name}: {{driver: zarr, args: {{urlpath: {place}}}}}\n"
        )


def forecasts_of(world, *starts, warmer=0.0):
    """Forecasts of another model, right but for being too warm, in WeatherBench's layout."""
    each = [
        world[["t2m", "msl", "sst"]]
        .sel(time=np.datetime64(start) + LEADS)
        .assign_coords(time=LEADS)
        .rename(time="prediction_timedelta")
        for start in starts
    ]
    made = xr.concat(each, pd.DatetimeIndex(starts, name="time"))
    return changed(made, t2m=warmer, sst=warmer)


def changed(fields, **more):
    """Fields with something added to some of them, in the units that they have."""
    return fields.assign(
        {
            name: (fields[name] + add).astype(fields[name].dtype).assign_attrs(fields[name].attrs)
            for name, add in more.items()
        }
    )


@pytest.fixture
def there(tmp_path):
    write_world(tmp_path)
    world = make_world()
    add(tmp_path, "others", forecasts_of(world, "2001-04-01T00", "2001-04-01T18", warmer=3))
    return tmp_path


def config_of(folder, *overrides):
    return load_config(folder / "run.yaml", [f"cluster.storage={folder}/runs", *QUICK, *overrides])


def forecast(found, **asked):
    return runs.forecast(found, init_times=[INIT], **asked).load()


def test_a_sea_forecast_by_another_model_end_to_end(there):
    """As if its forecast were what is observed; nothing that is known later matters."""
    config = config_of(there, "data.prescribed={sst: {from: others}}")
    found = find_trained(runs.train(config, under_ray=False))
    given = forecast(found)
    assert "prescribed_from" in given.attrs
    world = make_world()
    warm = changed(world, sst=3 * (world.time > INIT))
    (there / "warm").mkdir()
    write_world(there / "warm", warm)
    warmer = {"catalog": str(there / "warm" / "catalog.yaml"), "source": "world"}
    xr.testing.assert_equal(given, forecast(found, **warmer))
    config = config_of(there, "name=seen", "data.prescribed={sst: {from: observed}}")
    observed = find_trained(runs.train(config, under_ray=False))
    np.testing.assert_allclose(forecast(observed, **warmer)["t2m"], given["t2m"], atol=1e-4)
    assert abs(forecast(observed)["t2m"] - given["t2m"]).max() > 1e-3


def test_the_start_is_the_last_that_was_known(there):
    """Leak: a start after ours. Another start before the last one, wrong by 30 K, is no matter."""
    config = config_of(there, "data.prescribed={sst: {from: others}}")
    found = find_trained(runs.train(config, under_ray=False))
    plain, world = forecast(found), make_world()
    right = forecasts_of(world, "2001-04-01T18", warmer=3)
    wrong = forecasts_of(world, "2001-04-01T00", "2001-04-02T06", warmer=30)
    both = xr.concat([right, wrong], "time").sortby("time")
    add(there, "others", both)
    xr.testing.assert_equal(plain, forecast(found))
    add(there, "others", forecasts_of(world, "2001-04-02T06"))
    with pytest.raises(DataError, match=r"'sst' is given from outside \(others\)"):
        forecast(found)
    add(there, "others", right.isel(prediction_timedelta=slice(4)))
    with pytest.raises(DataError, match=r"up to .* ahead.*fewer --steps"):
        forecast(found)
    assert forecast(found, steps=2)["t2m"].sizes["lead_time"] == 2  # as the message advises


def test_a_host_with_a_source_and_forecasts_of_its_own(there):
    """The region learns with the host's analysis, and is driven by the host's forecasts."""
    world = make_world()
    add(there, "host", host := changed(world[["t2m", "msl"]], t2m=1))
    config = config_of(there, "data.boundary={source: host, from: others, width: 2}")
    assert "t2m@host" in RunData(config).cube
    found = find_trained(runs.train(config, under_ray=False))
    made = forecast(found).isel(init_time=0)
    valid = made["init_time"] + made["lead_time"]
    rim = made["t2m"].transpose("lead_time", ...).values[:, 0]
    np.testing.assert_allclose(rim, world["t2m"].sel(time=valid).values[:, 0] + 3, atol=1e-3)
    future = changed(host, t2m=5 * (host.time > INIT), msl=500 * (host.time > INIT))
    add(there, "host", future)
    xr.testing.assert_equal(made, forecast(found).isel(init_time=0))


def test_a_month_that_is_not_over_is_not_known(there):
    """Leak: the mean of April holds what comes after 2 April. Region and coarsening hold for both
    sources, so that cells are not mixed up."""
    world = make_world()

    def monthly(world):
        found = world[["sst"]].resample(time="MS").mean()
        found["sst"].attrs["units"] = "K"
        return found

    add(there, "months", monthly(world))
    config = config_of(
        there,
        "data.prescribed={sst: {from: observed, source: months}}",
        "data.periods.train=[2001-02-01, 2001-03-01]",
        "data.region={latitude: [52, 60], longitude: [6, 18]}",
    )
    sst = RunData(config).cube["sst"].sel(time=INIT)
    march = monthly(world)["sst"].sel(time="2001-03-01", latitude=sst.latitude)
    np.testing.assert_allclose(sst, march.sel(longitude=sst.longitude))
    found = find_trained(runs.train(config, under_ray=False))
    plain = forecast(found)
    add(there, "months", monthly(changed(world, sst=9 * (world.time > INIT))))
    xr.testing.assert_equal(plain, forecast(found))
    add(there, "months", monthly(changed(world, sst=-9 * (world.time < INIT))))
    assert abs(forecast(found)["t2m"] - plain["t2m"]).max() > 1e-3  # March is used


def test_a_source_that_ends_is_not_held_for_ever(there):
    """Nor over a gap: forecasts from then on are refused, and windows are left out."""
    world = make_world()
    days = world[["sst"]].isel(time=slice(0, None, 4))
    whole = days.sel(time=slice("2001-04-10"))
    add(there, "days", whole.sel(time=(whole.time != np.datetime64("2001-02-10"))))
    config = config_of(there, "data.prescribed={sst: {from: observed, source: days}}")
    sst = RunData(config).cube["sst"].isel(latitude=0, longitude=-1)
    missing = sst.time.values[np.isnan(sst.values)]
    assert set(missing[:4].astype("datetime64[D]").astype(str)) == {"2001-02-10"}
    assert missing[4] == np.datetime64("2001-04-11")
    assert missing.size == 4 + 20 * 4
    found = find_trained(runs.train(config, under_ray=False))
    with pytest.raises(DataError, match=r"'sst'.*lacks a value at 2001-04-11.*Choose init"):
        runs.forecast(found, init_times=["2001-04-10T12"])
    forecast(found)


def test_another_grid_is_refused(there):
    world = make_world()
    add(there, "shifted", world[["sst"]].assign_coords(longitude=world.longitude + 1))
    config = config_of(there, "data.prescribed={sst: {from: observed, source: shifted}}")
    with pytest.raises(DataError, match="another grid"):
        _ = RunData(config).cube


def test_the_last_window_sees_what_is_given_at_its_end(there):
    """Off by one: given channels reach as far as the truth, so no window is lost at the end."""
    plain = RunData(config_of(there)).train_starts
    data = RunData(config_of(there, "data.prescribed={sst: {from: observed}}"))
    assert data.train_starts.size == plain.size
    with data.open_windows(data.statistics) as stream:
        [window] = stream.windows([data.train_starts[None, -1:]])
        truth = data.cube["sst"].isel(time=slice(data.train_starts[-1], None)).values
        at = data.statistics.channels.index("sst")
        mean, std = data.statistics.mean[at], data.statistics.std[at]
        expected = (truth[: stream.length] - mean) / std
        np.testing.assert_allclose(window.given[0, :, 0], np.nan_to_num(expected), atol=1e-4)
