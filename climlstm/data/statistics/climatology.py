"""Climatology by hour of the day and day of the year, as WeatherBench 2 defines it; or by month."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.calendars import (
    Times,
    day_of_year,
    hour_of_day,
    longest_year,
    month_of_year,
    within,
)
from climlstm.data.cube.cube import CubePlan, dataset_of
from climlstm.data.sources.times import step_of
from climlstm.data.statistics.compute import digest_of
from climlstm.data.store.parts import Part
from climlstm.data.store.prefetch import jobs_of, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import DataError
from climlstm.files import lock, write_whole
from climlstm.grid import grid_of

logger = logging.getLogger(__name__)

WINDOW_DAYS = 61
"""Width of the triangular window, ends of weight 0 included (WeatherBench 2: Rasp et al. 2024,
J. Adv. Model. Earth Syst. 16, e2023MS004019, section 3.2)."""

MOST_HOURS = 48
"""Times of the day, half hours, that have their own climatology; more share that of the hour."""

NAMES = {
    "hour": "hour of the day, UTC",
    "dayofyear": "day of the year",
    "month": "month of the year, of the first if a step has several",
}
"""Long names of the axes of a climatology."""

FORMAT = 1
"""Version of what a climatology means; cached ones of another version are made anew."""


def climatology(
    cube: CubePlan | xr.Dataset,
    period: tuple[pd.Timestamp, pd.Timestamp],
    *,
    channels: Sequence[str],
    unusable: Iterable[Any] = (),
    cache: Path | None = None,
    remote_cache: Cache | None = None,
) -> xr.Dataset:
    """Mean of a period for each hour and day of the year: (hour, dayofyear, latitude, longitude).

    Of steps of months it is the mean of each month: (month, latitude, longitude). Days and hours
    are those of the data and of their calendar. Each value is the mean over all years and the days
    around it, weighted by a triangle that falls to 0 at 30 days, across the turn of the year. Day
    366 therefore has values even if only leap years have it, and a record shorter than a year uses
    what its window meets. A day with no data within the window has the mean of its hour over the
    whole period, all that is known; so has, with a warning, a month without data in it and, if
    it is shorter than a day, an hour.

    cube: its plan, so that stored chunks are decoded straight, or a lazy dataset.
    period: first and last moment, both included: the training period only.
    unusable: times that are left out because values are missing there.
    cache: a folder; a climatology found there under the same digest is not computed again. Its
        fields are mapped and shared by processes; of several that want it at once, one computes it.
    remote_cache: keeps objects of a remote store on disk.
    Cells that are never observed stay NaN. Raises DataError where the period holds no time.
    """
    dataset = dataset_of(cube)
    times = dataset["time"].values
    inside = within(times, period)
    inside &= ~np.isin(times, np.array(list(unusable), dtype=times.dtype))
    if not inside.any():
        span = f"{period[0]} to {period[1]} holds none of the usable times from "
        raise DataError(f"The period {span}{times[0]} to {times[-1]}: it has no climatology.")
    axes, groups, weights, empty = _groups(times, inside)
    shape = [values.size for values in axes.values()]

    def means() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for part in make_parts(cube, channels, remote_cache):
            fields = _means(part, np.flatnonzero(inside), groups, weights)
            for name, field in zip(part.names, fields, strict=True):
                yield name, _filled(field.reshape(*shape, *field.shape[2:]), empty)
            part.close()

    if cache is None:
        fields = dict(means())
    else:
        lacking = list(axes.values())[0][empty].tolist()  # noqa: RUF015
        settings = [FORMAT, WINDOW_DAYS, str(times[inside].tolist()), *lacking]
        place = cache / f"climatology-{digest_of(dataset, channels, settings)[:16]}"
        fields = _kept(place, channels, means)
    grid = grid_of(dataset)
    dims = (*axes, *grid.dims)
    described = {name: (name, values, {"long_name": NAMES[name]}) for name, values in axes.items()}
    window = {} if "month" in axes else {"window_days": WINDOW_DAYS}
    return xr.Dataset(
        {name: (dims, fields[name], dataset[name].attrs) for name in channels},
        coords=described | grid.coordinates(),
        attrs={"period": f"{period[0]} to {period[1]}"} | window,
    )


def _groups(
    times: Times, inside: NDArray[np.bool_]
) -> tuple[dict[str, NDArray], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Axes of a climatology, the place of each time in them, row by row, `_weights`, and which
    entries of the first axis the period lacks."""
    monthly = times.size > 1 and step_of(times).duration is None
    axes, groups = (_months if monthly else _hours_and_days)(times, inside)
    rows, columns = [1, *(values.size for values in axes.values())][-2:]
    counts = np.bincount(groups[inside], minlength=rows * columns).reshape(rows, columns)
    (name, labels), *_ = axes.items()
    empty = (counts.T if monthly else counts).sum(axis=1) == 0
    if empty.any():
        logger.warning(
            "The training period has no data of the %ss %s: their climatology is the mean of the "
            "whole period, so that skill against it says little.",
            *(name, ", ".join(f"{label:g}" for label in labels[empty])),
        )
    return axes, groups, _weights(counts, width=1 if monthly else WINDOW_DAYS // 2), empty


def _filled(field: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A climatology with the mean of its other entries where the first axis has none."""
    if empty.any():
        field[empty] = field[~empty].mean(axis=0)
    return field


def _hours_and_days(
    times: Times, inside: NDArray[np.bool_]
) -> tuple[dict[str, NDArray], NDArray[np.int64]]:
    """Groups by day of the year and hour, of the times inside unless they are less than a day."""
    days = np.arange(1, longest_year(times) + 1)
    clocks = _hours(times)
    first, last = times[inside][[0, -1]]
    hours = np.unique(clocks if last - first < np.timedelta64(1, "D") else clocks[inside])
    groups = np.searchsorted(hours, clocks) * days.size + day_of_year(times) - 1
    return {"hour": hours, "dayofyear": days}, groups


def _months(
    times: Times, inside: NDArray[np.bool_]
) -> tuple[dict[str, NDArray], NDArray[np.int64]]:
    """Groups by month of the year."""
    months = np.unique(month_of_year(times))
    return {"month": months}, np.searchsorted(months, month_of_year(times))


def _hours(times: Times, known: NDArray | None = None) -> NDArray:
    """Hours of the day, with parts of an hour where a day has at most MOST_HOURS of them.

    Of shorter steps, the hour that each is in. known: hours of a climatology.
    """
    hours = hour_of_day(times)
    if known is None:
        whole = (hours % 1 == 0).all() or np.unique(hours).size > MOST_HOURS
    else:
        whole = known.dtype.kind in "iu"
    return np.floor(hours).astype("int64") if whole else hours


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


def check_covered(climatology: xr.Dataset, times: Times) -> None:
    """Raises DataError unless the climatology has the hours of the day, or months, of all times."""
    axis = "month" if "month" in climatology.dims else "hour"
    known = climatology[axis].values
    unknown = np.setdiff1d(month_of_year(times) if axis == "month" else _hours(times, known), known)
    if unknown.size:
        raise DataError(
            f"The climatology of {climatology.attrs['period']} has the {axis}s "
            f"{', '.join(f'{each:g}' for each in known)}{' UTC' * (axis == 'hour')}, but not "
            f"{', '.join(f'{each:g}' for each in unknown)}. Make it "
            f"from data with the same time step, or choose a period that has these {axis}s."
        )


def climatology_at(climatology: xr.Dataset, times: Times) -> xr.Dataset:
    """The climatology (time, latitude, longitude) of given times.

    Raises DataError for an hour of the day, or a month, that it does not have.
    """
    check_covered(climatology, times)
    places: dict[str, NDArray] = {}
    if "month" in climatology.dims:
        places["month"] = np.searchsorted(climatology["month"].values, month_of_year(times))
    else:
        places["hour"] = np.searchsorted(
            climatology["hour"].values, _hours(times, climatology["hour"].values)
        )
        places["dayofyear"] = day_of_year(times) - 1
    chosen = climatology.isel({name: xr.DataArray(at, dims="time") for name, at in places.items()})
    return chosen.drop_vars(list(places)).assign_coords(time=("time", times))


def _weights(counts: NDArray[np.int64], *, width: int) -> NDArray[np.float32]:
    """(hour, day, other day): the weight of another day's sum in the mean of a day.

    width: days at which a triangle around each day falls to 0; 1: each day by itself.
    """
    days = counts.shape[-1]
    apart = np.abs(np.arange(days)[:, None] - np.arange(days))
    apart = np.minimum(apart, days - apart)
    triangle = np.maximum(1 - apart / width, 0)
    total = np.einsum("de,he->hd", triangle, counts)
    near = triangle / np.maximum(total, 1e-9)[:, :, None]
    whole = np.broadcast_to(1 / np.maximum(counts.sum(axis=1), 1)[:, None, None], near.shape)
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
    plane, days = first[0].shape, weights.shape[-1]
    sums = np.zeros((len(first), len(weights) * days, *plane), dtype="float32")
    locks = [threading.Lock() for _ in range(days)]

    jobs = jobs_of(part, positions)

    def add(number: int, read: list[NDArray]) -> None:
        work = np.empty(plane, dtype="float32")
        for channel, values in enumerate(read):
            for field, group in zip(values, groups[jobs[number][1]].tolist(), strict=True):
                np.subtract(field, first[channel], out=work)
                with locks[group % days]:
                    sums[channel, group] += work

    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="climlstm-climatology") as pool:
        read_jobs(jobs, add, pool)
    means = []
    for start, channel in zip(first, sums, strict=True):
        by_day = channel.reshape(len(weights), days, -1)
        for weight, hour in zip(weights, by_day, strict=True):
            hour[:] = weight @ hour
        means.append(by_day.reshape(-1, days, *plane) + start)
    return means
