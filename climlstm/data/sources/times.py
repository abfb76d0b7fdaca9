"""Selection of the times of a source that a cube takes."""

import logging
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError
from climlstm.grid.axes import AxisPoints, readable, some
from climlstm.steps import format_duration

logger = logging.getLogger(__name__)

ROUNDING = 0.02
"""Part of the source's step by which all its times may miss full steps and count as rounded: days
in float32 miss eight hours by three minutes, 0.6 %."""

NOISE = 1e-3
"""Part of the source's step by which single times may miss a full step."""


def select_times(coordinate: xr.DataArray, step: timedelta | None) -> AxisPoints:
    """Instants that lie on the grid of the step; gaps and missing steps stay gaps.

    The grid counts from midnight UTC where the step divides a day, else from the first time.
    Times that miss it by rounding are rounded. Raises DataError for duplicate, unsorted or
    undefined times, and for a step that no two neighbouring times have.
    """
    times = coordinate.values
    _check_times(str(coordinate.name), times)
    if step is None or times.size == 1:
        return AxisPoints(np.arange(times.size), times)
    times = full_steps(times, step)
    wanted = np.timedelta64(step)
    indices = np.flatnonzero((times - _origin(times, wanted)) % wanted == np.timedelta64(0))
    kept = times[indices]
    if kept.size < 2 or not np.any(np.diff(kept) == wanted):
        found = ", ".join(_commonest_steps(times)) or "a single time"
        raise DataError(
            f"No two successive times of '{coordinate.name}' are {format_duration(step)} apart on "
            f"full steps; the source has {times.size} times ({some(times)}) with {found}. "
            "Set 'step' in the run file to a multiple of that."
        )
    odd = between_steps(times, kept, step)
    if odd.size:
        logger.warning(
            "%d of %d times of '%s' lie between the steps of %s and are left out, the first at %s.",
            odd.size,
            times.size,
            coordinate.name,
            format_duration(step),
            readable(odd[0]),
        )
    return AxisPoints(indices, kept)


def full_steps(times: NDArray[np.datetime64], step: timedelta) -> NDArray[np.datetime64]:
    """Times rounded to the source's own step, as far as they miss it by rounding alone.

    times: increasing. Numbers of days or hours in float32, or with few decimals, miss full steps.
    """
    if times.size < 2:
        return times
    native = native_step(times, step)
    origin = _origin(times, native)
    off = (times - origin + native // 2) % native - native // 2
    furthest = np.abs(off).max()
    if furthest == np.timedelta64(0):
        return times
    near = np.abs(off) <= (ROUNDING if furthest <= ROUNDING * native else NOISE) * native
    rounded = np.where(near, times - off, times)
    return rounded if (np.diff(rounded) > np.timedelta64(0)).all() else times


def native_step(times: NDArray[np.datetime64], step: timedelta) -> np.timedelta64:
    """The commonest step of a source, taken for a whole part of the step asked for if it is near.

    times: increasing, at least two.
    """
    apart, wanted = np.median(np.diff(times).astype("timedelta64[ns]")), np.timedelta64(step, "ns")
    parts = max(1, round(float(wanted / apart)))
    return wanted // parts


def between_steps(
    times: NDArray[np.datetime64], kept: NDArray[np.datetime64], step: timedelta
) -> NDArray[np.datetime64]:
    """Times that are neither kept nor passed over by taking each n-th step of an even series.

    times, kept: rounded to full steps.
    """
    if times.size < 2:
        return times[:0]
    native = native_step(times, step)
    return times[(times - kept[0]) % native != np.timedelta64(0)]


def _origin(times: NDArray[np.datetime64], step: np.timedelta64) -> np.datetime64:
    """Where steps are counted from: midnight UTC if they divide a day, else the first time."""
    day = np.timedelta64(24 * 3600, "s")
    return times[0].astype("datetime64[D]") if day % step == np.timedelta64(0) else times[0]


def _check_times(name: str, times: NDArray) -> None:
    if times.size == 0:
        raise DataError(f"The time axis '{name}' is empty. Check the files of the source.")
    if np.isnat(times).any():
        first = int(np.flatnonzero(np.isnat(times))[0])
        raise DataError(f"The time axis '{name}' has no time at position {first} (missing value).")
    steps = np.diff(times)
    zero = np.timedelta64(0)
    if (steps < zero).any():
        at = np.flatnonzero(steps < zero)
        raise DataError(
            f"The times of '{name}' are not in order: {readable(times[at[0] + 1])} follows "
            f"{readable(times[at[0]])} "
            f"(position {at[0] + 1}; {at.size} such places). Sort the source, or the files of it."
        )
    if (steps == zero).any():
        twice = np.unique(times[1:][steps == zero])
        raise DataError(
            f"The times of '{name}' come more than once: {some(twice)} ({twice.size} in all). "
            "Remove the duplicates, such as files that overlap."
        )


def _commonest_steps(times: NDArray) -> list[str]:
    steps, counts = np.unique(np.diff(times), return_counts=True)
    order = np.argsort(-counts)[:2]
    return [
        f"steps of {format_duration(steps[i].astype('timedelta64[us]').item())} ({counts[i]} times)"
        for i in order
    ]


def dates_in_numbers(numbers: NDArray) -> NDArray[np.datetime64] | None:
    """Dates written as numbers: YYYYMMDD, with a fraction of a day, YYYYMMDDHH or YYYYMMDDHHMM.

    None for other numbers. Float32 holds no such number exactly, so it is none.
    """
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iuf":
        return None
    if numbers.dtype.itemsize < 4 or numbers.dtype == np.float32 or not np.isfinite(numbers).all():
        return None
    whole = np.floor(numbers).astype("int64")
    for digits, form in ((8, "%Y%m%d"), (10, "%Y%m%d%H"), (12, "%Y%m%d%H%M")):
        if whole.min() < 10 ** (digits - 1) or whole.max() >= 10**digits:
            continue
        try:
            dates = pd.to_datetime(whole.astype(str), format=form)
        except ValueError:
            return None
        seconds = np.round((numbers - whole) * 86400.0).astype("timedelta64[s]")
        return None if digits > 8 and seconds.any() else (dates + seconds).to_numpy()
    return None
