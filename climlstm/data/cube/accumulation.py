"""Sums, means and extremes over time, made to fit the step of a run.

Rain of one hour, taken every six hours, is a sixth of what fell. Where a file says that values
stand for an interval (`cell_methods`, the step type of GRIB, the name of an accumulated quantity,
or the catalog), or where the run file asks for it (`over_step`), they are put together over the
step; where intervals and step do not fit, that is refused.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.advice import variable_line
from climlstm.calendars import clock
from climlstm.data.sources.axes import Axes
from climlstm.data.sources.fills import FILL_ATTRIBUTES, stated_fills
from climlstm.data.sources.origin import as_dask
from climlstm.data.sources.times import bounds_of, full_steps, native_step
from climlstm.errors import DataError
from climlstm.steps import Step, format_duration

logger = logging.getLogger(__name__)

METHODS = {
    **{"sum": "sum", "accum": "sum", "acc": "sum", "mean": "mean", "avg": "mean"},
    **{"maximum": "maximum", "max": "maximum", "minimum": "minimum", "min": "minimum"},
}
"""Words of CF (`cell_methods`, appendix E) and of ecCodes (`stepType`)."""

COMBINE: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "maximum": np.max, "minimum": np.min}

AMOUNTS = {
    *("tp", "cp", "lsp", "sf", "csf", "lsf", "e", "pev", "ro", "sro", "ssro", "smlt", "apcp"),
    *("acpcp", "total_precipitation", "convective_precipitation", "large_scale_precipitation"),
    *("snowfall", "evaporation", "potential_evaporation", "runoff", "surface_runoff", "snowmelt"),
    *("precip", "precipitation", "rain", "rainfall", "rainnc", "rainc"),
}
"""Names of accumulated quantities (ECMWF parameter database, NCEP), where they are amounts."""

RAIN = {"tp", "pr", "pcp", "apcp", "acpcp", "prcp", "precip", "precipitation", "rain", "rainfall"}
RAIN |= {"rr", "snowfall"}
"""Words in names of amounts of precipitation: APCP_surface, daily_rain, tp_sum."""

EXTREMES = re.compile(r"(mx|mn)(2t|tpr)(\d*)|(10fg|fg10)(\d*)", re.IGNORECASE)
"""ECMWF's extremes since the output before, or over 3 or 6 hours: mx2t, mn2t6, 10fg."""

RATE = re.compile(r"(s|h|hr|hour|day|d)(\*\*|\^)?-1\b|/ ?(s|h|hr|hour|day|d)\b|per ", re.IGNORECASE)
AMOUNT = re.compile(r"(mm|cm|m|inch(es)?|kg)\b", re.IGNORECASE)
ENERGY = re.compile(r"J ?(m(\*\*|\^)?-2|/ ?m(\*\*|\^)?2)")
INTERVAL = re.compile(r"interval: *(\d+) *(s|sec|min|h|hr|hour|d|day)", re.IGNORECASE)
IN_NAME = re.compile(r"_(\d+) ?(h|hr|hour|d|day)s?(_accumulation)?$", re.IGNORECASE)
NCL = re.compile(r"_(acc|avg|max|min)(\d+)(h|d)$", re.IGNORECASE)
UNITS: dict[str, Any] = {"s": "s", "m": "min", "h": "h", "d": "D"}
"""Units of time by their first letters."""

DAY = np.timedelta64(1, "D")

AS_STORED = "{} as stored"
"""Name in a source under which the values of a variable stay that was put together over steps."""


@dataclass(frozen=True)
class TimeMethod:
    """How each value of a variable stands for an interval."""

    method: str
    """sum, mean, maximum or minimum."""
    interval: np.timedelta64 | None = None
    """Length of the interval, which ends at the value's time; None: the step of the source."""
    since_midnight: bool = False
    """Whether the interval begins at 00 UTC; the value at 00 is that of the whole day before."""


def time_method(variable: xr.DataArray) -> TimeMethod | None:
    """Interval for which values of a variable stand, as its file says; None: single moments."""
    name, said = str(variable.name).lower(), variable.attrs
    declared = said.get("accumulated")
    if declared is not None:
        return None if declared == "never" else TimeMethod("sum", None, declared == "day")
    methods = str(said.get("cell_methods", ""))
    in_time = re.search(r"\btime\d? *: *(\w+)(?! *(within|over)\b)", methods)
    if in_time is not None:
        method = METHODS.get(in_time[1].lower())
        return None if method is None else TimeMethod(method, _interval(INTERVAL, methods))
    if "GRIB_stepType" in said:
        method = METHODS.get(str(said["GRIB_stepType"]))
        return None if method is None else TimeMethod(method)
    units, standard = str(said.get("units", "")), str(said.get("standard_name", ""))
    if (ncl := NCL.search(name)) is not None:
        return TimeMethod(METHODS[ncl[1]], _duration(ncl[2], ncl[3]))
    if (extreme := EXTREMES.fullmatch(name)) is not None:
        hours = extreme[3] or extreme[5]
        method = "minimum" if extreme[1] == "mn" else "maximum"
        return TimeMethod(method, _duration(hours, "h") if hours else None)
    if "since_previous_post_processing" in name:
        return TimeMethod("minimum" if name.startswith("minimum") else "maximum")
    words = set(re.split(r"[\W_\d]+", name))
    amount = re.sub(IN_NAME, "", name) in AMOUNTS or "precipitation_amount" in standard
    amount |= bool(words & RAIN) and "column" not in words and AMOUNT.match(units) is not None
    if ENERGY.fullmatch(units) or (amount and not RATE.search(units)):
        return TimeMethod("sum", _interval(IN_NAME, name))
    return None


def _interval(pattern: re.Pattern[str], text: str) -> np.timedelta64 | None:
    found = pattern.search(text)
    return _duration(found[1], found[2]) if found else None


def _duration(number: str, unit: str) -> np.timedelta64:
    return pd.Timedelta(int(number), UNITS[unit[0].lower()]).to_timedelta64()


def over_steps(
    source: xr.Dataset, axes: Axes, step: Step | None, methods: Mapping[str, str | None]
) -> xr.Dataset:
    """The source with some variables put together over the steps of a run; lazy.

    methods: of each variable with time, one of COMBINE; None: as its file says.
    A step without all its intervals has no value. Values of calendar months stay as they are.
    Raises DataError where intervals and step do not fit.
    """
    if step is None or step.duration is None or axes.time.size < 2:
        return source
    times = full_steps(axes.time.values, step)
    native = native_step(times, step)
    made: dict[str, xr.DataArray] = {}
    for name, chosen in methods.items():
        said = time_method(source[name])
        if chosen is not None:
            said = replace(said or TimeMethod(chosen), method=chosen)
        if said is None or axes.dims[0] not in source[name].dims:
            continue
        if said.since_midnight or (said.interval or native) != np.timedelta64(step.duration):
            made[name] = _combined(source, name, axes, said, step)
            made[AS_STORED.format(name)] = source[name]
            logger.info("'%s': %s over %s", name, said.method, step)
    return source.assign(made)


@dataclass(frozen=True, eq=False)
class _Intervals:
    """Neighbours in time that are put together at each time of a source."""

    shifts: tuple[int, ...]
    """Positions before a time at which its intervals are."""
    whole: NDArray[np.bool_]
    """(time,): whether all intervals of the step that ends there are in the source."""
    begins: NDArray[np.bool_]
    """(time,): whether a sum since midnight begins anew."""

    @classmethod
    def of(
        cls, source: xr.Dataset, name: str, axes: Axes, said: TimeMethod, step: Step
    ) -> "_Intervals":
        full = full_steps(axes.time.values, step)
        times, wanted = clock(full), np.timedelta64(step.duration)
        native = native_step(full, step)
        interval = native if said.interval is None or said.since_midnight else said.interval
        if wanted % interval or interval % native or (said.since_midnight and DAY % native):
            raise DataError(
                f"'{name}' holds a {said.method} over {_shown(interval)} at every "
                f"{_shown(native)}, which does not make steps of {step}. Set "
                f"data.step to a multiple of {_shown(interval)}; or, if its values are of single "
                f"moments, say so {variable_line(name, accumulated='never')}."
            )
        lead = round(_label_to_end(source, axes) / native)
        apart = int(interval // native)
        shifts = tuple(lead + number * apart for number in range(int(wanted // interval)))
        follows = np.r_[False, np.diff(times) == native]
        begins = np.zeros(times.size, bool)
        if said.since_midnight:
            begins = times - native == (times - native).astype("datetime64[D]")
        known = begins | follows | (not said.since_midnight)
        whole = np.ones(times.size, bool)
        for shift in shifts:
            there = np.zeros(times.size, bool)
            before = slice(0, max(times.size - shift, 0))
            there[shift:] = (times[shift:] - times[before] == shift * native) & known[before]
            whole &= there
        return cls(shifts, whole, begins)


def _label_to_end(source: xr.Dataset, axes: Axes) -> np.timedelta64:
    """Time from the label of an interval to its end, by the bounds of the times, if any."""
    bounds = bounds_of(source, axes.time)
    if bounds is None:
        return np.timedelta64(0, "ns")
    ends = clock(bounds.values).max(axis=1)
    ahead: np.timedelta64 = np.median((ends - clock(axes.time.values)).astype("timedelta64[ns]"))
    return max(ahead, np.timedelta64(0, "ns"))


def _combined(
    source: xr.Dataset, name: str, axes: Axes, said: TimeMethod, step: Step
) -> xr.DataArray:
    """A variable put together over steps, without fill values and packing of its own."""
    variable = as_dask(source[[name]])[name]
    intervals = _Intervals.of(source, name, axes, said, step)
    plain = variable.transpose(axes.dims[0], ...)
    plain = plain if plain.chunks else plain.chunk({axes.dims[0]: 64})
    decode = partial(
        _decoded,
        fills=stated_fills(xr.Variable((), 0, variable.attrs)),
        scale=float(variable.attrs.get("scale_factor", 1)),
        offset=float(variable.attrs.get("add_offset", 0)),
    )
    form = {
        "dtype": np.float32 if variable.dtype.itemsize <= 4 else np.float64,
        "meta": np.empty((0,) * plain.ndim, "float32"),
    }
    values = da.map_blocks(decode, plain.data, **form)
    others = [1] * (plain.ndim - 1)
    marks = (intervals.whole + 2 * intervals.begins).astype("uint8").reshape(-1, *others)
    depth = {0: (max(intervals.shifts) + said.since_midnight, 0)}
    combined = da.map_overlap(
        partial(_combine, said=said, shifts=intervals.shifts),
        values,
        da.from_array(marks, chunks=(values.chunks[0], *others)),
        depth=[depth, depth],
        boundary=["none", "none"],
        **form,
    )
    dropped = {*FILL_ATTRIBUTES, "scale_factor", "add_offset", "accumulated"}
    attrs = {key: value for key, value in variable.attrs.items() if key not in dropped}
    attrs["cell_methods"] = f"time: {said.method}"
    return xr.DataArray(combined, plain.coords, plain.dims, attrs=attrs)


def _combine(
    values: NDArray, marks: NDArray[np.uint8], *, said: TimeMethod, shifts: tuple[int, ...]
) -> NDArray:
    """Values (time, ...) put together; the first ones, which lack neighbours, are undefined.

    marks: 1 where all neighbours are there, and 2 more where a sum begins anew.
    """
    if said.since_midnight:
        before = np.concatenate([values[:1] * 0, values[:-1]])
        values = values - np.where(marks & 2, 0, before)
    at = np.maximum(np.arange(len(values)) - np.array(shifts)[:, None], 0)
    combined = COMBINE[said.method](values[at].astype("float64"), axis=0)
    return np.where(marks & 1, combined, np.nan).astype(values.dtype)


def _decoded(values: NDArray, *, fills: list[float], scale: float, offset: float) -> NDArray:
    wide: Any = values.astype(np.float32 if values.dtype.itemsize <= 4 else np.float64)
    for fill in fills:
        wide[np.isclose(values, fill, rtol=1e-5, atol=0)] = np.nan
    return np.asarray(wide * wide.dtype.type(scale) + wide.dtype.type(offset))


def is_sum_since_midnight(values: NDArray, times: NDArray[np.datetime64]) -> bool:
    """Whether values (time, ...) look like sums that begin anew at the same hour of each day.

    They fall at that hour almost wherever there is something, and nowhere at any other.
    """
    follows = np.diff(times) == np.median(np.diff(times))
    hours = (times[1:] - times[1:].astype("datetime64[D]"))[follows]
    before, change = values[:-1][follows], np.diff(values, axis=0)[follows]
    some = before > 0.01 * np.nanmax(values)
    if len(np.unique(hours)) < 2 or not some.any():
        return False
    axes = tuple(range(1, values.ndim))
    fallen, there = (some & (change < 0)).sum(axis=axes), some.sum(axis=axes)
    shares = {
        hour: fallen[hours == hour].sum() / max(there[hours == hour].sum(), 1)
        for hour in np.unique(hours)
    }
    falls = [hour for hour, share in shares.items() if share > 0.01]
    return len(falls) == 1 and bool(shares[falls[0]] > 0.5)


def _shown(duration: np.timedelta64) -> str:
    return format_duration(duration.astype("timedelta64[us]").item())
