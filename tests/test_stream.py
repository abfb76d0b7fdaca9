"""Streamed windows are those that one cuts naively with xarray, whatever the way of reading."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from climlstm.data.forcing import forcing_fields
from climlstm.data.plan import WindowPlan, share
from climlstm.data.stream import WindowStream
from climlstm.errors import DataError

FORCING = ("cos_zenith", "season")
CHANNELS = ("t2m", "msl")
MEAN = np.array([280.0, 101325.0], dtype="float32")
STD = np.array([10.0, 900.0], dtype="float32")


def make_cube(steps: int = 60, *, rows: int = 4, columns: int = 5, chunk: int = 7) -> xr.Dataset:
    """A cube of random weather, chunked in time."""
    random = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=steps, freq="6h").to_numpy()
    coords = {
        "time": times,
        "latitude": np.linspace(60, 30, rows),
        "longitude": np.linspace(0, 40, columns),
    }
    shape = (steps, rows, columns)
    return xr.Dataset(
        {
            name: (
                ("time", "latitude", "longitude"),
                (mean + std * random.standard_normal(shape)).astype("float32"),
            )
            for name, mean, std in zip(CHANNELS, MEAN, STD, strict=True)
        },
        coords=coords,
    ).chunk(time=chunk)


def naive(cube: xr.Dataset, starts: np.ndarray, history: int, horizon: int) -> np.ndarray:
    """(B, T + L, C, H, W) cut with xarray, one window at a time."""
    windows = [cube.isel(time=slice(s, s + history + horizon)).to_array().values for s in starts]
    scaled = [(w - MEAN[:, None, None, None]) / STD[:, None, None, None] for w in windows]
    return np.stack(scaled).transpose(0, 2, 1, 3, 4)


def open_stream(cube: xr.Dataset, **options) -> WindowStream:
    settings = {"history": 2, "horizon": 3, "mean": MEAN, "std": STD, "channels": CHANNELS}
    return WindowStream(cube, **settings | options)


@pytest.mark.parametrize("memory", [10**9, 12_000])
def test_windows_equal_naive_ones(memory):
    cube = make_cube()
    plan = WindowPlan(np.arange(56), batch_size=4, seed=0, block=8)
    batches = plan.batches(0)
    with open_stream(cube, memory=memory, block=8, forcing=FORCING) as stream:
        for starts, window in zip(batches, stream.windows(batches), strict=True):
            expected = naive(cube, starts, 2, 3)
            np.testing.assert_array_equal(window.history.numpy(), expected[:, :2])
            np.testing.assert_array_equal(window.target.numpy(), expected[:, 2:])
            np.testing.assert_array_equal(window.init_time, cube.time.values[starts + 1])
            led_to = cube.time.values[starts[:, None] + np.arange(1, 5)].ravel()
            fields = forcing_fields(FORCING, led_to, cube.latitude, cube.longitude)
            np.testing.assert_array_equal(window.forcing, fields.reshape(4, 4, 3, 4, 5))


def test_windows_may_be_kept():
    """Memory is used again only when nobody holds a tensor of it."""
    cube = make_cube()
    batches = WindowPlan(np.arange(56), batch_size=4, seed=0, block=8).batches(0)
    with open_stream(cube, memory=12_000, block=8) as stream:
        windows = [window.target for window in stream.windows(batches)]
    for starts, target in zip(batches, windows, strict=True):
        np.testing.assert_array_equal(target.numpy(), naive(cube, starts, 2, 3)[:, 2:])


def test_small_cube_is_read_once():
    cube = make_cube()
    plan = WindowPlan(np.arange(56), batch_size=4, seed=0, block=8)
    with open_stream(cube, memory=10**9) as stream:
        for epoch in range(3):
            for _ in stream.windows(plan.batches(epoch)):
                pass
        assert stream.read_bytes == 60 * 2 * 4 * 5 * 4


def test_workers_and_a_resume_give_the_same_windows():
    cube = make_cube()
    batches = WindowPlan(np.arange(56), batch_size=4, seed=0, block=8).batches(1)
    with open_stream(cube, memory=12_000, block=8) as stream:
        whole = torch.stack([window.target for window in stream.windows(batches)])
        parts = [
            torch.stack([w.target for w in stream.windows(share(batches, rank=r, world=2)[5:])])
            for r in range(2)
        ]
    assert torch.equal(torch.cat(parts, dim=1), whole[5:])


def test_cells_never_observed_become_the_mean():
    cube = make_cube()
    observed = np.ones((2, 4, 5), dtype=bool)
    observed[1, 0, :2] = False
    cube["msl"] = cube["msl"].where(xr.DataArray(observed[1], dims=("latitude", "longitude")))
    with open_stream(cube, observed=observed) as stream:
        window = next(stream.windows(np.array([[3, 9]])))
    assert window.history[:, :, 1, 0, :2].eq(0).all()
    assert window.history.isfinite().all()


def test_an_unexpected_gap_in_the_values_is_an_error():
    cube = make_cube().load()
    cube["msl"][17, 2, 3] = np.nan
    with (
        open_stream(cube.chunk(time=7)) as stream,
        pytest.raises(DataError, match=r"'msl' has 1 missing.*2020-01-05T06.*longitude 30"),
    ):
        list(stream.windows(np.array([[14]])))
