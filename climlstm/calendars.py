"""Dates in the calendars of climate data: real ones, without leap days, of 360 days, Julian.

Times are arrays of datetime64, or of cftime objects where the calendar is another one (`noleap`,
`360_day`, Julian) or the year lies beyond the nanoseconds of datetime64, before 1678. Both kinds
pass through climlstm unchanged; here is what is asked of them.
"""

from calendar import monthrange
from typing import Any

import cftime
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Times = NDArray[Any]
"""datetime64, or cftime objects of one calendar."""

PROLEPTIC = "proleptic_gregorian"
"""Calendar of datetime64, by CF's name."""

MICROSECONDS = "microseconds since 0001-01-01"

MONTHS_A_YEAR = 12
FIRST_YEAR = 1970
"""Year that numpy counts months from."""

MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def are_times(values: NDArray[Any]) -> bool:
    """Whether an array holds datetime64 or cftime."""
    known = values.dtype == object and values.size
    return values.dtype.kind == "M" or bool(known and isinstance(values.flat[0], cftime.datetime))


def clock(times: Times) -> NDArray[np.datetime64]:
    """Times on a line of days of 24 hours: for differences and hours of the day, not for dates.

    datetime64 as it is; cftime counts from a midnight of its own calendar.
    """
    if times.dtype.kind == "M":
        return times
    ticks = cftime.date2num(times, MICROSECONDS, calendar=calendar_of(times)) if times.size else []
    return np.asarray(ticks, dtype="int64").astype("datetime64[us]")


def from_clock(line: NDArray[np.datetime64], *, like: Times) -> Times:
    """Times in the calendar and the unit of other ones: `clock` read backwards."""
    if like.dtype.kind == "M":
        return line.astype(like.dtype)
    ticks = line.astype("datetime64[us]").astype("int64")
    made = cftime.num2date(ticks.ravel(), MICROSECONDS, calendar=calendar_of(like))
    return _objects(list(made), ticks.shape)


def within(times: Times, period: tuple[pd.Timestamp, pd.Timestamp]) -> NDArray[np.bool_]:
    """Mask of the times between two moments, both included, by the date that each calendar shows.

    Where a calendar lacks the day of a bound, such as the 31st, its neighbours decide.
    """
    if times.dtype.kind == "M":
        moments = times.astype("datetime64[us]")  # nanoseconds end in 2262
        first, last = (each.to_datetime64().astype("datetime64[us]") for each in period)
        return np.asarray((moments >= first) & (moments <= last))
    shown = _digits(times)
    start, stop = _digits(np.array(period, dtype=object))
    return np.asarray((shown >= start) & (shown <= stop))


def civil(time: Any) -> pd.Timestamp:
    """A time by the date that it shows; 30 February is the last day of that month."""
    if not isinstance(time, cftime.datetime):
        return pd.Timestamp(time)
    day = min(time.day, monthrange(time.year, time.month)[1])
    return pd.Timestamp(time.year, time.month, day, time.hour, time.minute, time.second)


def calendar_of(times: Times) -> str:
    """CF's name of the calendar; that of datetime64 is proleptic_gregorian."""
    return PROLEPTIC if times.dtype.kind == "M" else str(times.ravel()[0].calendar)


def time_text(time: Any, *, months: bool = False) -> str:
    """'2020-01-31 06:00', in whatever calendar; `months`: 'March 1998'."""
    if isinstance(time, np.datetime64 | np.ndarray):
        time = pd.Timestamp(np.asarray(time)[()])
    if months:
        return f"{MONTH_NAMES[time.month - 1]} {time.year}"
    clock = f"{time.hour:02}:{time.minute:02}" + (f":{time.second:02}" if time.second else "")
    return f"{time.year:04}-{time.month:02}-{time.day:02} {clock}"


def day_text(time: Any) -> str:
    """'1 Mar 1998', in whatever calendar."""
    moment = time if isinstance(time, cftime.datetime) else pd.Timestamp(time)
    return f"{moment.day} {MONTH_NAMES[moment.month - 1][:3]} {moment.year}"


def month_of_year(times: Times) -> NDArray[np.int64]:
    """1 for January to 12 for December."""
    return month_index(times) % MONTHS_A_YEAR + 1


def day_of_year(times: Times) -> NDArray[np.int64]:
    """1 for the first of January, up to the length of the year in the calendar of the times."""
    if times.dtype.kind == "M":
        days = times.astype("datetime64[D]") - times.astype("datetime64[Y]").astype("datetime64[D]")
        return days.astype("int64") + 1
    return np.array([time.dayofyr for time in times.ravel()], dtype="int64").reshape(times.shape)


def longest_year(times: Times) -> int:
    """Days of the longest year of the calendar: 366, or 365 without leap days, or 360."""
    return {"noleap": 365, "365_day": 365, "360_day": 360}.get(calendar_of(times), 366)


def hour_of_day(times: Times) -> NDArray[np.float64]:
    """Hours since midnight, with parts of an hour."""
    line = clock(times)
    return (line - line.astype("datetime64[D]")) / np.timedelta64(1, "h")


def year_share(times: Times) -> NDArray[np.float64]:
    """Elapsed part of the year in another calendar than that of datetime64, 0 to 1.

    times: cftime.
    """
    last = 30 if calendar_of(times) == "360_day" else 31
    lengths = [time.replace(month=12, day=last).dayofyr for time in times.ravel()]
    elapsed = day_of_year(times) - 1 + hour_of_day(times) / 24
    return np.asarray(elapsed / np.array(lengths).reshape(times.shape))


def civil_times(times: Times) -> NDArray[np.datetime64]:
    """Real times at the same part of the year and the same hour, for the place of the sun."""
    if times.dtype.kind == "M":
        return times
    years = [f"{time.year:04}" for time in times.ravel()]
    start = np.array(years, dtype="datetime64[Y]").reshape(times.shape)
    length = ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype("int64")
    hours = hour_of_day(times)
    days = np.floor((year_share(times) - hours / 24 / length) * length + 1e-9).astype("int64")
    real = start.astype("datetime64[s]") + days * np.timedelta64(86400, "s")
    return np.asarray(real + np.round(hours * 3600).astype("timedelta64[s]"))


def month_index(times: Times) -> NDArray[np.int64]:
    """Months since January of the year 0, whatever the calendar."""
    if times.dtype.kind == "M":
        return times.astype("datetime64[M]").astype("int64") + FIRST_YEAR * MONTHS_A_YEAR
    index = [MONTHS_A_YEAR * time.year + time.month - 1 for time in times.ravel()]
    return np.array(index, dtype="int64").reshape(times.shape)


def month_starts(index: NDArray[np.int64], *, like: Times) -> Times:
    """First moments of months, in the calendar and the unit of other times."""
    if like.dtype.kind == "M":
        return (index - FIRST_YEAR * MONTHS_A_YEAR).astype("datetime64[M]").astype(like.dtype)
    first = like.ravel()[0].replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    made = [
        first.replace(year=i // MONTHS_A_YEAR, month=i % MONTHS_A_YEAR + 1)
        for i in index.ravel().tolist()
    ]
    return _objects(made, index.shape)


def _objects(times: list[Any], shape: tuple[int, ...]) -> Times:
    out = np.empty(len(times), dtype=object)
    out[:] = times
    return out.reshape(shape)


def _digits(times: Times) -> NDArray[np.int64]:
    """Numbers that order times as their dates and clocks read, whatever the calendar."""
    shown = [
        ((t.year * MONTHS_A_YEAR + t.month) * 31 + t.day) * 86_400_000_000
        + ((t.hour * 60 + t.minute) * 60 + t.second) * 1_000_000
        + t.microsecond
        for t in times.ravel()
    ]
    return np.array(shown, dtype="int64").reshape(times.shape)
