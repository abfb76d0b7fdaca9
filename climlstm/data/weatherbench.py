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
from climlstm.steps import MONTHS_OF, valid_times

logger = logging.getLogger(__name__)

LEADS = "prediction_timedelta"
"""WeatherBench's name of the lead time; ours stays where lead times count months."""

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
    "lead_time": {
        "standard_name": "forecast_period",
        "long_name": "calendar months since forecast_reference_time",
        "units": "months",
    },
    "valid_time": {
        "standard_name": "time",
        "long_name": "first moment of the months forecast",
        "bounds": "valid_time_bnds",
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
            whole = found.level.is_integer()
            field = field.expand_dims(level=[int(found.level) if whole else found.level])
        fields.setdefault(found.variable.era5_name or found.variable.name, []).append(field)
    stored = xr.Dataset(
        {name: _on_levels(parts) for name, parts in fields.items()}, attrs=forecasts.attrs
    )
    months = forecasts["lead_time"].dtype.kind in "iu"
    stored = _with_valid_months(stored) if months else stored.rename(lead_time=LEADS)
    stored = stored.rename(init_time="time")
    order = ("time", "realization", LEADS, "lead_time", "level", *field_dims(stored), "bnds")
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
    renamed = xr.Dataset(forecasts, attrs=stored.attrs).drop_vars(
        ["level", "valid_time", "valid_time_bnds"], errors="ignore"
    )
    ours = {"time": "init_time", LEADS: "lead_time"}
    return renamed.rename({theirs: name for theirs, name in ours.items() if theirs in renamed.dims})


def _with_valid_months(forecasts: xr.Dataset) -> xr.Dataset:
    """Forecasts of months with the beginnings (init_time, lead_time) of what they are valid for.

    Bounds run from each to the beginning of the step that follows.
    """
    leads = forecasts["lead_time"].values
    length = np.diff(leads).min() if leads.size > 1 else leads[0]
    both = [valid_times(forecasts["init_time"].values, each) for each in (leads, leads + length)]
    dims = ("init_time", "lead_time")
    return forecasts.assign_coords(
        valid_time=(dims, both[0]), valid_time_bnds=((*dims, "bnds"), np.stack(both, axis=-1))
    )


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

    Lead times become timedelta64, or integers in months where their unit is months, seasons or
    years; numbers without units are hours.
    Raises DataError where that is no forecast, and for numbers that cannot be hours.
    """
    stored = axes.rename_dims(stored, ["realization", "level", "init_time", "lead_time"])
    months = _months_of_leads(stored.get("lead_time"))
    if months is not None:
        counted = (stored["lead_time"].values * months).round().astype("int64")
        stored = stored.assign_coords(lead_time=("lead_time", counted, {"units": "months"}))
        return _placed(stored.rename(init_time="time") if "init_time" in stored.dims else stored)
    ours = {"init_time": "time", "lead_time": LEADS}
    stored = stored.rename({name: ours[name] for name in ours if name in stored.dims})
    if not {"time", "prediction_timedelta"} <= set(stored.dims):
        raise DataError(
            f"{store} is no forecast: its dimensions are {', '.join(map(str, stored.dims))}, "
            "but forecasts have 'time' (of the start) and 'prediction_timedelta'."
        )
    stored = _placed(stored)
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


def _placed(stored: xr.Dataset) -> xr.Dataset:
    """Forecasts with rows and columns under our names."""
    placed = set(field_dims(stored)) <= set(stored.dims) and "latitude" in stored.coords
    return stored if placed else ordered(stored)


def _months_of_leads(leads: xr.DataArray | None) -> int | None:
    """Calendar months of the unit of lead times; None where it is another one, or none."""
    units = None if leads is None else leads.attrs.get("units")
    return MONTHS_OF.get(str(units)) if leads is not None and leads.dtype.kind in "iuf" else None
