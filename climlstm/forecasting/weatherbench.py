"""The layout of WeatherBench (Rasp et al. 2024, doi:10.1029/2023MS004019), which other tools read.

In memory a forecast has the dimensions (init_time, lead_time, latitude, longitude) and our short
names. Stores have time (the initialisation), prediction_timedelta, level, latitude, longitude, and
ERA5's long names. An ensemble has `realization` after the initialisation, here and there.
"""

import logging

import numpy as np
import xarray as xr

from climlstm import plugins
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, PluginError
from climlstm.grid import axes, field_dims
from climlstm.grid.find import ordered
from climlstm.plugins.channels import installed_channel

logger = logging.getLogger(__name__)

DIMS = {"init_time": "time", "lead_time": "prediction_timedelta"}
"""Our names of dimensions to WeatherBench's, where they differ."""

LEVELS = "forecast_levels"
"""Attribute of a variable: the levels at which it is forecast; at others of the store it is NaN."""
PLACE = "climlstm_variable"
"""Attribute of a variable that a run names by its place, such as `films:BRIGHTNESS`: that name."""

LONGEST_HOURS = 366 * 24
"""Greatest lead time that a number without a unit can be, in hours."""

COORDINATES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "forecast_reference_time", "long_name": "initial time of forecast"},
    "prediction_timedelta": {
        "standard_name": "forecast_period",
        "long_name": "time since forecast_reference_time",
    },
    "realization": {"standard_name": "realization", "long_name": "member of the ensemble"},
    "level": {"standard_name": "air_pressure", "units": "hPa", "positive": "down"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


def to_weatherbench(forecasts: xr.Dataset) -> xr.Dataset:
    """Our names and dimensions to WeatherBench's; channels on levels become one variable."""
    fields: dict[str, list[xr.DataArray]] = {}
    for name in forecasts.data_vars:
        found = installed_channel(str(name))
        field = forecasts[name]
        if ":" in found.name:
            level = "" if found.level is None else f"{found.level:g}"
            place = found.name.removesuffix("hPa").removesuffix(level)
            field = field.assign_attrs({PLACE: place})
        if found.level is not None:
            field = field.expand_dims(level=[int(found.level)])
        fields.setdefault(found.variable.era5_name or found.variable.name, []).append(field)
    stored = xr.Dataset(
        {name: _on_levels(parts) for name, parts in fields.items()}, attrs=forecasts.attrs
    ).rename(DIMS)
    order = ("time", "realization", "prediction_timedelta", "level", *field_dims(stored))
    stored = stored.transpose(*(d for d in order if d in stored.dims))
    for name, described in COORDINATES.items():
        if name in stored.coords:
            kept = {"grid": kind} if (kind := stored[name].attrs.get("grid")) else {}
            stored[name].attrs = described | kept
    return stored


def from_weatherbench(stored: xr.Dataset) -> xr.Dataset:
    """WeatherBench's names and dimensions to ours; a variable on levels becomes channels."""
    names = _short_names()
    forecasts = {}
    for name, field in stored.data_vars.items():
        short = field.attrs.get(PLACE) or names.get(str(name), str(name))
        if "level" not in field.dims:
            forecasts[short] = field
            continue
        for level in field.attrs.get(LEVELS, field["level"].values):
            one = field.sel(level=level, drop=True)
            one.attrs.pop(LEVELS, None)
            forecasts[f"{short}{level:g}"] = one
    renamed = xr.Dataset(forecasts, attrs=stored.attrs).drop_vars("level", errors="ignore")
    return renamed.rename({theirs: ours for ours, theirs in DIMS.items()})


def _on_levels(parts: list[xr.DataArray]) -> xr.DataArray:
    """The channels of one variable along `level`; the only one, where it has no levels."""
    if "level" not in parts[0].dims:
        return parts[0]
    field = xr.concat(parts, "level", combine_attrs="override").sortby("level")
    return field.assign_attrs({LEVELS: field["level"].values.tolist()})


def _short_names() -> dict[str, str]:
    """ERA5's long names to ours, of all variables that can be loaded."""
    names = {}
    for plugin in plugins.discover("variables"):
        try:
            variable = plugins.load("variables", plugin.name)
        except PluginError as error:  # one broken package must not hide all forecasts
            logger.warning("%s", error)
            continue
        names[variable.era5_name or variable.name] = variable.name
    return names


def with_our_dimensions(stored: xr.Dataset, store: str) -> xr.Dataset:
    """Forecasts of any model with WeatherBench's dimensions, members along `realization`.

    Lead times become timedelta64; numbers without units are hours.
    Raises DataError where that is no forecast, and for numbers that cannot be hours.
    """
    stored = axes.rename_dims(stored, ["realization", "level", "init_time", "lead_time"])
    stored = stored.rename({ours: DIMS[ours] for ours in DIMS if ours in stored.dims})
    if not {"time", "prediction_timedelta"} <= set(stored.dims):
        raise DataError(
            f"{store} is no forecast: its dimensions are {', '.join(map(str, stored.dims))}, "
            "but forecasts have 'time' (of the start) and 'prediction_timedelta'."
        )
    if not set(field_dims(stored)) <= set(stored.dims) or "latitude" not in stored.coords:
        stored = ordered(stored)
    leads = stored["prediction_timedelta"]
    if leads.dtype.kind == "m":
        return stored
    units = leads.attrs.get("units")
    unit = f"of the unit '{units}'" if units else "without a unit"
    try:
        hours = np.asarray(leads.values * conversion(units or "h", "h").scale, dtype="float64")
    except DataError:
        hours = np.array([np.nan])
    if not 0 <= hours.min() <= hours.max() <= (np.inf if units else LONGEST_HOURS):
        raise DataError(
            f"{store}: the lead times 'prediction_timedelta' are numbers {unit}, "
            f"{axes.some(leads.values)}; expected durations, or hours up to {LONGEST_HOURS}. Write "
            "the store anew with durations; of minutes, say, they are made by "
            "forecasts.assign_coords(prediction_timedelta=forecasts.prediction_timedelta * "
            "np.timedelta64(1, 'm'))."
        )
    if not units:
        logger.warning(
            "%s: lead times have no unit; they are taken for hours, %s",
            store,
            axes.some(leads.values),
        )
    durations = np.round(hours * 3600).astype("timedelta64[s]").astype("timedelta64[ns]")
    return stored.assign_coords(prediction_timedelta=durations)
