"""Statistics and climatology: numbers that can be checked by hand, and nothing from the future."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.statistics import compute as computing
from climlstm.data.statistics.climatology import climatology, climatology_at
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import DataError

JANUARY = (pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-31T23:59"))
FEBRUARY = (pd.Timestamp("2020-02-01"), pd.Timestamp("2020-02-29T23:59"))


def make_cube(values: np.ndarray, *, start: str = "2020-01-01", chunk: int = 5) -> xr.Dataset:
    """A cube of one channel t2m (time, 3, 4), every 6 hours."""
    times = pd.date_range(start, periods=len(values), freq="6h").to_numpy()
    coords = {"time": times, "latitude": [60.0, 30.0, 0.0], "longitude": [0.0, 1.0, 2.0, 3.0]}
    fields = np.broadcast_to(values.astype("float32"), (len(values), 3, 4)).copy()
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), fields)}, coords=coords).chunk(
        time=chunk
    )


def weather(steps: int, seed: int = 0) -> np.ndarray:
    return 280 + 10 * np.random.default_rng(seed).standard_normal((steps, 3, 4))


def test_means_are_weighted_by_area():
    """Rows at 60, 30 and 0 degrees, 30 degrees deep: areas sin 75 - sin 45, and so on."""
    cube = make_cube(np.zeros((124, 3, 4)) + np.array([1.0, 2.0, 4.0])[:, None])
    statistics = compute_statistics(cube, channels=["t2m"], train=JANUARY)
    area = np.array([0.2588, 0.4483, 0.5176])
    assert statistics.mean == pytest.approx(area @ [1, 2, 4] / area.sum(), abs=1e-3)
    assert statistics.tendency_std == pytest.approx(0)


@pytest.mark.parametrize("chunk", [1, 5, 124, 200])
def test_moments_are_those_of_all_values(chunk):
    values = weather(200)
    cube = make_cube(values, chunk=chunk)
    statistics = compute_statistics(cube, channels=["t2m"], train=JANUARY)
    train = values.astype("float32").astype("float64")[:124]
    area = np.sin(np.deg2rad([75, 45, 15])) - np.sin(np.deg2rad([45, 15, -15]))
    weight = np.broadcast_to((area / area.mean())[:, None], train.shape)
    mean = np.average(train, weights=weight)
    std = np.sqrt(np.average((train - mean) ** 2, weights=weight))
    changes = np.diff(train, axis=0)
    change = np.average(changes, weights=weight[1:])
    tendency = np.sqrt(np.average((changes - change) ** 2, weights=weight[1:]))
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(statistics.std, std, rtol=1e-6)
    np.testing.assert_allclose(statistics.tendency_std, tendency, rtol=1e-6)


def test_nothing_comes_from_outside_the_training_period():
    values = weather(200)
    other = values.copy()
    other[124:] += 1000
    numbers = [
        compute_statistics(make_cube(v), channels=["t2m"], train=JANUARY, others=[FEBRUARY])
        for v in (values, other)
    ]
    assert numbers[0].mean == numbers[1].mean
    assert numbers[0].std == numbers[1].std
    assert numbers[0].tendency_std == numbers[1].tendency_std


def test_a_gap_is_no_change_over_one_step():
    ramp = np.arange(40.0)[:, None, None]
    cube = make_cube(ramp).isel(time=[0, 1, 2, 3, 20, 21, 22])
    statistics = compute_statistics(cube.chunk(time=2), channels=["t2m"], train=JANUARY)
    assert statistics.tendency_std == pytest.approx(0, abs=1e-9)


def test_missing_values_are_told_apart():
    """A corner without data belongs to the grid; a hole at one time makes that time unusable."""
    values = weather(124)
    values[:, 0, 0] = np.nan
    values[17, 1, 2:] = np.nan
    values[30] = np.nan
    statistics = compute_statistics(make_cube(values), channels=["t2m"], train=JANUARY)
    assert (~statistics.observed).sum() == 1
    assert not statistics.observed[0, 0, 0]
    assert [str(gap).removeprefix("t2m at 2020-01-") for gap in statistics.missing] == [
        "05 06:00: 2 cells without a value, the first at latitude 30, longitude 2",
        "08 12:00: 11 cells without a value, the first at latitude 60, longitude 1",
    ]
    unusable = statistics.unusable.astype("M8[h]")
    assert list(unusable.astype(str)) == ["2020-01-05T06", "2020-01-08T12"]
    finite = np.isfinite(values)
    assert abs(statistics.mean[0] - values[finite].mean()) < 0.2


def test_holes_in_other_periods_are_found():
    values = weather(200)
    values[150, 2, 1] = np.nan
    cube = make_cube(values)
    assert not compute_statistics(cube, channels=["t2m"], train=JANUARY).missing
    found = compute_statistics(cube, channels=["t2m"], train=JANUARY, others=[FEBRUARY])
    assert [gap.time for gap in found.missing] == [cube.time.values[150]]


def test_a_constant_channel_is_refused():
    with pytest.raises(DataError, match="'t2m' is 5 everywhere"):
        compute_statistics(make_cube(np.full((124, 3, 4), 5)), channels=["t2m"], train=JANUARY)


def test_an_empty_period_is_refused():
    with pytest.raises(DataError, match="holds 0 of the times"):
        compute_statistics(make_cube(weather(8)), channels=["t2m"], train=FEBRUARY)


def test_statistics_survive_json():
    values = weather(124)
    values[17, 1, 2] = np.nan
    values[:, 2, 3] = np.nan
    first = compute_statistics(make_cube(values), channels=["t2m"], train=JANUARY)
    again = Statistics.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again.missing == first.missing
    assert again.train == first.train
    for name in ("mean", "std", "tendency_std", "observed", "unusable"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_statistics_are_kept_under_what_they_depend_on(tmp_path, monkeypatch):
    cube = make_cube(weather(200))
    first = compute_statistics(cube, channels=["t2m"], train=JANUARY, cache=tmp_path)
    longer = (JANUARY[0], pd.Timestamp("2020-02-05"))
    compute_statistics(cube, channels=["t2m"], train=longer, cache=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2
    monkeypatch.setattr(
        "climlstm.data.statistics.compute._compute", lambda *_, **__: pytest.fail("computed")
    )
    again = compute_statistics(cube, channels=["t2m"], train=JANUARY, cache=tmp_path)
    assert again.mean == first.mean


def test_of_several_processes_one_computes(tmp_path, monkeypatch):
    """A lock belongs to whoever opened the file, so threads stand for processes here."""
    cube = make_cube(weather(200))
    computed = []

    def slowly(*arguments, **options):
        computed.append(1)
        time.sleep(0.2)
        return compute(*arguments, **options)

    compute = computing._compute
    monkeypatch.setattr(computing, "_compute", slowly)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(compute_statistics, cube, channels=["t2m"], train=JANUARY, cache=tmp_path)
            for _ in range(4)
        ]
    assert len({job.result().mean[0] for job in jobs}) == 1
    assert len(computed) == 1


def test_a_climatology_is_kept_and_mapped(tmp_path, monkeypatch):
    cube = make_cube(weather(200))
    first = climatology(cube, JANUARY, channels=["t2m"], cache=tmp_path)
    xr.testing.assert_identical(first, climatology(cube, JANUARY, channels=["t2m"]))
    climatology(cube, FEBRUARY, channels=["t2m"], cache=tmp_path)
    assert len(list(tmp_path.glob("climatology-*/t2m.npy"))) == 2
    monkeypatch.setattr(
        "climlstm.data.statistics.climatology._sums", lambda *_: pytest.fail("computed")
    )
    again = climatology(cube, JANUARY, channels=["t2m"], cache=tmp_path)
    xr.testing.assert_identical(again, first)
    assert not [
        place
        for place in tmp_path.iterdir()
        if place.name.startswith(".climatology-") and place.is_dir()
    ]


def test_a_climatology_takes_no_more_room_than_its_period(tmp_path):
    """A period with fewer steps than hours and days keeps sums, which give the same means."""
    values = make_cube(weather(200))
    short = climatology(values, JANUARY, channels=["t2m"], cache=tmp_path)
    (kept,) = tmp_path.glob("climatology-*/t2m.npy")
    assert np.load(kept).shape[0] <= 1 + values.sel(time=slice(*JANUARY)).sizes["time"]
    times = values["time"].values
    january = values.sel(time=slice(*JANUARY))
    many = january.isel(time=np.tile(np.arange(january.sizes["time"]), 20))
    whole = climatology(many, JANUARY, channels=["t2m"])  # the same days, as often
    assert isinstance(whole["t2m"].variable._data, np.ndarray)
    xr.testing.assert_allclose(short.compute(), whole, rtol=1e-6)
    chosen = times[[0, 150, 151, 3]]
    xr.testing.assert_allclose(
        climatology_at(short, chosen), climatology_at(whole, chosen), rtol=1e-6
    )


def test_a_long_climatology_is_mapped(tmp_path):
    long = make_cube(weather(1500))
    for _ in range(2):
        year = (pd.Timestamp(long["time"].values[0]), pd.Timestamp(long["time"].values[-1]))
        normal = climatology(long, year, channels=["t2m"], cache=tmp_path)
        assert isinstance(normal["t2m"].values.base, np.memmap)


def two_years() -> xr.Dataset:
    """2019 and 2020: the value is the day of the year plus a hundredth of the hour."""
    index = pd.date_range("2019-01-01", "2020-12-31T18:00", freq="6h")
    values = (index.day_of_year + index.hour / 100).to_numpy()[:, None, None]
    return make_cube(values, start="2019-01-01", chunk=40)


def test_climatology_is_the_window_mean():
    cube = two_years()
    period = (pd.Timestamp("2019-01-01"), pd.Timestamp("2020-12-31T23:59"))
    normal = climatology(cube, period, channels=["t2m"])
    assert normal["t2m"].dims == ("hour", "dayofyear", "latitude", "longitude")
    assert list(normal.hour) == [0, 6, 12, 18]
    assert normal.sizes["dayofyear"] == 366
    # far from the turn of the year, the triangle is symmetric: the day itself
    np.testing.assert_allclose(normal["t2m"].sel(hour=6, dayofyear=100), 100.06, rtol=1e-6)
    # day 366 occurs once in the two years: counts weigh
    days, counts = np.arange(1, 367), np.full(366, 2)
    counts[365] = 1
    apart = np.minimum(np.abs(days - 366), 366 - np.abs(days - 366))
    weight = counts * np.maximum(1 - apart / 30, 0)
    expected = (weight * days).sum() / weight.sum()
    np.testing.assert_allclose(normal["t2m"].sel(hour=0, dayofyear=366), expected, rtol=1e-5)


def test_climatology_of_a_short_record():
    """Twelve days: near them, the window over what exists; in summer, the mean of the hour."""
    cube = make_cube(np.arange(48.0)[:, None, None], start="1996-01-05")
    period = (pd.Timestamp("1996-01-05"), pd.Timestamp("1996-01-16T23:59"))
    normal = climatology(cube, period, channels=["t2m"])
    at = climatology_at(normal, np.array(["1996-01-20T06", "1996-07-01T06"], "M8[ns]"))
    weight = 30.0 - np.arange(15, 3, -1)
    values = np.arange(1, 48, 4)
    np.testing.assert_allclose(at["t2m"][0], (weight * values).sum() / weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(at["t2m"][1], values.mean(), rtol=1e-6)


def test_climatology_leaves_out_what_is_missing():
    values = weather(124)
    values[:, 0, 0] = np.nan
    values[9] = np.nan
    cube = make_cube(values)
    statistics = compute_statistics(cube, channels=["t2m"], train=JANUARY)
    normal = climatology(cube, JANUARY, channels=["t2m"], unusable=statistics.unusable)
    assert normal["t2m"][:, :, 0, 0].isnull().all()
    assert normal["t2m"].notnull().sum() == 4 * 366 * 11


def test_an_hour_without_climatology_is_an_error():
    cube = make_cube(weather(40))
    normal = climatology(cube, JANUARY, channels=["t2m"])
    with pytest.raises(DataError, match="hours 0, 6, 12, 18 UTC, but not 3"):
        climatology_at(normal, np.array(["2020-01-03T03"], "M8[ns]"))


def test_statistics_by_calls_of_an_executor_are_those_of_one_pass(monkeypatch):
    times = pd.date_range("2001-01-01", periods=50, freq="6h").delete([20, 21])
    values = np.random.default_rng(0).normal(280.0, 5.0, (48, 4, 8)).astype("float32")
    values[30, 1, 2] = np.nan
    cube = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": times, "latitude": [60.0, 20.0, -20.0, -60.0], "longitude": np.arange(8) * 45.0},
    ).chunk(time=5)
    period = (times[0], times[-1])
    known = compute_statistics(cube, channels=["t2m"], train=period)
    monkeypatch.setattr(computing, "BYTES_OF_A_CALL", 7 * 4 * 32)  # seven steps, across chunks
    with ThreadPoolExecutor(2) as executor:
        spread = compute_statistics(cube, channels=["t2m"], train=period, executor=executor)
    np.testing.assert_allclose(spread.mean, known.mean, rtol=1e-8)
    np.testing.assert_allclose(spread.std, known.std, rtol=1e-8)
    np.testing.assert_allclose(spread.tendency_std, known.tendency_std, rtol=1e-8)
    assert [str(gap) for gap in spread.missing] == [str(gap) for gap in known.missing]
    assert len(known.missing) == 1
