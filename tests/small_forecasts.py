"""Forecasts and a cube small enough to know their scores."""

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.scores import ACC, MAE, RMSE, Bias
from climlstm.plugins import create

LATITUDE = np.array([60.0, 20.0, -20.0, -60.0])
LONGITUDE = np.arange(0.0, 360.0, 60.0)
TIMES = pd.date_range("2020-01-01", periods=40, freq="6h")
GRID = {"latitude": LATITUDE, "longitude": LONGITUDE}
STEP = np.timedelta64(6, "h")
ERRORS = {"rmse": RMSE(), "mae": MAE(), "bias": Bias()}
BIAS = {"bias": Bias()}
ALL = ERRORS | {"acc": ACC()}
UNITS = {"t2m": "K", "z500": "m2 s-2"}


def make_cube(t2m, times=TIMES):
    """A cube of one channel from values that broadcast to (time, latitude, longitude)."""
    shape = (len(times), *(len(values) for values in GRID.values()))
    values = np.broadcast_to(np.asarray(t2m, dtype="float32"), shape).copy()
    dims = ("time", *GRID)
    return xr.Dataset({"t2m": (dims, values, {"units": "K"})}, coords={"time": times, **GRID})


def random_cube():
    """Two channels, random, in chunks of ten steps."""
    generator = np.random.default_rng(0)
    shape = (len(TIMES), *(len(values) for values in GRID.values()))
    variables = {
        name: (("time", *GRID), generator.standard_normal(shape, dtype="float32"), {"units": unit})
        for name, unit in UNITS.items()
    }
    return xr.Dataset(variables, coords={"time": TIMES, **GRID}).chunk(time=10)


def make_forecast(cube, error=0.0, *, inits=TIMES[:20:4], leads=5):
    """The truth, where there is any, plus an error."""
    lead_time = np.arange(1, leads + 1) * STEP
    valid = xr.DataArray(
        np.asarray(inits)[:, None] + lead_time,
        dims=("init_time", "lead_time"),
        coords={"init_time": np.asarray(inits), "lead_time": lead_time},
    )
    truth = cube.load().reindex(time=np.unique(valid), fill_value=0.0).sel(time=valid)
    forecast = (truth + error).drop_vars("time")
    for name in forecast:
        forecast[name].attrs = {"units": UNITS[name]}
    return forecast


def run(forecast, cube, **keywords):
    keywords = {"evaluators": ERRORS, "climatology": None, "baselines": ()} | keywords
    keywords["baselines"] = {n: create("baselines", n, {}) for n in keywords["baselines"]}
    return evaluate(forecast, cube, **keywords)


def pick(table, metric, model="forecast", variable="t2m"):
    """Values by lead time."""
    chosen = table[
        (table["metric"] == metric) & (table["model"] == model) & (table["variable"] == variable)
    ]
    return chosen.sort_values("lead_time")["value"].tolist()
