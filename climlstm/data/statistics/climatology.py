"""Climatology by hour of the day and day of the year, as WeatherBench 2 defines it."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan, dataset_of
from climlstm.data.statistics.compute import digest_of
from climlstm.data.store.parts import Part
from climlstm.data.store.prefetch import jobs_of, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import DataError
from climlstm.files import lock, write_whole
from climlstm.grid import grid_of

WINDOW_DAYS = 61
"""Width of the triangular window, ends of weight 0 included (WeatherBench 2: Rasp et al. 2024,
J. Adv. Model. Earth Syst. 16, e2023MS004019, section 3.2)."""

FORMAT = 1
"""Version of what a climatology means; cached ones of another version are made anew."""

DAYS = 366
"""Days of a year; years without a 29 February have no day 366."""


def climatology(
    cube: CubePlan | xr.Dataset,
    period: tuple[pd.Timestamp, pd.Timestamp],
    *,
    channels: Sequence[str],
    unusable: Iterable[np.datetime64] = (),
    cache: Path | None = None,
    remote_cache: Cache | None = None,
) -> xr.Dataset:
    """Mean of a period for each hour and day of the year: (hour, dayofyear, latitude, longitude).

    Each value is the mean over all years and the days around it, weighted by a triangle that falls
    to 0 at 30 days, across the turn of the year. Day 366 therefore has values even if only leap
    years have it, and a record shorter than a year uses what its window meets. A day with no data
    within the window has the mean of its hour over the whole period, which is all that is known.

    cube: its plan, so that stored chunks are decoded straight, or a lazy dataset.
    period: first and last moment, both included: the training period only.
    unusable: times that are left out because values are missing there.
    cache: a folder; a climatology found there under the same digest is not computed again. Its
        fields are mapped, so that processes of a machine share them; of several processes that
        want the same at once, one computes it.
    remote_cache: keeps objects of a remote store on disk.
    Cells that are never observed stay NaN. Raises DataError where the period holds no time.
    """
    dataset = dataset_of(cube)
    times = dataset["time"].values
    inside = (times >= period[0].to_datetime64()) & (times <= period[1].to_datetime64())
    inside &= ~np.isin(times, np.array(list(unusable), dtype=times.dtype))
    if not inside.any():
        raise DataError(
            f"The period {period[0]} to {period[1]} holds none of the usable times from "
            f"{times[0]} to {times[-1]}, so it has no climatology."
        )
    hours, groups = _groups(times, inside)
    counts = np.bincount(groups[inside], minlength=hours.size * DAYS).reshape(-1, DAYS)

    def means() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for part in make_parts(cube, channels, remote_cache):
            fields = _means(part, np.flatnonzero(inside), groups, _weights(counts))
            yield from zip(part.names, fields, strict=True)
            part.close()

    if cache is None:
        fields = dict(means())
    else:
        settings = [FORMAT, WINDOW_DAYS, str(times[inside].tolist())]
        place = cache / f"climatology-{digest_of(dataset, channels, settings)[:16]}"
        fields = _kept(place, channels, means)
    grid = grid_of(dataset)
    dims = ("hour", "dayofyear", *grid.dims)
    return xr.Dataset(
        {name: (dims, fields[name], dataset[name].attrs) for name in channels},
        coords={
            "hour": ("hour", hours, {"long_name": "hour of the day, UTC"}),
            "dayofyear": ("dayofyear", np.arange(1, DAYS + 1), {"long_name": "day of the year"}),
            **grid.coordinates(),
        },
        attrs={"period": f"{period[0]} to {period[1]}", "window_days": WINDOW_DAYS},
    )


def _groups(
    times: NDArray[np.datetime64], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Hours of the day of the times inside, and for each time its group: hour, then day."""
    index = pd.DatetimeIndex(times)
    hours = np.unique(index.hour[inside])
    return hours, np.searchsorted(hours, index.hour) * DAYS + index.day_of_year.to_numpy() - 1


def _kept(
    place: Path,
    channels: Sequence[str],
    compute: Callable[[], Iterator[tuple[str, NDArray[np.float32]]]],
) -> dict[str, NDArray[np.float32]]:
    """Fields of each channel, mapped from a folder; computed into it, unless it is there."""
    with lock(place):
        if not place.is_dir():
            with write_whole(place) as folder:
                folder.mkdir()
                for name, values in compute():
                    np.save(folder / f"{name}.npy", values)
    return {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in channels}


def period_of(climatology: xr.Dataset) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last moment of the period of a climatology."""
    start, stop = climatology.attrs["period"].split(" to ")
    return pd.Timestamp(start), pd.Timestamp(stop)


def check_hours(climatology: xr.Dataset, times: NDArray[np.datetime64]) -> None:
    """Raises DataError unless the climatology has the hours of the day of all times."""
    hours = climatology["hour"].values
    unknown = np.setdiff1d(pd.DatetimeIndex(times).hour, hours)
    if unknown.size:
        raise DataError(
            f"The climatology of {climatology.attrs['period']} has the hours "
            f"{', '.join(map(str, hours))} UTC, but not {', '.join(map(str, unknown))}. Make it "
            "from data with the same time step, or choose a period that has these hours."
        )


def climatology_at(climatology: xr.Dataset, times: NDArray[np.datetime64]) -> xr.Dataset:
    """The climatology (time, latitude, longitude) of given times.

    Raises DataError for an hour of the day that it does not have.
    """
    check_hours(climatology, times)
    index, hours = pd.DatetimeIndex(times), climatology["hour"].values
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
    part: Part,
    positions: NDArray[np.int64],
    groups: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> list[NDArray[np.float32]]:
    """(hour, day, H, W) of each channel of a part: sums in one pass, then the window over days.

    Deviations from the first field are summed, so that float32 loses nothing that matters.
    """
    with ThreadPoolExecutor(1) as pool:
        first = read_jobs(
            [(part, positions[:1])], lambda _, read: [values[0].copy() for values in read], pool
        )[0]
    plane = first[0].shape
    sums = np.zeros((len(first), len(weights) * DAYS, *plane), dtype="float32")
    locks = [threading.Lock() for _ in range(DAYS)]

    jobs = jobs_of(part, positions)

    def add(number: int, read: list[NDArray]) -> None:
        work = np.empty(plane, dtype="float32")
        for channel, values in enumerate(read):
            for field, group in zip(values, groups[jobs[number][1]].tolist(), strict=True):
                np.subtract(field, first[channel], out=work)
                with locks[group % DAYS]:
                    sums[channel, group] += work

    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="climlstm-climatology") as pool:
        read_jobs(jobs, add, pool)
    means = []
    for start, channel in zip(first, sums, strict=True):
        by_day = channel.reshape(len(weights), DAYS, -1)
        for weight, hour in zip(weights, by_day, strict=True):
            hour[:] = weight @ hour
        means.append(by_day.reshape(-1, DAYS, *plane) + start)
    return means
