"""Which times of a source a cube takes."""

from datetime import timedelta

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.config import format_duration
from climlstm.errors import DataError
from climlstm.grid.axes import Selection, readable, some


def select_times(coordinate: xr.DataArray, step: timedelta | None) -> Selection:
    """Instants that lie on the grid of the step; gaps and missing steps stay gaps.

    The grid counts from midnight UTC where the step divides a day, else from the first time.
    Raises DataError for duplicate, unsorted or undefined times, and for a step that no two
    neighbouring times have.
    """
    times = coordinate.values
    _check_times(str(coordinate.name), times)
    if step is None or times.size == 1:
        return Selection(np.arange(times.size), times)
    wanted = np.timedelta64(step)
    day = np.timedelta64(1, "D").astype("timedelta64[us]")
    origin = times[0].astype("datetime64[D]") if day % wanted == np.timedelta64(0) else times[0]
    indices = np.flatnonzero((times - origin) % wanted == np.timedelta64(0))
    kept = times[indices]
    if kept.size < 2 or not np.any(np.diff(kept) == wanted):
        found = ", ".join(_commonest_steps(times)) or "a single time"
        raise DataError(
            f"No two successive times of '{coordinate.name}' are {format_duration(step)} apart on "
            f"full steps; the source has {times.size} times ({some(times)}) with {found}. "
            "Set 'step' in the run file to a multiple of that."
        )
    return Selection(indices, kept)


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
