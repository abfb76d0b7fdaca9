"""Steps in time: durations or calendar months, counted in whole numbers in the data's own calendar.

Who asks which step a time is, how many lie between two, or which time comes n steps later, asks a
`Step`; nobody subtracts dates. Times are arrays of datetime64, or of cftime objects where the
calendar is another one (`noleap`, `360_day`, Julian) or the year lies outside of what numpy's
nanoseconds reach. Both kinds pass through unchanged.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import cftime
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from climlstm.errors import ConfigError, DataError

Times = NDArray[Any]
"""datetime64, or cftime objects of one calendar."""

Leads = NDArray[Any]
"""timedelta64, or integers that count calendar months."""

SECOND = pd.Timedelta(seconds=1)
"""Shortest step, and what all are multiples of."""

TOLERANCE = 1e-3
"""Share of a step by which a time may miss it: floats of days or hours are seldom exact."""

MONTHS = 12
FIRST_YEAR = 1970
"""Year that numpy counts months from."""

MICROSECONDS = "microseconds since 0001-01-01"

MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

MONTHS_OF = {
    **dict.fromkeys(("month", "months", "MS", "ME", "monthly"), 1),
    **dict.fromkeys(("season", "seasons", "quarter", "quarters", "QS", "QE", "seasonal"), 3),
    **dict.fromkeys(("year", "years", "YS", "YE", "AS", "annual", "yearly"), MONTHS),
}
"""Words for calendar steps, those of pandas' and xarray's offsets among them, in months."""


@dataclass(frozen=True)
class Step:
    """Distance between two states: a duration, or a number of calendar months."""

    duration: timedelta | None = None
    months: int = 0

    def __post_init__(self) -> None:
        if (self.duration is None) == (self.months == 0):
            raise ValueError("a step is either a duration or a number of months")
        if (self.duration or timedelta(1)) <= timedelta(0) or self.months < 0:
            raise ValueError(f"a step must be positive, not {self.duration or self.months}")

    @classmethod
    def parse(cls, text: str) -> "Step":
        """Step written in words: `6h`, `1d`, `1 month`, `MS`, `P1M`, `QS-DEC`, `season`, `year`.

        `1MS` and `P1M` are a month here, not a millisecond or a minute. Raises ConfigError for
        anything else, and for `1M`, which is a month to some and a minute to others.
        """
        words = str(text).strip()
        if months := _months_in(words):
            return cls(months=months)
        ambiguous = re.fullmatch(r"\d*\s*M", words) is not None
        try:
            found = None if ambiguous else pd.Timedelta(re.sub(r"d(?![a-z])", "D", words))
        except ValueError:
            found = None
        if found is None or pd.isna(found) or found < SECOND or found % SECOND != pd.Timedelta(0):
            meant = f"'{words}' may be months or minutes; write '1 month' or '1min'; "
            raise ConfigError(
                f"{meant if ambiguous else ''}expected a duration with its unit, such as '6h' or "
                f"'1d', or '1 month', 'season', 'year', not '{words}'"
            )
        return cls(found.to_pytimedelta())

    def __str__(self) -> str:
        """The shortest words that `parse` reads back: '6h', '1d12h', '1 month', '2 years'."""
        if self.duration is not None:
            return format_duration(self.duration)
        years = self.months % MONTHS == 0
        number = self.months // MONTHS if years else self.months
        return f"{number} {'year' if years else 'month'}{'s' if number > 1 else ''}"

    def __mul__(self, number: int) -> "Step":
        """A whole number of steps as one."""
        if self.duration is not None:
            return Step(self.duration * number)
        return Step(months=self.months * number)

    def number(self, times: ArrayLike, origin: Any = None) -> NDArray[np.int64]:
        """Number of whole steps from an origin to each time, int64 of the times' shape.

        times: datetime64 or cftime; for months, any moment within the month.
        origin: one time, or an array that broadcasts; None: the first of the times.
        Raises DataError where a time misses its step by more than `TOLERANCE`.
        """
        moments = as_times(times)
        start = moments.ravel()[:1].reshape(()) if origin is None else as_times(origin)
        size = self._size
        apart = self._ticks(moments) - self._ticks(start)
        numbers = np.floor_divide(apart + size // 2, size)
        off = np.abs(apart - numbers * size)
        if off.size and off.max() > (0 if self.duration is None else TOLERANCE * size):
            worst = np.unravel_index(off.argmax(), off.shape)
            raise DataError(
                f"{time_text(np.broadcast_to(moments, off.shape)[worst])} lies "
                f"{_missed(int(off.max()), self)} off the steps of {self} counted from "
                f"{time_text(start.ravel()[0])}."
            )
        return numbers.astype("int64")

    def time(self, numbers: ArrayLike, origin: Any) -> Times:
        """Times that lie whole numbers of steps after an origin: the inverse of `number`.

        numbers, origin: broadcast against each other. The calendar is that of the origin. Months
        are named by their first moment.
        """
        counts, start = np.asarray(numbers, dtype="int64"), as_times(origin)
        if self.duration is None:
            return _month_starts(_month_index(start) + self.months * counts, like=start)
        if start.dtype.kind == "M":
            return np.asarray(start + counts * np.timedelta64(self.duration))
        ticks = self._ticks(start) + counts * self._size
        return _from_microseconds(ticks, like=start)

    def leads(self, numbers: ArrayLike) -> Leads:
        """Lead times of whole numbers of steps: timedelta64[ns], or int64 in months."""
        counts = np.asarray(numbers, dtype="int64")
        if self.duration is None:
            return np.asarray(counts * self.months)
        return np.asarray((counts * np.timedelta64(self.duration)).astype("timedelta64[ns]"))

    def counts(self, leads: ArrayLike) -> NDArray[np.int64]:
        """Whole numbers of steps in lead times: the inverse of `leads`.

        Raises DataError where one lies between two steps.
        """
        given = np.asarray(leads)
        if (self.duration is None) != (given.dtype.kind in "iu"):
            raise DataError(f"Lead times of {given.dtype} cannot be counted in steps of {self}.")
        size = self.months if self.duration is None else np.timedelta64(self.duration)
        if (given % size).astype("int64").any():
            raise DataError(f"There are lead times between the steps of {self}: {given[:3]}.")
        return (given // size).astype("int64")

    def is_multiple_of(self, other: "Step") -> bool:
        """Whether a whole number of other steps makes this one."""
        if self.duration is None or other.duration is None:
            same_kind = self.duration is None and other.duration is None
            return same_kind and self.months % other.months == 0
        return self.duration % other.duration == timedelta(0)

    def _ticks(self, times: Times) -> NDArray[np.int64]:
        """Months, or microseconds, since a fixed origin of the calendar."""
        return _month_index(times) if self.duration is None else _microseconds_of(times)

    @property
    def _size(self) -> int:
        """Length of a step in the unit of `_ticks`."""
        return self.months if self.duration is None else self.duration // timedelta(microseconds=1)


DAY = Step(duration=timedelta(days=1))
MONTH = Step(months=1)


def as_times(times: Any) -> Times:
    """An array of datetime64 or cftime from an array, a list, or a single time of any kind.

    Raises DataError for what is neither.
    """
    found = np.asarray(getattr(times, "values", times))
    if found.dtype.kind == "M":
        return found
    first = found.ravel()[0] if found.dtype == object and found.size else None
    if isinstance(first, cftime.datetime):
        return found
    if isinstance(first, date):  # pandas' and Python's own
        moments = [pd.Timestamp(each).to_datetime64() for each in found.ravel()]
        return np.array(moments).reshape(found.shape)
    raise DataError(f"Expected times, datetime64 or cftime, not {found.dtype}: {found.ravel()[:3]}")


def valid_times(init_times: ArrayLike, lead_times: ArrayLike) -> Times:
    """Times (B, L) for which forecasts from B times at L lead times hold.

    lead_times: timedelta64, or integers, which count calendar months.
    """
    starts, leads = as_times(init_times)[:, None], np.asarray(lead_times)
    if leads.dtype.kind in "iu":
        return MONTH.time(leads, starts)
    if starts.dtype.kind == "M":
        return np.asarray(starts + leads)
    ticks = _microseconds_of(starts) + leads.astype("timedelta64[us]").astype("int64")
    return _from_microseconds(ticks, like=starts)


def within(times: Times, period: tuple[pd.Timestamp, pd.Timestamp]) -> NDArray[np.bool_]:
    """Mask of the times between two moments, both included, by the date that each calendar shows.

    Where a calendar lacks the day of a bound, such as the 31st, its neighbours decide.
    """
    if times.dtype.kind == "M":
        return np.asarray((times >= np.datetime64(period[0])) & (times <= np.datetime64(period[1])))
    shown = _digits(times)
    start, stop = _digits(np.array(period, dtype=object))
    return np.asarray((shown >= start) & (shown <= stop))


def parse_time(text: Any, like: Times) -> Any:
    """A time such as '2020-01-31T06', in the calendar of other times.

    Raises ConfigError for what is no time, or none of that calendar.
    """
    try:
        if like.dtype.kind == "M" or not isinstance(text, str):
            return text if isinstance(text, cftime.datetime) else pd.Timestamp(text).to_datetime64()
        numbers = [int(part) for part in re.split(r"[-T: ]", text.strip().removesuffix("Z"))]
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        fields = dict(zip(names, (1, 1, 1, 0, 0, 0, 0), strict=True))
        return like.ravel()[0].replace(**fields | dict(zip(names, numbers, strict=False)))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"'{text}' is no time of the calendar '{calendar_of(like)}' ({error}); expected one "
            "such as 2020-01-31T06."
        ) from error


def calendar_of(times: Times) -> str:
    """CF's name of the calendar; that of datetime64 is proleptic_gregorian."""
    return "proleptic_gregorian" if times.dtype.kind == "M" else str(times.ravel()[0].calendar)


def is_increasing(times: Times) -> bool:
    """Whether each time is later than the one before."""
    return bool(np.all(times[1:] > times[:-1]))


def time_text(time: Any, *, months: bool = False) -> str:
    """'2020-01-31 06:00', in whatever calendar; `months`: 'March 1998'."""
    if isinstance(time, np.datetime64 | np.ndarray):
        time = pd.Timestamp(np.asarray(time)[()])
    if months:
        return f"{MONTH_NAMES[time.month - 1]} {time.year}"
    clock = f"{time.hour:02}:{time.minute:02}" + (f":{time.second:02}" if time.second else "")
    return f"{time.year:04}-{time.month:02}-{time.day:02} {clock}"


def lead_text(lead: Any) -> str:
    """'24 h', or '3 months' where a lead time counts months; '' where there is none."""
    if lead is None or pd.isna(lead):
        return ""
    if np.asarray(lead).dtype.kind in "iuf":
        return f"{lead:g} month{'' if lead == 1 else 's'}"
    return f"{pd.Timedelta(lead) / pd.Timedelta(hours=1):g} h"


def format_duration(value: timedelta) -> str:
    """'6h', '30min', '1d12h': the shortest form that the run file reads back."""
    minutes, rest = divmod(round(value.total_seconds()), 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"


def _months_in(words: str) -> int:
    """Months that words stand for; 0 where they are of something else."""
    if iso := re.fullmatch(r"P(?:(\d+)Y)?(?:(\d+)M)?", words):
        return MONTHS * int(iso[1] or 0) + int(iso[2] or 0)
    named = re.fullmatch(r"(\d*)\s*([A-Za-z]+)(?:-[A-Z]{3})?", words)
    return int(named[1] or 1) * MONTHS_OF.get(named[2], 0) if named else 0


def _month_index(times: Times) -> NDArray[np.int64]:
    """Months since January of the year 0, whatever the calendar."""
    if times.dtype.kind == "M":
        return times.astype("datetime64[M]").astype("int64") + FIRST_YEAR * MONTHS
    index = [MONTHS * time.year + time.month - 1 for time in times.ravel()]
    return np.array(index, dtype="int64").reshape(times.shape)


def _month_starts(index: NDArray[np.int64], *, like: Times) -> Times:
    """First moments of months, in the calendar and the unit of other times."""
    if like.dtype.kind == "M":
        return (index - FIRST_YEAR * MONTHS).astype("datetime64[M]").astype(like.dtype)
    first = like.ravel()[0].replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    made = [first.replace(year=i // MONTHS, month=i % MONTHS + 1) for i in index.ravel().tolist()]
    return _objects(made, index.shape)


def _microseconds_of(times: Times) -> NDArray[np.int64]:
    """Microseconds since a fixed moment of the calendar."""
    if times.dtype.kind == "M":
        return times.astype("datetime64[us]").astype("int64")
    ticks = cftime.date2num(times, MICROSECONDS, calendar=calendar_of(times))
    return np.asarray(ticks, dtype="int64")


def _from_microseconds(ticks: NDArray[np.int64], *, like: Times) -> Times:
    """cftime objects of the calendar of other times: `_microseconds_of` read backwards."""
    made = cftime.num2date(ticks.ravel(), MICROSECONDS, calendar=calendar_of(like))
    return _objects(list(made), ticks.shape)


def _objects(times: list[Any], shape: tuple[int, ...]) -> Times:
    out = np.empty(len(times), dtype=object)
    out[:] = times
    return out.reshape(shape)


def _digits(times: Times) -> NDArray[np.int64]:
    """Numbers that order times as their dates and clocks read, whatever the calendar."""
    shown = [
        ((t.year * MONTHS + t.month) * 31 + t.day) * 86_400_000_000
        + ((t.hour * 60 + t.minute) * 60 + t.second) * 1_000_000
        + t.microsecond
        for t in times.ravel()
    ]
    return np.array(shown, dtype="int64").reshape(times.shape)


def _missed(off: int, step: Step) -> str:
    """Distance of a time from its step, in words."""
    if step.duration is None:
        return f"{off} month{'s' if off > 1 else ''}"
    return format_duration(timedelta(microseconds=int(off)))
