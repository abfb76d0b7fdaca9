"""Known variables that a source lacks, made of others that it holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from climlstm import plugins
from climlstm.calendars import clock
from climlstm.data.cube.matching import as_held, may_hold
from climlstm.plugins import Variable
from climlstm.plugins.channels import Channel
from climlstm.steps import Step

EPSILON = 287.0597 / 461.5250
"""Ratio of the gas constants of dry air and of water vapour (IFS documentation Cy47r3)."""

E0, A, T0, B = 611.21, 17.502, 273.16, 32.19
"""Saturation vapour pressure over water, Pa and K: e = E0 exp(A (T - T0) / (T - B)), after Buck
(1981); IFS documentation Cy47r3, part IV, equation 7.5."""

WATER = 1000.0
"""Density of liquid water, kg m-3, by which amounts of rain in m are those in kg m-2."""


def dew_point(ds: xr.Dataset) -> xr.DataArray:
    """Dew point, K, of specific humidity, kg kg-1, and pressure, Pa; above 1e-9 kg kg-1."""
    q = ds["q2m"].clip(min=1e-9)
    pressure = q * ds["sp"] / (EPSILON + (1 - EPSILON) * q)
    ratio: xr.DataArray = xr.ufuncs.log(pressure / E0)
    return (A * T0 - B * ratio) / (A - ratio)


def specific_humidity(ds: xr.Dataset) -> xr.DataArray:
    """Specific humidity, kg kg-1, of dew point, K, and pressure, Pa."""
    pressure: xr.DataArray = E0 * xr.ufuncs.exp(A * (ds["d2m"] - T0) / (ds["d2m"] - B))
    return EPSILON * pressure / (ds["sp"] - (1 - EPSILON) * pressure)


def component(ds: xr.Dataset, *, eastward: bool) -> xr.DataArray:
    """A component of the wind from its speed and the direction from which it blows, degrees
    clockwise from north."""
    angle = np.deg2rad(ds[DIRECTION])
    return -ds["ws10"] * (np.sin(angle) if eastward else np.cos(angle))


@dataclass(frozen=True)
class DepthOfRate:
    """Depth of water, m, that a mean rate in kg m-2 s-1 leaves over the step that ends at its time;
    of calendar months, over the month that begins there."""

    step: Step

    def __call__(self, ds: xr.Dataset) -> xr.DataArray:
        if self.step.duration is not None:
            return ds["pr"] * (self.step.duration.total_seconds() / WATER)
        times = ds["time"].values
        ends = self.step.time(np.ones(times.size, int), times)
        seconds = (clock(ends) - clock(times)) / np.timedelta64(1, "s")
        return ds["pr"] * xr.DataArray((seconds / WATER).astype("float32"), dims="time")


Way = tuple[tuple[str, ...], Callable[[xr.Dataset], xr.DataArray]]

DIRECTION = "wdir10"
WINDS = ("ws10", DIRECTION)
WAYS: dict[str, Way] = {
    "u10": (WINDS, partial(component, eastward=True)),
    "v10": (WINDS, partial(component, eastward=False)),
    "d2m": (("q2m", "sp"), dew_point),
    "q2m": (("d2m", "sp"), specific_humidity),
}


def converted(source: xr.Dataset, channel: Channel, step: Step | None) -> Channel:
    """The channel made of others that the source holds, if it lacks the channel itself.

    step: of the run, over which rates of rain become amounts.
    """
    ways = WAYS if step is None else WAYS | {"tp": (("pr",), DepthOfRate(step))}
    way = ways.get(channel.variable.name)
    if way is None or may_hold(source, channel):
        return channel
    inputs, derive = way
    for name in inputs:
        known: Variable = plugins.load("variables", name)
        held = as_held(source, Channel(name, known))
        if held.variable.derive is not None or not may_hold(source, held):
            return channel
    return replace(channel, variable=replace(channel.variable, inputs=inputs, derive=derive))
