"""Climatology by hour of the day and day of the year, as WeatherBench 2 defines it."""

import threading
from collections.abc import Iterable, Sequence

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError

WINDOW_DAYS = 61
"""Width of the triangular window, ends of weight 0 included (WeatherBench 2: Rasp et al. 2024,
J. Adv. Model. Earth Syst. 16, e2023MS004019, section 3.2)."""

DAYS = 366
"""Days of a year; years without a 29 February have no day 366."""


def climatology(
    cube: xr.Dataset,
    period: tuple[pd.Timestamp, pd.Timestamp],
    *,
    channels: Sequence[str],
    unusable: Iterable[np.datetime64] = (),
) -> xr.Dataset:
    """Mean of a period for each hour and day of the year: (hour, dayofyear, latitude, longitude).

    Each value is the mean over all years and the days around it, weighted by a triangle that falls
    to 0 at 30 days, across the turn of the year. Day 366 therefore has values even if only leap
    years have it, and a record shorter than a year uses what its window meets. A day with no data
    within the window has the mean of its hour over the whole period, which is all that is known.

    period: first and last moment, both included: the training period only.
    unusable: times that are left out because values are missing there.
    Cells that are never observed stay NaN. Raises DataError where the period holds no time.
    """
    times = cube["time"].values
    inside = (times >= period[0].to_datetime64()) & (times <= period[1].to_datetime64())
    inside &= ~np.isin(times, np.array(list(unusable), dtype=times.dtype))
    if not inside.any():
        raise DataError(
            f"The period {period[0]} to {period[1]} holds none of the usable times from "
            f"{times[0]} to {times[-1]}, so it has no climatology."
        )
    index = pd.DatetimeIndex(times)
    hours = np.unique(index.hour[inside])
    groups = np.searchsorted(hours, index.hour) * DAYS + index.day_of_year - 1
    counts = np.bincount(groups[inside], minlength=hours.size * DAYS).reshape(-1, DAYS)
    weights = _weights(counts)
    dims = ("hour", "dayofyear", "latitude", "longitude")
    coords = {
        "hour": ("hour", hours, {"long_name": "hour of the day, UTC"}),
        "dayofyear": ("dayofyear", np.arange(1, DAYS + 1), {"long_name": "day of the year"}),
        "latitude": cube["latitude"],
        "longitude": cube["longitude"],
    }
    fields = {
        name: (dims, _means(cube[name], np.flatnonzero(inside), groups, weights), cube[name].attrs)
        for name in channels
    }
    attrs = {"period": f"{period[0]} to {period[1]}", "window_days": WINDOW_DAYS}
    return xr.Dataset(fields, coords=coords, attrs=attrs)


def climatology_at(climatology: xr.Dataset, times: NDArray[np.datetime64]) -> xr.Dataset:
    """The climatology (time, latitude, longitude) of given times.

    Raises DataError for an hour of the day that it does not have.
    """
    index = pd.DatetimeIndex(times)
    hours = climatology["hour"].values
    unknown = np.setdiff1d(index.hour, hours)
    if unknown.size:
        raise DataError(
            f"The climatology has the hours {', '.join(map(str, hours))} UTC, but not "
            f"{', '.join(map(str, unknown))}. Make it from data with the same time step."
        )
    chosen = climatology.isel(
        hour=xr.DataArray(np.searchsorted(hours, index.hour), dims="time"),
        dayofyear=xr.DataArray(index.day_of_year.to_numpy() - 1, dims="time"),
    )
    return chosen.drop_vars(["hour", "dayofyear"]).assign_coords(time=("time", index.to_numpy()))


def _weights(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(hour, day, other day): the weight of another day's sum in the mean of a day."""
    apart = np.abs(np.arange(DAYS)[:, None] - np.arange(DAYS))
    apart = np.minimum(apart, DAYS - apart)
    triangle = np.maximum(1 - apart / (WINDOW_DAYS // 2), 0)
    total = np.einsum("de,he->hd", triangle, counts)
    near = triangle / np.maximum(total, 1e-9)[:, :, None]
    whole = np.broadcast_to(1 / counts.sum(axis=1)[:, None, None], near.shape)
    return np.where(total[:, :, None] > 0, near, whole).astype("float32")


def _means(
    channel: xr.DataArray,
    positions: NDArray[np.int64],
    groups: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(hour, day, H, W): sums of each hour and day in one pass, then the window over days.

    What is summed are deviations from the first field, so that float32 loses nothing that matters.
    """
    array = da.asarray(channel.transpose("time", "latitude", "longitude").data)
    rows, columns = array.shape[1:]
    first = np.asarray(array[positions[0]].compute(scheduler="threads"))
    sums = np.zeros((len(weights) * DAYS, rows, columns), dtype="float32")
    locks = [threading.Lock() for _ in range(DAYS)]

    def add(block: NDArray[np.float32], where: NDArray[np.int64]) -> None:
        for field, group in zip(block, groups[where], strict=True):
            with locks[group % DAYS]:
                sums[group] += field - first

    edges = np.concatenate([[0], np.cumsum(array.chunks[0])])
    parts = np.split(positions, np.searchsorted(positions, edges[1:-1]))
    tasks = [dask.delayed(add)(array[part], part) for part in parts if part.size]
    dask.compute(*tasks, scheduler="threads")
    by_day = sums.reshape(len(weights), DAYS, rows * columns)
    means = np.stack([weight @ hour for weight, hour in zip(weights, by_day, strict=True)])
    return means.reshape(-1, DAYS, rows, columns) + first
