"""Climatology by hour of the day and day of the year, as WeatherBench 2 defines it; or by month."""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
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
from climlstm.config import format_size
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

MUCH = 2**30
"""Bytes of a climatology from which its size is told before it is made."""

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
    around it, weighted by a triangle that falls to 0 at 30 days, across the turn of the year; so
    day 366 has values even if only leap years have it. A day with no data within the window has
    the mean of its hour over the whole period; so has, with a warning, a month without data in it
    and, if it is shorter than a day, an hour. Of a period with fewer steps than hours and days,
    the sums of each are kept, from which Dask takes the same means where they are asked for: a
    climatology never takes more room than its period.

    cube: its plan, so that stored chunks are decoded straight, or a lazy dataset.
    period: first and last moment, both included: the training period only.
    unusable: times that are left out because values are missing there.
    cache: a folder; a climatology found there under the same digest is not computed again. Its
        fields are mapped and shared by processes; of several that want it at once, one computes it.
    remote_cache: keeps objects of a remote store on disk.
    Cells that are never observed stay NaN. Raises DataError where the period holds no time.
    """
    dataset = dataset_of(cube)
    times, grid = dataset["time"].values, grid_of(dataset)
    inside = _usable(times, period, unusable)
    axes, groups, weights, empty = _groups(times, inside)
    number = weights.shape[0] * weights.shape[1]
    short = "hour" in axes and int(inside.sum()) < number
    present = np.unique(groups[inside]) if short else np.arange(number)

    def made() -> Iterator[tuple[str, NDArray[np.float32]]]:
        places = np.searchsorted(present, groups)
        for part in make_parts(cube, channels, remote_cache):
            found = _sums(part, np.flatnonzero(inside), places, present.size)
            for name, (first, sums) in zip(part.names, found, strict=True):
                yield name, _finished(first, sums, None if short else weights, empty)
            part.close()

    lacking = list(axes.values())[0][empty].tolist()  # noqa: RUF015
    settings = [FORMAT, WINDOW_DAYS, str(times[inside].tolist()), *lacking, *["sums"] * short]
    digest = digest_of(dataset, channels, settings)[:16]
    size = 4 * present.size * len(channels) * math.prod(grid.shape)
    kept = _kept(cache and cache / f"climatology-{digest}", channels, made, size)
    described = {name: (name, values, {"long_name": NAMES[name]}) for name, values in axes.items()}
    found = xr.Dataset(coords=described | grid.coordinates())
    found.attrs["period"] = f"{period[0]} to {period[1]}"
    found.attrs |= {} if "month" in axes else {"window_days": WINDOW_DAYS}
    shape = tuple(found.sizes[dim] for dim in (*axes, *grid.dims))
    for name in channels:
        field = _windowed(kept[name], present, weights, empty) if short else kept[name]
        found[name] = (*axes, *grid.dims), field.reshape(shape), dataset[name].attrs
    return found


def _usable(
    times: Times, period: tuple[pd.Timestamp, pd.Timestamp], unusable: Iterable[Any]
) -> NDArray[np.bool_]:
    """(time,): those of a period, but for some. Raises DataError where there are none."""
    inside = within(times, period)
    inside &= ~np.isin(times, np.array(list(unusable), dtype=times.dtype))
    if not inside.any():
        span = f"{period[0]} to {period[1]} holds none of the usable times from "
        raise DataError(f"The period {span}{times[0]} to {times[-1]}: it has no climatology.")
    return inside


def _groups(
    times: Times, inside: NDArray[np.bool_]
) -> tuple[dict[str, NDArray], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Axes of a climatology, the place of each time in them, row by row, `_weights`, and which
    entries of the first axis the period lacks."""
    monthly = _by_month(times)
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


def _by_month(times: Times) -> bool:
    return times.size > 1 and step_of(times).duration is None


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
    place: Path | None,
    channels: Sequence[str],
    compute: Callable[[], Iterator[tuple[str, NDArray[np.float32]]]],
    size: int,
) -> dict[str, NDArray[np.float32]]:
    """Fields of each channel, mapped from a folder, if there is one; computed into it, unless it is
    there."""
    if place is None:
        return dict(compute())
    with lock(place):
        if not place.is_dir():
            if size >= MUCH:
                logger.warning("The climatology will take %s in %s.", format_size(size), place)
            with write_whole(place) as folder:
                folder.mkdir()
                for name, values in compute():
                    np.save(folder / f"{name}.npy", values)
    return {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in channels}


def period_of(climatology: xr.Dataset) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last moment of the period of a climatology."""
    start, stop = climatology.attrs["period"].split(" to ")
    return pd.Timestamp(start), pd.Timestamp(stop)


def axes_of(times: Times, period: tuple[pd.Timestamp, pd.Timestamp]) -> xr.Dataset:
    """The climatology of a period without its values, for `check_covered`: nothing is read."""
    inside = _usable(times, period, ())
    axes, _ = (_months if _by_month(times) else _hours_and_days)(times, inside)
    return xr.Dataset(coords=axes, attrs={"period": f"{period[0]} to {period[1]}"})


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
    chosen = chosen.compute(scheduler="threads") if chosen.chunks else chosen
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


def _windowed(
    kept: NDArray[np.float32],
    present: NDArray[np.int64],
    weights: NDArray[np.float32],
    empty: NDArray[np.bool_],
) -> da.Array:
    """Lazy means (hour, day, H, W) from sums of hours and days, and the field to add at the end.

    present: hour * days + day of each sum, increasing.
    """
    hours, days = np.divmod(present, weights.shape[-1])
    known = []
    for hour in np.flatnonzero(~empty).tolist():
        first, last = np.searchsorted(hours, [hour, hour + 1])
        mix = da.from_array(weights[hour][:, days[first:last]], chunks=(31, -1))
        sums = da.from_array(kept[first:last], chunks=-1, name=False)
        known.append(da.tensordot(mix, sums, axes=1) + kept[-1])
    means, filled = iter(known), sum(known) / len(known)
    return da.stack([filled if lacks else next(means) for lacks in empty])


def _sums(
    part: Part, positions: NDArray[np.int64], places: NDArray[np.int64], number: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The first field (H, W) of each channel of a part, and sums (place, H, W) of the deviations
    from it, in one pass, so that float32 loses nothing that matters.

    places: (time,), below `number`.
    """
    with ThreadPoolExecutor(1) as pool:
        first = read_jobs(
            [(part, positions[:1])], lambda _, read: [values[0].copy() for values in read], pool
        )[0]
    plane = first[0].shape
    sums = np.zeros((len(first), number, *plane), dtype="float32")
    locks = [threading.Lock() for _ in range(64)]

    jobs = jobs_of(part, positions)

    def add(number: int, read: list[NDArray]) -> None:
        work = np.empty(plane, dtype="float32")
        for channel, values in enumerate(read):
            for field, group in zip(values, places[jobs[number][1]].tolist(), strict=True):
                np.subtract(field, first[channel], out=work)
                with locks[group % len(locks)]:
                    sums[channel, group] += work

    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="climlstm-climatology") as pool:
        read_jobs(jobs, add, pool)
    return list(zip(first, sums, strict=True))


def _finished(
    first: NDArray[np.float32],
    sums: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    empty: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Means of all groups from their sums, whose memory is used: the window over days.

    weights: None: leaves the sums, with the first field, which is to be added, at their end.
    empty: entries of the first axis that the period lacks, which have the mean of the others.
    """
    if weights is None:
        return np.concatenate([sums, first[None]])
    by_day = sums.reshape(len(weights), weights.shape[-1], -1)
    for weight, hour in zip(weights, by_day, strict=True):
        hour[:] = weight @ hour
    field = by_day.reshape(empty.size, -1, *first.shape) + first
    if empty.any():
        field[empty] = field[~empty].mean(axis=0)
    return field
