"""Fields of a forecast and of the truth that are drawn on one sheet."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.calendars import calendar_of, time_text
from climlstm.data.knowledge import knowledge_of
from climlstm.errors import ConfigError, DataError, nearest
from climlstm.grid import grid_of
from climlstm.plots.fields import as_field
from climlstm.plots.styles import lead_label
from climlstm.steps import lead_numbers, parse_lead, parse_time, valid_time

MEMBERS = "realization"

Lead: TypeAlias = str | int | np.timedelta64 | pd.Timedelta
"""'24h' or a timedelta; '3 months' or their number."""


@dataclass(frozen=True)
class Scene:
    """One forecast field, and what is drawn over and beside it."""

    forecast: xr.DataArray
    truth: xr.DataArray | None
    contours: xr.DataArray | None
    wind: tuple[xr.DataArray, xr.DataArray] | None
    true_contours: xr.DataArray | None
    true_wind: tuple[xr.DataArray, xr.DataArray] | None


def choose_scene(
    forecast: xr.Dataset,
    truth: xr.Dataset | None,
    variable: str,
    init_time: Any,
    lead: Any,
    *,
    contours: str | None = None,
    wind: tuple[str, str] | None = None,
) -> Scene:
    """The fields of one initialisation and lead, in order, and those of the truth then."""
    start = choose_init(forecast, init_time)

    def predicted(name: str) -> xr.DataArray:
        return as_field(channel(forecast, name).sel(init_time=start, lead_time=lead))

    def analysed(name: str) -> xr.DataArray | None:
        if truth is None:
            return None
        return true_field(truth, name, valid_time(start, lead), like=predicted(name))

    def pair(of: Any) -> Any:
        return None if wind is None or (of is analysed and truth is None) else tuple(map(of, wind))

    return Scene(
        forecast=predicted(variable),
        truth=analysed(variable),
        contours=predicted(contours) if contours else None,
        wind=pair(predicted),
        true_contours=analysed(contours) if contours else None,
        true_wind=pair(analysed),
    )


def channel(data: xr.Dataset, name: str) -> xr.DataArray:
    """One channel, with what its forecast was allowed to know of the future in its attributes.

    Raises DataError with the channels that there are.
    """
    if name not in data.data_vars:
        known = [str(known) for known in data.data_vars]
        raise DataError(
            f"There is no channel '{name}'.{nearest(name, known)} There are: {', '.join(known)}."
        )
    return data[name].assign_attrs(knowledge_of(data))


def choose_init(forecast: xr.Dataset, init_time: Any) -> Any:
    """An initialisation of the forecast; the first one, if none is given."""
    times = np.atleast_1d(_coordinate(forecast, "init_time"))
    if init_time is None:
        return times[0]
    wanted = parse_time(init_time, calendar_of(times))
    found = times[times == wanted]
    if found.size:
        return found[0]
    raise DataError(
        f"No forecast starts at {time_text(wanted)}. The {times.size} initialisations run from "
        f"{time_text(times[0])} to {time_text(times[-1])}."
    )


def choose_lead(forecast: xr.Dataset, lead_time: Lead | None) -> Any:
    """A lead time of the forecast; a day or the longest below it, if none is given."""
    leads = np.atleast_1d(_coordinate(forecast, "lead_time"))
    if lead_time is None:
        within = leads[lead_numbers(leads)[0] <= 1]
        return within[-1] if within.size else leads[0]
    months = leads.dtype.kind in "iu"
    try:
        wanted = parse_lead(lead_time, months=months)
    except ConfigError as error:
        such = "'3 months'" if months else "'24h' or '3d'"
        raise DataError(f"'{lead_time}' is no lead time; expected one such as {such}.") from error
    for lead in leads:
        if (lead if months else pd.Timedelta(lead)) == wanted:
            return lead
    listed = ", ".join(lead_label(lead) for lead in leads[:12])
    more = f", … {lead_label(leads[-1])}" if leads.size > 12 else ""
    raise DataError(f"The forecast has no lead time {lead_label(wanted)}. It has {listed}{more}.")


def _coordinate(forecast: xr.Dataset, name: str) -> np.ndarray:
    if name not in forecast.coords:
        raise DataError(
            f"A forecast has the coordinates init_time and lead_time; this dataset has "
            f"{', '.join(map(str, forecast.coords))}. Open forecasts with climlstm.open_forecasts, "
            "and draw other fields with plot_field."
        )
    values: np.ndarray = forecast[name].values
    return values


def true_field(truth: xr.Dataset, name: str, time: Any, *, like: xr.DataArray) -> xr.DataArray:
    """The channel of a cube at a time, on the same grid as a forecast field."""
    found = channel(truth, name)
    if time not in found.time.values:
        raise DataError(
            f"The truth has no '{name}' at {time_text(time)}: it runs from "
            f"{time_text(found.time.values[0])} to {time_text(found.time.values[-1])}. "
            "Choose another initialisation or lead time, or a cube that covers it."
        )
    field = as_field(found.sel(time=time))
    for axis in ("latitude", "longitude"):
        mine, other = field[axis].values, like[axis].values
        if mine.shape != other.shape or np.abs((mine - other + 180) % 360 - 180).max() > 1e-3:
            ends = [f"{a.flat[0]:g} … {a.flat[-1]:g} {a.shape}" for a in (mine, other)]
            raise DataError(
                f"Truth and forecast of '{name}' are on different grids: {axis} {ends[0]} and "
                f"{ends[1]}."
            )
    return field.assign_coords(latitude=like.latitude, longitude=like.longitude)


def error_rmse(error: xr.DataArray) -> float:
    """Root of the mean square of an ordered field, weighted by the area of its cells."""
    area = xr.DataArray(grid_of(error).area, dims=error.dims)
    return float(np.sqrt((error**2).weighted(area).mean()))
