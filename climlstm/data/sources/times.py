"""Selection of the times of a source that a cube takes, and the steps between them."""

import logging
from collections.abc import Hashable
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import (
    Times,
    are_times,
    calendar_of,
    clock,
    from_clock,
    month_index,
    month_starts,
    time_text,
)
from climlstm.errors import DataError
from climlstm.grid.axes import AxisPoints, some
from climlstm.steps import MONTH, Step

logger = logging.getLogger(__name__)

ROUNDING = 0.02
"""Part of the source's step by which all its times may miss full steps and count as rounded: days
in float32 miss eight hours by three minutes, 0.6 %."""

NOISE = 1e-3
"""Part of the source's step by which single times may miss a full step."""

DAY = np.timedelta64(24 * 3600, "s")
MINUTE = np.timedelta64(60, "s")
ZERO = np.timedelta64(0)

SHORTEST_MONTH = np.timedelta64(28, "D")


def select_times(
    coordinate: xr.DataArray, step: Step | None, bounds: xr.DataArray | None = None
) -> AxisPoints:
    """Times that lie on the steps; gaps and missing steps stay gaps.

    Durations count from midnight UTC where the step divides a day and some times lie there, else
    from the first time; times that miss their step by rounding are rounded. Months are those that
    hold the middle of the bounds or, without bounds, the time itself, and are named by their first
    moment. Raises DataError for duplicate, unsorted or undefined times, and for a step that no two
    neighbouring times have.
    """
    times = coordinate.values
    _check_times(str(coordinate.name), times)
    if step is None:
        return AxisPoints(np.arange(times.size), times)
    if step.duration is None:
        return _select_months(str(coordinate.name), middles(times, bounds), step)
    if times.size == 1:
        return AxisPoints(np.arange(1), times)
    times = full_steps(times, step)
    line, wanted = clock(times), np.timedelta64(step.duration)
    indices = np.flatnonzero((line - _origin(line, wanted)) % wanted == ZERO)
    kept = times[indices]
    native = step_of(times)
    misfit = native.duration is None and 2 * kept.size < times.size  # 30d of calendar months
    if kept.size < 2 or misfit or not np.any(np.diff(line[indices]) == wanted):
        raise DataError(
            f"No two successive times of '{coordinate.name}' are {step} apart on "
            f"full steps; the source has {times.size} times ({some(times)}) with steps of "
            f"{native}. " + _advice(native)
        )
    _warn_left_out(between_steps(times, kept, step), times.size, coordinate.name, step)
    return AxisPoints(indices, kept)


def _select_months(name: str, times: Times, step: Step) -> AxisPoints:
    """Times of a source of months, seasons or years, named by their first moments."""
    months = MONTH.number(times)
    apart = np.diff(months)
    if (apart <= 0).any():
        at = int(np.flatnonzero(apart <= 0)[0])
        native = step_of(times)
        raise DataError(
            f"The times of '{name}' lie more than once in {time_text(times[at], months=True)}: "
            f"{some(times[at : at + 2])}, so they are no means of months. "
            + (
                f"The source has steps of {native}. Set 'step' in the run file to that."
                if native.duration is not None
                else "Remove the duplicates."
            )
        )
    native = Step(months=int(np.median(apart))) if apart.size else step
    if native != step:
        raise DataError(
            f"The source has steps of {native}, not of {step}: '{name}' has {times.size} times "
            f"({some(times)}). {_advice(native)}"
        )
    indices = np.flatnonzero(months % step.months == 0)
    odd = times[months % step.months != 0]
    _warn_left_out(odd, times.size, name, step)
    return AxisPoints(indices, MONTH.time(months[indices], times[0]))


def _advice(native: Step) -> str:
    if native.duration is not None:
        return "Set 'step' in the run file to a multiple of that."
    return (
        f"Set 'step' in the run file to '{native}'; for longer means average the source first, "
        "such as with xarray's resample(time='QS-DEC').mean()."
    )


def _warn_left_out(odd: Times, number: int, name: Hashable, step: Step) -> None:
    if odd.size:
        logger.warning(
            "%d of %d times of '%s' lie between the steps of %s and are left out, the first at %s.",
            odd.size,
            number,
            name,
            step,
            time_text(odd[0]),
        )


def bounds_of(source: xr.Dataset, coordinate: xr.DataArray) -> xr.DataArray | None:
    """First and last moments of the intervals that times stand for, (time, 2); None without."""
    said = coordinate.attrs.get("bounds") or coordinate.encoding.get("bounds")
    bounds = source.get(said) if said else None
    dim = coordinate.dims[0]
    if bounds is None or bounds.ndim != 2 or dim not in bounds.dims or 2 not in bounds.shape:
        return None
    bounds = bounds.transpose(dim, ...)
    return bounds if are_times(bounds.values) else None


def middles(times: Times, bounds: xr.DataArray | None) -> Times:
    """Middle of the interval that each time stands for; the time itself where there is none."""
    if bounds is None or not are_times(bounds.values) or pd.isnull(bounds.values).any():
        return times
    edges = clock(bounds.values)
    return from_clock(edges.min(axis=1) + (np.ptp(edges, axis=1) // 2), like=times)


def coordinate_bytes(values: NDArray) -> bytes:
    """Bytes of a coordinate for a digest, in whatever calendar its times are."""
    if values.dtype == object:
        return clock(values).tobytes() + calendar_of(values).encode()
    return np.ascontiguousarray(values).tobytes()


def step_of(times: Times) -> Step:
    """Step of a source, judged by its times: calendar months where they are, else a duration.

    times: at least two, increasing. Months are 28 days long or more, and none comes twice. They are
    stamped alike, or else their lengths differ, as those of 30 days do not.
    """
    line, index = clock(times), month_index(times)
    apart, months = np.diff(line), np.diff(index)
    stamps = line - clock(month_starts(index, like=times))
    alike = (stamps == stamps[0]).all() or (apart % apart.min() != ZERO).any()
    if months.min() > 0 and np.median(apart) >= SHORTEST_MONTH and alike:
        found, counts = np.unique(months, return_counts=True)
        return Step(months=int(found[counts.argmax()]))
    durations, counts = np.unique(apart, return_counts=True)
    commonest = durations[counts.argmax()].astype("timedelta64[s]").item()
    return Step(duration=max(commonest, timedelta(seconds=1)))


def full_steps(times: Times, step: Step) -> Times:
    """Times rounded to the source's own step, as far as they miss it by rounding alone.

    times: increasing. Numbers of days or hours in float32, or with few decimals, miss full steps.
    Times of months stay as they are.
    """
    if times.size < 2 or step.duration is None:
        return times
    line = clock(times)
    native = native_step(times, step)
    origin = _origin(line, native)
    off = (line - origin + native // 2) % native - native // 2
    furthest = np.abs(off).max()
    if furthest == ZERO:
        return times
    near = np.abs(off) <= (ROUNDING if furthest <= ROUNDING * native else NOISE) * native
    rounded = np.where(near, line - off, line)
    return from_clock(rounded, like=times) if (np.diff(rounded) > ZERO).all() else times


def native_step(times: Times, step: Step) -> np.timedelta64:
    """The commonest step of a source, taken for a whole part of the step asked for if it is near.

    times: increasing, at least two; step: a duration.
    """
    apart = np.median(np.diff(clock(times)).astype("timedelta64[ns]"))
    wanted = np.timedelta64(step.duration, "ns")
    parts = max(1, round(float(wanted / apart)))
    return wanted // parts


def between_steps(times: Times, kept: Times, step: Step) -> Times:
    """Times that are neither kept nor passed over by taking each n-th step of an even series.

    times, kept: rounded to full steps; step: a duration.
    """
    if times.size < 2 or step.duration is None:
        return times[:0]
    native = native_step(times, step)
    return times[(clock(times) - clock(kept[:1])) % native != ZERO]


def _origin(line: NDArray[np.datetime64], step: np.timedelta64) -> np.datetime64:
    """Moment that steps are counted from: midnight UTC or the first time, to the minute.

    Midnight, if the step divides a day and two times at least lie on such steps, about: so hourly
    data from 07 UTC on give 12 and 18 UTC, and daily means at 12 UTC give 12 UTC.
    """
    midnight = line[0].astype("datetime64[D]")
    if DAY % step == ZERO:
        off = np.abs((line - midnight + step // 2) % step - step // 2)
        if np.count_nonzero(off <= ROUNDING * step) >= 2:
            return midnight
    since = line[0] - midnight
    minutes = (since + MINUTE // 2) // MINUTE * MINUTE
    return midnight + (minutes if abs(minutes - since) <= NOISE * step else since)


def _check_times(name: str, times: Times) -> None:
    if times.size == 0:
        raise DataError(f"The time axis '{name}' is empty. Check the files of the source.")
    undefined = pd.isnull(times)
    if undefined.any():
        first = int(np.flatnonzero(undefined)[0])
        raise DataError(f"The time axis '{name}' has no time at position {first} (missing value).")
    steps = np.diff(clock(times))
    if (steps < ZERO).any():
        at = np.flatnonzero(steps < ZERO)
        raise DataError(
            f"The times of '{name}' are not in order: {some(times[at[0] + 1 :][:1])} follows "
            f"{some(times[at[0] :][:1])} "
            f"(position {at[0] + 1}; {at.size} such places). Sort the source, or the files of it."
        )
    if (steps == ZERO).any():
        twice = np.unique(times[1:][steps == ZERO])
        raise DataError(
            f"The times of '{name}' come more than once: {some(twice)} ({twice.size} in all). "
            "Remove the duplicates, such as files that overlap."
        )


def dates_in_numbers(numbers: NDArray) -> NDArray[np.datetime64] | None:
    """Dates written as numbers: YYYYMMDD, with a fraction of a day, YYYYMMDDHH and on to seconds.

    None for other numbers. Float32 holds no such number exactly, so it is none.
    """
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iuf":
        return None
    if numbers.dtype.itemsize < 4 or numbers.dtype == np.float32 or not np.isfinite(numbers).all():
        return None
    whole = np.floor(numbers).astype("int64")
    for digits, form in ((8, "%Y%m%d"), (10, "%Y%m%d%H"), (12, "%Y%m%d%H%M"),
                         (14, "%Y%m%d%H%M%S")):  # fmt: skip
        if whole.min() < 10 ** (digits - 1) or whole.max() >= 10**digits:
            continue
        try:
            dates = pd.to_datetime(whole.astype(str), format=form)
        except ValueError:
            return None
        seconds = np.round((numbers - whole) * 86400.0).astype("timedelta64[s]")
        return None if digits > 8 and seconds.any() else (dates + seconds).to_numpy()
    return None
