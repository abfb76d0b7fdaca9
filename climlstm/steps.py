"""Steps in time: durations or calendar months, counted in whole numbers in the data's own calendar.

Who asks which step a time is, how many lie between two, or which time comes n steps later, asks a
`Step`; nobody subtracts dates. Times are datetime64 or cftime, see calendars.py.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import cftime
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from climlstm.calendars import (
    MICROSECONDS,
    MONTHS_A_YEAR,
    PROLEPTIC,
    Times,
    are_times,
    clock,
    from_clock,
    month_index,
    month_starts,
    time_text,
)
from climlstm.errors import ConfigError, DataError

Leads = NDArray[Any]
"""timedelta64, or integers that count calendar months."""

SECOND = pd.Timedelta(seconds=1)
"""Shortest step, and what all are multiples of."""

TOLERANCE = 1e-3
"""Share of a step by which a time may miss it: floats of days or hours are seldom exact."""

MEAN_MONTH_DAYS = 365.2425 / MONTHS_A_YEAR

MONTHS_OF = {
    **dict.fromkeys(("month", "months", "MS", "ME", "monthly"), 1),
    **dict.fromkeys(("season", "seasons", "quarter", "quarters", "QS", "QE", "seasonal"), 3),
    **dict.fromkeys(("year", "years", "YS", "YE", "AS", "annual", "yearly"), MONTHS_A_YEAR),
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
        years = self.months % MONTHS_A_YEAR == 0
        number = self.months // MONTHS_A_YEAR if years else self.months
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
            return month_starts(month_index(start) + self.months * counts, like=start)
        later = clock(start) + counts * np.timedelta64(self.duration)
        return np.asarray(later) if start.dtype.kind == "M" else from_clock(later, like=start)

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

    def thin(self, times: Times) -> NDArray[np.bool_]:
        """Mask of the times that lie whole steps after the first.

        Of times within a month, months take the first.
        """
        if self.duration is not None:
            line = clock(times)
            return np.asarray((line - line[0]) % np.timedelta64(self.duration) == np.timedelta64(0))
        months = month_index(times)
        is_first = np.r_[True, np.diff(months) > 0]
        return np.asarray(is_first & ((months - months[0]) % self.months == 0))

    @property
    def days(self) -> float:
        """Length in days; of months, on average."""
        if self.duration is None:
            return self.months * MEAN_MONTH_DAYS
        return self.duration / timedelta(days=1)

    def is_longer_than(self, other: "Step") -> bool:
        """Whether this step is longer than another, of any kind."""
        return self.days > other.days

    def _ticks(self, times: Times) -> NDArray[np.int64]:
        """Months, or microseconds, since a fixed origin of the calendar."""
        if self.duration is None:
            return month_index(times)
        return clock(times).astype("datetime64[us]").astype("int64")

    @property
    def _size(self) -> int:
        """Length of a step in the unit of `_ticks`."""
        return self.months if self.duration is None else self.duration // timedelta(microseconds=1)


def as_step(value: Any) -> Step:
    """A step from words, a duration, or a step. Raises ConfigError for anything else."""
    if isinstance(value, timedelta):
        return Step(duration=value)
    return value if isinstance(value, Step) else Step.parse(str(value))


def number_of_steps(asked: Any, step: Step) -> int:
    """The number itself, or that of the steps in a duration, months or words such as '5 years'.

    In durations a month counts as a mean month. Raises ConfigError for no whole number from 1.
    """
    if str(asked).strip().isdigit():
        number = int(asked)
    else:
        ahead = as_step(asked)
        mixed = ahead.duration is None and step.duration is not None
        number = round(ahead.days / step.days) if mixed or ahead.is_multiple_of(step) else 0
    if number < 1:
        raise ConfigError(f"'{asked}' is no whole number of steps of {step}")
    return number


DAY = Step(duration=timedelta(days=1))
MONTH = Step(months=1)


def as_times(times: Any) -> Times:
    """An array of datetime64 or cftime from an array, a list, or a single time of any kind.

    Raises DataError for what is neither.
    """
    found = np.asarray(getattr(times, "values", times))
    if are_times(found) or (found.dtype == object and not found.size):
        return found
    first = found.ravel()[0] if found.dtype == object else None
    if isinstance(first, date):  # pandas' and Python's own
        moments = [pd.Timestamp(each).to_datetime64() for each in found.ravel()]
        return np.array(moments).reshape(found.shape)
    raise DataError(f"Expected times, datetime64 or cftime, not {found.dtype}: {found.ravel()[:3]}")


def are_leads(coordinate: Any) -> bool:
    """Whether a coordinate holds lead times: timedelta64, or integers with the units 'months'."""
    months = coordinate.attrs.get("units") == "months" and coordinate.dtype.kind in "iu"
    return coordinate.dtype.kind == "m" or months


def leads_between(init_time: Any, times: Times, *, like: Leads) -> Leads:
    """Lead times from a start to other times, in the unit of other lead times."""
    start = as_times(init_time)
    if like.dtype.kind in "iu":
        return MONTH.number(times, start)
    return np.asarray((clock(times) - clock(start)).astype(like.dtype))


def valid_times(init_times: ArrayLike, lead_times: ArrayLike) -> Times:
    """Times (B, L) for which forecasts from B times at L lead times hold.

    lead_times: timedelta64, or integers, which count calendar months.
    """
    starts, leads = as_times(init_times)[:, None], np.asarray(lead_times)
    if leads.dtype.kind in "iu":
        return MONTH.time(leads, starts)
    valid = clock(starts) + leads
    return np.asarray(valid) if starts.dtype.kind == "M" else from_clock(valid, like=starts)


def valid_time(init_time: Any, lead_time: Any) -> Any:
    """The time for which a forecast from one time at one lead time holds; see `valid_times`."""
    return valid_times(as_times(init_time).reshape(1), np.atleast_1d(lead_time))[0, 0]


def parse_time(text: Any, calendar: str = PROLEPTIC) -> Any:
    """A time such as '2020-01-31T06', as datetime64 or in another calendar; also a time as it is.

    Raises ConfigError for what is no time, or none of that calendar.
    """
    if isinstance(text, cftime.datetime):
        return text
    try:
        if calendar == PROLEPTIC:
            return pd.Timestamp(text).to_datetime64()
        numbers = [int(part) for part in re.split(r"[-T: ]", str(text).strip().removesuffix("Z"))]
        named = cftime.datetime(*numbers, calendar=calendar)
        return cftime.num2date(cftime.date2num(named, MICROSECONDS), MICROSECONDS, calendar)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"'{text}' is no time of the calendar '{calendar}' ({error}); expected times such as "
            "2020-01-31T06."
        ) from error


def lead_text(lead: Any) -> str:
    """'24 h', or '3 months' where a lead time counts months; '' where there is none."""
    if lead is None or pd.isna(lead):
        return ""
    if np.asarray(lead).dtype.kind in "iuf":
        return f"{lead:g} month{'' if lead == 1 else 's'}"
    return f"{pd.Timedelta(lead) / pd.Timedelta(hours=1):g} h"


def lead_numbers(leads: Any) -> tuple[NDArray[np.float64], str]:
    """Lead times as plain numbers, and their unit: 'days', or 'months'."""
    given = np.asarray(leads)
    if given.dtype.kind in "iuf":
        return given.astype("float64"), "months"
    return np.asarray(pd.to_timedelta(given.ravel()) / pd.Timedelta(days=1)), "days"


def parse_lead(lead: Any, *, months: bool) -> Any:
    """A lead time from words such as '24h', '3d' or '3 months'; months as their number.

    Raises ConfigError for what is none, or of another kind.
    """
    if months and isinstance(lead, int | np.integer) and not isinstance(lead, np.timedelta64):
        return int(lead)
    if isinstance(lead, np.timedelta64 | timedelta):
        lead = pd.Timedelta(lead).to_pytimedelta()
    step = as_step(lead)
    if months != (step.duration is None):
        raise ConfigError(f"'{step}' is no lead time in {'months' if months else 'days or hours'}")
    return step.months if months else pd.Timedelta(step.duration)


def is_round_lead(leads: Any) -> NDArray[np.bool_]:
    """Mask of the lead times that are whole days; all, where they count months."""
    numbers, unit = lead_numbers(leads)
    return np.full(numbers.shape, True) if unit == "months" else numbers % 1 == 0


def format_duration(value: timedelta) -> str:
    """'6h', '30min', '1d12h': the shortest form that the run file reads back."""
    minutes, rest = divmod(round(value.total_seconds()), 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"


def _months_in(words: str) -> int:
    """Months that words stand for; 0 where they are of something else."""
    if iso := re.fullmatch(r"P(?:(\d+)Y)?(?:(\d+)M)?", words):
        return MONTHS_A_YEAR * int(iso[1] or 0) + int(iso[2] or 0)
    named = re.fullmatch(r"(\d*)\s*([A-Za-z]+)(?:-[A-Z]{3})?", words)
    return int(named[1] or 1) * MONTHS_OF.get(named[2], 0) if named else 0


def _missed(off: int, step: Step) -> str:
    """Distance of a time from its step, in words."""
    if step.duration is None:
        return f"{off} month{'s' if off > 1 else ''}"
    return format_duration(timedelta(microseconds=int(off)))
