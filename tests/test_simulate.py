"""The simulated weather: whether it behaves like weather, and its store."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights, great_circle_km
from climlstm.simulation.simulate import predictability, simulate

DAY = 4
"""Steps."""
SHORT = {"years": 2 / 365.25, "spin_up_days": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A northern winter: 120 days from December on."""
    path = tmp_path_factory.mktemp("simulated") / "winter.zarr"
    simulate(path, years=120 / 365.25, start="2001-12-01", spin_up_days=60)
    return path


@pytest.fixture(scope="module")
def winter(store) -> xr.Dataset:
    return xr.open_zarr(store).load()


def eddies(field: xr.DataArray) -> xr.DataArray:
    """Deviation from the mean of each 30 days: weather without its season."""
    month = np.arange(field.time.size) // (30 * DAY)
    grouped = field.assign_coords(month=("time", month)).groupby("month")
    return (grouped - grouped.mean("time")).drop_vars("month")


def area_mean(field: xr.DataArray) -> xr.DataArray:
    return field.weighted(cell_area_weights(field.latitude)).mean(["latitude", "longitude"])


def eddy_pressure(cube: xr.Dataset) -> xr.DataArray:
    """Standard deviation of eddies in pressure along each latitude, hPa."""
    return np.sqrt((eddies(cube.msl / 100) ** 2).mean(["time", "longitude"]))


def test_storm_tracks_in_mid_latitudes_and_calm_tropics(winter):
    spread = eddy_pressure(winter)
    for middle in (spread.sel(latitude=slice(65, 35)), spread.sel(latitude=slice(-35, -65))):
        assert 4 < middle.mean() < 12
        assert 35 < abs(middle.idxmax("latitude")) < 65
        assert spread.sel(latitude=slice(15, -15)).max() < middle.mean() / 3


def test_storms_prefer_the_winter_hemisphere_and_the_oceans(winter):
    spread = np.sqrt((eddies(winter.msl / 100) ** 2).mean("time"))
    north, south = spread.sel(latitude=slice(65, 35)), spread.sel(latitude=slice(-35, -65))
    assert area_mean(north) > 1.15 * area_mean(south)
    pacific = north.sel(longitude=slice(160, 220)).mean()
    asia = north.sel(longitude=slice(60, 120)).mean()
    assert pacific > 1.1 * asia


def test_pressure_wind_and_temperature_stay_in_their_ranges(winter):
    assert 940e2 < winter.msl.min() < 985e2
    assert 1030e2 < winter.msl.max() < 1060e2
    assert area_mean(winter.msl).mean() == pytest.approx(101325, abs=100)
    for component in (winter.u10, winter.v10):
        assert 15 < abs(component).max() < 40
    zonal = winter.msl.mean(["time", "longitude"]) / 100
    assert 1012 < zonal.sel(latitude=slice(40, 25)).max() < 1025  # subtropical highs
    assert zonal.sel(latitude=slice(75, 55)).min() < 1008  # subpolar lows
    wind = winter.u10.mean(["time", "longitude"])
    assert wind.sel(latitude=slice(20, 5)).max() < 0 < wind.sel(latitude=slice(55, 45)).min()
    temperature = winter.t850.mean(["time", "longitude"])
    assert 288 < temperature.sel(latitude=0, method="nearest") < 298
    assert 235 < temperature.sel(latitude=80, method="nearest") < 255


def test_jets_at_200_hpa(winter):
    """Westerlies of 20 to 60 m/s in both hemispheres, by geostrophy from z200."""
    latitude = np.deg2rad(winter.latitude)
    slope = (
        winter.z200.mean(["time", "longitude"]).differentiate("latitude") * 180 / np.pi / 6.371e6
    )
    wind = -slope / (2 * 7.292e-5 * np.sin(latitude))
    assert 25 < wind.sel(latitude=slice(60, 25)).max() < 60
    assert 20 < wind.sel(latitude=slice(-25, -60)).max() < 60


def test_wind_is_nearly_geostrophic(winter):
    """Over the sea in mid-latitudes: 0.8 of it, turned 15 degrees towards low pressure."""
    latitude = np.deg2rad(winter.latitude)
    per_metre = 180 / np.pi / 6.371e6
    scale = 287.05 * 288.15 / 101325 / (2 * 7.292e-5 * np.sin(latitude))
    around = winter.msl.pad(longitude=1, mode="wrap")
    around["longitude"] = np.arange(-1, 65) * 5.625
    east = around.differentiate("longitude").isel(longitude=slice(1, -1)) / np.cos(latitude)
    geostrophic = scale * per_metre * (-winter.msl.differentiate("latitude") + 1j * east)
    geostrophic = geostrophic.transpose(*winter.msl.dims)
    wind = winter.u10 + 1j * winter.v10
    for rows, side in ((slice(65, 30), 1), (slice(-30, -65), -1)):
        sea = winter.land_mask.sel(latitude=rows) < 0.05
        w, g = (
            field.sel(latitude=rows).where(sea, 0).values.ravel() for field in (wind, geostrophic)
        )
        product, size = np.vdot(g, w), np.linalg.norm(g) * np.linalg.norm(w)
        assert abs(product) / size > 0.95
        assert 0.75 < abs(product) / np.linalg.norm(g) ** 2 < 0.95
        assert side * np.rad2deg(np.angle(product)) == pytest.approx(15, abs=5)


def lows(cube: xr.Dataset) -> list[np.ndarray]:
    """Tracks of northern lows: arrays (step, [latitude, longitude, hPa below the time mean]).

    A low is a minimum among its eight neighbours, 4 hPa below the mean of the record; from
    one step to the next it is the nearest one within 800 km.
    """
    depth = -((cube.msl - cube.msl.mean("time")) / 100).sel(latitude=slice(75, 30))
    tracks: list[list[tuple[float, float, float]]] = []
    open_tracks: list[list[tuple[float, float, float]]] = []
    for field in depth.values:
        peaks = (field == ndimage.maximum_filter(field, size=3, mode=("nearest", "wrap"))) & (
            field > 8
        )
        found = [
            (float(depth.latitude[i]), float(depth.longitude[j]), float(field[i, j]))
            for i, j in zip(*np.nonzero(peaks), strict=True)
        ]
        going_on = []
        for track in open_tracks:
            distances = [float(great_circle_km(*track[-1][:2], *low[:2])) for low in found]
            if distances and min(distances) < 800:
                track.append(found.pop(int(np.argmin(distances))))
                going_on.append(track)
        begun = [[low] for low in found]
        tracks += begun
        open_tracks = going_on + begun
    return [np.array(track) for track in tracks if len(track) >= 2 * DAY]


def test_lows_travel_east_and_polewards_deepen_and_decay(winter):
    """Those that get 15 hPa deep and are seen for two days or more."""
    tracks = [track for track in lows(winter) if track[:, 2].max() > 15]
    assert len(tracks) > 60
    ends = np.array([track[-1] - track[0] for track in tracks])
    eastward = np.array([np.unwrap(track[:, 1], period=360)[-1] - track[0, 1] for track in tracks])
    parallel = np.cos(np.deg2rad([track[:, 0].mean() for track in tracks]))
    seconds = np.array([(len(track) - 1) * 6 * 3600 for track in tracks])
    speed = eastward * parallel * 111.2e3 / seconds
    assert np.mean(speed > 0) > 0.9
    assert 7 < np.median(speed) < 15  # m/s
    assert np.mean(ends[:, 0]) > 5  # degrees of latitude
    deepest = np.array([track[:, 2].max() for track in tracks])
    assert np.median(deepest - [track[0, 2] for track in tracks]) > 7
    assert np.median(deepest - [track[-1, 2] for track in tracks]) > 7


@pytest.mark.parametrize("name", ["msl", "z500", "t850", "u10", "v10", "z200"])
def test_persistence_error_grows_and_saturates(winter, name):
    """Within four days most of it, then near sqrt(2) standard deviations."""
    field = eddies(winter[name].astype("float64"))
    spread = np.sqrt(area_mean(field**2).mean())
    leads = np.array([1, 2, 4, 8, 16])
    error = [
        np.sqrt(area_mean((field - field.shift(time=lead)) ** 2).mean()) / spread for lead in leads
    ]
    assert np.all(np.diff(error) > 0)
    assert error[0] < 0.6
    assert error[-1] == pytest.approx(np.sqrt(2), rel=0.12)


def test_the_limit_of_predictability(store, winter):
    """Errors of 1 % of the spread grow for weeks; persistence is worse throughout."""
    init_times = winter.time.values[[81, 202, 323]]
    forecast = predictability(store, init_times=init_times, steps=12 * DAY, amplitude=0.01)
    assert dict(forecast.sizes) == {
        "init_time": 3, "lead_time": 48, "latitude": 32, "longitude": 64,
    }  # fmt: skip
    assert forecast.lead_time[0] == np.timedelta64(6, "h")
    spread = np.sqrt(area_mean(eddies(winter.z500) ** 2).mean())
    truth = winter.z500.sel(time=forecast.init_time + forecast.lead_time)
    now = winter.z500.sel(time=forecast.init_time)
    error, persistence = (
        np.sqrt(area_mean((field - truth) ** 2).mean("init_time")) / spread
        for field in (forecast.z500, now)
    )
    assert 0.003 < error[0] < 0.03
    assert 0.05 < error[-1] < 0.8
    assert np.all(error < persistence)
    doubling_days = 8 / np.log2(error[-1] / error[4 * DAY - 1])
    assert 1 < doubling_days < 4


def test_a_rerun_without_error_is_the_truth(store, winter):
    init_times = winter.time.values[[0, 41]]  # midnight, and 6 h after one
    forecast = predictability(store, init_times=init_times, steps=DAY, amplitude=0, members=2)
    assert forecast.msl.dims[:3] == ("init_time", "realization", "lead_time")
    truth = winter.sel(time=forecast.init_time + forecast.lead_time)
    for name in ("msl", "z500", "u10"):
        np.testing.assert_allclose(forecast[name] - truth[name], 0, atol=0.05)


def test_forecasts_need_times_of_the_record_and_states(store, tmp_path):
    with pytest.raises(DataError, match="no state of the model at 2003-01-01"):
        predictability(store, init_times=[np.datetime64("2003-01-01")], steps=1)
    with pytest.raises(DataError, match="'model_state'"):
        predictability(tmp_path, init_times=[np.datetime64("2003-01-01")], steps=1)


def test_the_same_seed_gives_the_same_weather(tmp_path):
    first, again, other = (
        simulate(tmp_path / f"{name}.zarr", seed=seed, **SHORT).load()
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.identical(again)
    assert np.abs(first.msl - other.msl).max() > 100


def test_the_store_is_plain_cf(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cube = xr.open_zarr(store)
    assert set(cube.data_vars) == {
        "msl", "u10", "v10", "t850", "z500", "z200", "orography", "land_mask",
    }  # fmt: skip
    assert cube.msl.dims == ("time", "latitude", "longitude")
    assert cube.msl.dtype == np.float32
    assert cube.msl.chunks[0] == (120, 120, 120, 120)
    for name, variable in cube.data_vars.items():
        assert {"units", "standard_name", "long_name"} <= set(variable.attrs), name
        assert not bool(variable.isnull().any()), name
    assert list(cube.latitude.values[:2]) == [87.1875, 81.5625]
    assert cube.indexes["time"][[0, -1]].astype(str).tolist() == [
        "2001-12-01 00:00:00", "2002-03-30 18:00:00",
    ]  # fmt: skip
    assert sum(path.is_file() for path in store.rglob("*")) < 100


def test_an_interrupted_run_leaves_no_store(tmp_path):
    def interrupt(share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "demo.zarr", years=0.2, spin_up_days=0, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_rises_to_one(tmp_path):
    shares: list[float] = []
    simulate(tmp_path / "demo.zarr", **SHORT, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        simulate(tmp_path / "file" / "demo.zarr", **SHORT)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"years": 0}, "years is 0"), ({"start": "soon"}, "'soon'"), ({"spin_up_days": -1}, "-1")],
)
def test_impossible_arguments(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        simulate(tmp_path / "demo.zarr", **{**SHORT, **wrong})


def test_an_existing_store_is_not_overwritten(tmp_path):
    with pytest.raises(DataError, match="exists already"):
        simulate(tmp_path, **SHORT)


@pytest.mark.slow
def test_two_years_have_seasons_and_no_drift(tmp_path):
    cube = simulate(tmp_path / "two-years.zarr", years=2, spin_up_days=120).load()
    month = cube.time.dt.month
    cold, warm = (
        eddy_pressure(cube.sel(time=month.isin(months))) for months in ([12, 1, 2], [6, 7, 8])
    )
    north, south = slice(65, 35), slice(-35, -65)
    assert cold.sel(latitude=north).mean() > 1.4 * warm.sel(latitude=north).mean()
    assert warm.sel(latitude=south).mean() > 1.2 * cold.sel(latitude=south).mean()
    first, second = cube.isel(time=slice(1461)), cube.isel(time=slice(1461, None))
    drift = first.t850.mean(["time", "longitude"]) - second.t850.mean(["time", "longitude"])
    assert abs(drift).max() < 2
    ratio = (eddy_pressure(first) / eddy_pressure(second)).sel(latitude=north).mean()
    assert ratio == pytest.approx(1, abs=0.1)
    assert 930e2 < cube.msl.min() < cube.msl.max() < 1060e2
    assert max(abs(cube.u10).max(), abs(cube.v10).max()) < 45
