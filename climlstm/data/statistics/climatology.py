"""Climatology by hour of the day and day of the year, as WeatherBench 2 defines it; or by month."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

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
from climlstm.data.statistics.days import (
    WindowedDays,
    sum_groups,
    window_means,
    window_weights,
)
from climlstm.data.store.parts import Part
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
    around it, weighted by a triangle that falls to 0 at 30 days, across the turn of the year. Day
    366 therefore has values even if only leap years have it, and a record shorter than a year uses
    what its window meets. A day with no data within the window has the mean of its hour over the
    whole period, all that is known; so has, with a warning, a month without data in it and, if
    it is shorter than a day, an hour. Of a period with fewer steps than there are hours and days,
    such as a year, the sum of each day is kept, from which the same means are taken when they are
    asked for: a climatology takes no more room than the training data.

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
    groups = _groups(times, inside)

    def made() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for part in make_parts(cube, channels, remote_cache):
            yield from groups.fields(part, np.flatnonzero(inside))
            part.close()

    grid = grid_of(dataset)
    if cache is None:
        fields = dict(made())
    else:
        settings = [FORMAT, WINDOW_DAYS, str(times[inside].tolist()), *groups.lacking]
        settings += ["sums of days"] if groups.short else []
        place = cache / f"climatology-{digest_of(dataset, channels, settings)[:16]}"
        size = 4 * groups.kept * len(channels) * math.prod(grid.shape)
        fields = _kept(place, channels, made, size)
    axes = groups.axes
    dims = (*axes, *grid.dims)
    described = {name: (name, values, {"long_name": NAMES[name]}) for name, values in axes.items()}
    window = {} if "month" in axes else {"window_days": WINDOW_DAYS}
    return xr.Dataset(
        {name: (dims, groups.means(fields[name]), dataset[name].attrs) for name in channels},
        coords=described | grid.coordinates(),
        attrs={"period": f"{period[0]} to {period[1]}"} | window,
    )


@dataclass(frozen=True, eq=False)
class _Groups:
    """Steps of a period by hour and day of the year, or by month."""

    axes: dict[str, NDArray]
    places: NDArray[np.int64]
    """(time,): the group of each time, row by row of the axes."""
    counts: NDArray[np.int64]
    """(hour, day): times of the period in each group; (1, month) of months."""
    weights: NDArray[np.float32]
    """See `window_weights`."""
    empty: NDArray[np.bool_]
    """Entries of the first axis that the period lacks."""

    @property
    def lacking(self) -> list[Any]:
        """Labels of the first axis that the period lacks."""
        labels: list[Any] = list(self.axes.values())[0][self.empty].tolist()  # noqa: RUF015
        return labels

    @property
    def short(self) -> bool:
        """Whether there are fewer steps than means, so that sums of days are kept instead."""
        return "hour" in self.axes and self.counts.sum() < self.counts.size

    @property
    def kept(self) -> int:
        """Fields of each channel that are kept."""
        return int(np.count_nonzero(self.counts)) + 1 if self.short else self.counts.size

    @property
    def rows(self) -> NDArray[np.int64]:
        """(hour, day): the place of its sum among those that are kept; -1: the period has none."""
        there = self.counts > 0
        return np.where(there, there.cumsum().reshape(there.shape) - 1, -1)

    def fields(
        self, part: Part, inside: NDArray[np.int64]
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """What is kept of each channel of a part: means, or sums of days and a field to add."""
        places = self.rows.ravel()[self.places] if self.short else self.places
        found = sum_groups(part, inside, places, self.kept - self.short)
        for name, (first, sums) in zip(part.names, found, strict=True):
            if self.short:
                yield name, np.concatenate([sums, first[None]])
                continue
            means = window_means(first, sums, self.weights)
            field = means.reshape(*(a.size for a in self.axes.values()), *first.shape)
            if self.empty.any():
                field[self.empty] = field[~self.empty].mean(axis=0)
            yield name, field

    def means(self, kept: NDArray[np.float32]) -> Any:
        """The means (*axes, H, W), or what gives them when they are read, from what is kept."""
        if not self.short:
            return kept
        days = WindowedDays(kept, self.rows, self.weights, self.empty)
        return indexing.LazilyIndexedArray(days)


def _groups(times: Times, inside: NDArray[np.bool_]) -> _Groups:
    """Groups of the times inside; warns of entries of the first axis that the period lacks."""
    monthly = times.size > 1 and step_of(times).duration is None
    axes, places = (_months if monthly else _hours_and_days)(times, inside)
    rows, columns = [1, *(values.size for values in axes.values())][-2:]
    counts = np.bincount(places[inside], minlength=rows * columns).reshape(rows, columns)
    (name, labels), *_ = axes.items()
    empty = (counts.T if monthly else counts).sum(axis=1) == 0
    if empty.any():
        logger.warning(
            "The training period has no data of the %ss %s: their climatology is the mean of the "
            "whole period, so that skill against it says little.",
            *(name, ", ".join(f"{label:g}" for label in labels[empty])),
        )
    weights = window_weights(counts, width=1 if monthly else WINDOW_DAYS // 2)
    return _Groups(axes, places, counts, weights, empty)


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
    size: int,
) -> dict[str, NDArray[np.float32]]:
    """Fields of each channel, mapped from a folder; computed into it, unless it is there."""
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
