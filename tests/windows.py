"""Cubes of random weather, and their windows cut with xarray."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

from climlstm.config import DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.windows.stream import WindowStream

CHANNELS = ("t850", "msl")
MEAN = np.array([280.0, 101325.0])
STD = np.array([10.0, 900.0])
WIND = {"ws10": 12.0}


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


def naive(cube: xr.Dataset, starts: np.ndarray, length: int, channels=CHANNELS) -> np.ndarray:
    """(B, T + L, C, H, W) cut with xarray, one window at a time, and normalised in float32."""
    mean, std = (
        np.array([scale[name] for name in channels], "float32")[:, None, None]
        for scale in (dict(zip(CHANNELS, each, strict=True)) | WIND for each in (MEAN, STD))
    )
    windows = [cube[list(channels)].isel(time=slice(s, s + length)) for s in starts]
    arrays = [w.to_array().transpose("time", "variable", ...).values for w in windows]
    return np.stack([(a - mean) / std for a in arrays])


def open_stream(cube: CubePlan | xr.Dataset, **options) -> WindowStream:
    given = {"history": 2, "horizon": 3, "mean": MEAN, "std": STD, "channels": CHANNELS}
    return WindowStream(cube, **given | options)


def assert_naive(
    stream: WindowStream, cube: xr.Dataset, groups: list[np.ndarray], *, atol: float = 0.0
) -> None:
    """All windows of the stream are those cut with xarray: bit for bit, unless atol is given."""
    history, length = stream.history, stream.history + stream.horizon
    batches = [starts for group in groups for starts in group]
    for starts, window in zip(batches, stream.windows(groups), strict=True):
        expected = naive(cube, starts, length, stream.reader.channels)
        streamed = torch.cat([window.history, window.target], dim=1).numpy()
        np.testing.assert_allclose(streamed, expected, rtol=0, atol=atol)
        np.testing.assert_array_equal(window.init_time, cube.time.values[starts + history - 1])


def plan_of(source: xr.Dataset, **options) -> CubePlan:
    periods = {
        "train": ("2020-01-01", "2020-01-20"),
        "valid": ("2021-01-01", "2021-01-02"),
        "test": ("2022-01-01", "2022-01-02"),
    }
    given = {"catalog": "-", "source": "-", "state": ("t850", "msl"), "step": "6h"}
    return plan_cube(source, DataConfig(**given | options, periods=periods))
