"""Times, steps and grids of a source in the words of the field: 'monthly, noleap', '0.25°'."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import calendar_of, clock, time_text
from climlstm.data.sources.times import ROUNDING, step_of
from climlstm.steps import MONTH, as_times

STANDARD = ("standard", "gregorian", "proleptic_gregorian")
"""Calendars that need no word."""

LISTED_GAPS = 3

WORDS = {"1h": "hourly", "1d": "daily", "7d": "weekly", "1 month": "monthly", "1 year": "yearly"}
"""Steps that have a word of their own."""


@dataclass(frozen=True)
class TimeFacts:
    """Span, step and gaps of a time axis, in any calendar."""

    first: str
    last: str
    number: int
    step: str | None
    """Commonest step as a run file has it: '6h', '1 month'; None for fewer than two times."""
    calendar: str
    gaps: tuple[str, ...]
    """Pairs of neighbours that are further apart, or closer, than the step: 'A to B'."""

    @property
    def words(self) -> str:
        """The step as people say it, with a calendar that is not the usual one: 'daily, noleap'."""
        if self.step is None:
            return "a single time"
        step = WORDS.get(self.step, f"every {self.step}")
        return step if self.calendar in STANDARD else f"{step}, {self.calendar}"

    def __str__(self) -> str:
        if self.number < 2:
            return f"{self.number} time{'s' * (self.number != 1)}, {self.first}".rstrip(", ")
        gaps = ""
        if self.gaps:
            more = ", …" * (len(self.gaps) > LISTED_GAPS)
            listed = ", ".join(self.gaps[:LISTED_GAPS]) + more
            gaps = f", but for {len(self.gaps)} gap{'s' * (len(self.gaps) > 1)}: {listed}"
        return f"{self.first} to {self.last}, {self.number} times, {self.words}{gaps}"


def describe_times(coordinate: xr.DataArray) -> TimeFacts:
    """Facts about a time coordinate, datetime64 or of cftime, in order."""
    times = as_times(coordinate)
    calendar = calendar_of(times) if times.size else STANDARD[0]
    ends = [time_text(each) for each in (*times[:1], *times[-1:])]
    first, last = ends or ("", "")
    if times.size < 2:
        return TimeFacts(first, last, times.size, None, calendar, ())
    step = step_of(times)
    if step.duration is None:
        odd = np.flatnonzero(np.diff(MONTH.number(times)) != step.months)
    else:
        apart = np.diff(clock(times)) / np.timedelta64(step.duration)
        odd = np.flatnonzero(np.abs(apart - 1) > ROUNDING)
    gaps = tuple(f"{time_text(times[i])} to {time_text(times[i + 1])}" for i in odd)
    return TimeFacts(first, last, times.size, str(step), calendar, gaps)


def describe_grid(latitude: xr.DataArray, longitude: xr.DataArray) -> str:
    """Rows, columns, spacing and extent of a latitude-longitude grid."""
    rows, columns = latitude.values, longitude.values
    spacings = [_spacing(rows), _spacing(columns)]
    spacing = " × ".join(f"{each}°" if each else "uneven" for each in dict.fromkeys(spacings))
    extent = (
        f"{rows[0]:g} to {rows[-1]:g} degrees north, {columns[0]:g} to {columns[-1]:g} degrees east"
    )
    turn = abs(columns[-1] - columns[0]) * columns.size / max(columns.size - 1, 1)
    around = ", around the globe" if columns.size > 1 and abs(turn - 360) < 1e-3 * 360 else ""
    return f"{rows.size} × {columns.size} cells, {spacing}, {extent}{around}"


def _spacing(values: NDArray[Any]) -> str:
    """Distance of neighbours in degrees; empty where it is not even."""
    apart = np.abs(np.diff(values.astype("float64")))
    if not apart.size:
        return "one"
    even = np.ptp(apart) <= 0.01 * apart.mean()
    return f"{round(float(apart.mean()), 4):g}" if even else ""


def seconds_in_words(seconds: float) -> str:
    """'about 5 minutes': an estimate, without digits that mean nothing."""
    if seconds < 1:
        return "less than a second"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {seconds:.0f} s"
