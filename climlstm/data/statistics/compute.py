"""Computes the statistics of a cube: those of the training period, in one pass through Dask."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import dask.base
import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.calendars import Times, within
from climlstm.data.cube.cube import CubePlan, dataset_of
from climlstm.data.cube.recipes import ChannelRecipe, Field
from climlstm.data.sources.times import coordinate_bytes, step_of
from climlstm.data.statistics.extremes import ValuePlace
from climlstm.data.statistics.statistics import (
    FORMAT,
    ConstantSteps,
    ExtremeValue,
    MissingValues,
    Period,
    Statistics,
)
from climlstm.data.statistics.summary import ChannelSummary, unpack
from climlstm.data.store.prefetch import Job, jobs_of, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import DataError
from climlstm.files import lock, write_text
from climlstm.grid import grid_of

logger = logging.getLogger(__name__)

EXTREMES = "extremes"
"""Key of statistics that earlier versions did not compute."""

RESULTS_BYTES = 1 << 27
"""Bytes of fields in memory together, about: two fields of each unit that one graph reads of a
remote store."""

BYTES_OF_A_CALL = 1 << 28
"""Bytes that one call of an executor decodes, about: seconds of work."""

STATISTICS = "climlstm_statistics"
"""Attribute of a prepared store with the statistics of its training period."""


def compute_statistics(
    cube: CubePlan | xr.Dataset,
    *,
    channels: Sequence[str],
    train: Period,
    others: Sequence[Period] = (),
    cache: Path | None = None,
    remote_cache: Cache | None = None,
    executor: Executor | None = None,
) -> Statistics:
    """Statistics of the training period, and where values are missing in any period.

    cube: its plan, so that stored chunks are decoded straight, or a lazy dataset; one step between
        its times. Gaps do not count as a change over one step.
    others: further periods whose missing values are looked for.
    cache: a folder; statistics found there under the same digest are not computed again, and of
    several processes that want the same at once, one computes them.
    remote_cache: keeps objects of a remote store on disk.
    executor: summarises some steps with each call, on hosts that see the source under the same
        name; None: threads of this process.

    Raises DataError where the training period is empty, or a channel is constant in it.
    """
    periods = (train, *others)
    digest = digest_of(dataset_of(cube), channels, [FORMAT, *(map(str, p) for p in periods)])
    inside = _inside(cube, tuple(channels), periods)
    if inside is not None:
        logger.info("statistics of the training period: taken from the prepared store")
        return replace(inside, digest=digest)
    compute = partial(
        _compute,
        cube,
        tuple(channels),
        train,
        others,
        remote_cache=remote_cache,
        digest=digest,
        executor=executor,
    )
    if cache is None:
        return compute()
    kept = cache / f"statistics-{digest[:16]}.json"
    with lock(kept):
        content = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        if EXTREMES in content:
            logger.info("statistics of the training period: taken from %s", kept)
            return Statistics.from_dict(content)
        statistics = compute()
        write_text(kept, json.dumps(statistics.to_dict()))
    return statistics


def _inside(
    plan: CubePlan | xr.Dataset, channels: tuple[str, ...], periods: tuple[Period, ...]
) -> Statistics | None:
    """Statistics that a prepared store has of itself, if the cube is the whole of it."""
    content = plan.source.attrs.get(STATISTICS) if isinstance(plan, CubePlan) else None
    if content is None or not isinstance(plan, CubePlan):
        return None
    if EXTREMES not in content:
        logger.info("the prepared store is of an earlier version: its values are read once")
        return None
    known = Statistics.from_dict(content)
    cells = (plan.times.indices.size, *plan.grid.shape)
    whole = cells == tuple(plan.source.sizes[dim] for dim in plan.axes.dims)
    stored = {
        recipe.channel.name
        for recipe in plan.recipes
        if type(recipe) is ChannelRecipe  # not a transformed one
        and recipe.fields == (Field(recipe.channel.variable.name, recipe.channel.name),)
    }
    if not whole or (known.train, *known.others) != periods or not set(channels) <= stored:
        return None
    return known.of(channels) if set(channels) <= set(known.channels) else None


def _compute(
    cube: CubePlan | xr.Dataset,
    channels: tuple[str, ...],
    train: Period,
    others: Sequence[Period],
    *,
    remote_cache: Cache | None,
    digest: str,
    executor: Executor | None,
) -> Statistics:
    dataset = dataset_of(cube)
    times = dataset["time"].values
    inside = within(times, train)
    if inside.sum() < 2:
        raise DataError(
            f"The training period {train[0]} to {train[1]} holds {inside.sum()} of the times from "
            f"{times[0]} to {times[-1]}; statistics need two at least. Change data.periods.train."
        )
    wanted = np.logical_or.reduce([inside, *(within(times, period) for period in others)])
    summarise = partial(_summarise, cube, channels, inside, remote_cache)
    if executor is None:
        found = summarise(CPU_COUNT, np.flatnonzero(wanted))
    else:
        found = _spread(executor, partial(summarise, 1), dataset, channels, np.flatnonzero(wanted))
    grid = grid_of(dataset)
    shape = grid.shape
    observed = np.stack([~summary.never(inside, shape) for summary in found])
    missing = [
        gap
        for name, summary, seen in zip(channels, found, observed, strict=True)
        for gap in _missing(name, summary, seen, dataset)
    ]
    area = grid.row_area
    mean, std = np.array([summary.values.over_rows(area) for summary in found]).T
    _check(channels, mean, std, observed, train)
    _warn_of_missing(missing, int(wanted.sum()))
    return Statistics(
        channels=channels,
        mean=mean,
        std=std,
        tendency_std=np.array([summary.changes.over_rows(area)[1] for summary in found]),
        observed=observed,
        missing=tuple(sorted(missing, key=lambda gap: (gap.time, gap.channel))),
        train=train,
        others=tuple(others),
        digest=digest,
        extremes=tuple(
            ExtremeValue(name, each.value, each.count, *_where(each, dataset))
            for name, summary in zip(channels, found, strict=True)
            for each in (summary.extremes.least, summary.extremes.greatest)
            if each is not None
        ),
        constant=tuple(
            ConstantSteps(name, summary.extremes.constant, times[summary.extremes.first_constant])
            for name, summary in zip(channels, found, strict=True)
            if summary.extremes.first_constant is not None
        ),
    )


def _where(place: ValuePlace, cube: xr.Dataset) -> tuple[np.datetime64, float, float]:
    """Time, latitude and longitude of a place."""
    return cube["time"].values[place.position], *_place(cube, place.row, place.column)


def _place(cube: xr.Dataset, row: int, column: int) -> tuple[float, float]:
    """Degrees north and east of a cell."""
    grid = grid_of(cube)
    return float(grid.latitude[row, column]), float(grid.longitude[row, column])


def _check(
    channels: Sequence[str],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    observed: NDArray[np.bool_],
    train: Period,
) -> None:
    for i, name in enumerate(channels):
        if not observed[i].any():
            raise DataError(
                f"Channel '{name}' has no value at all in the training period {train[0]} to "
                f"{train[1]}. Leave it out, or change data.periods.train."
            )
        if not std[i] > np.finfo("float32").eps * abs(mean[i]):
            raise DataError(
                f"Channel '{name}' is {mean[i]:g} everywhere in the training period {train[0]} to "
                f"{train[1]}, so it cannot be normalised. Leave it out, or use it as static."
            )


def _spread(
    executor: Executor,
    summarise: Callable[[NDArray[np.int64]], list[ChannelSummary]],
    cube: xr.Dataset,
    channels: Sequence[str],
    positions: NDArray[np.int64],
) -> list[ChannelSummary]:
    """Summaries of consecutive steps, some with each call, merged in order of time."""
    step_bytes = 4 * len(channels) * math.prod(grid_of(cube).shape)
    size = max(1, BYTES_OF_A_CALL // step_bytes)
    blocks = [positions[first : first + size] for first in range(0, positions.size, size)]
    found, *later = executor.map(summarise, blocks)
    for summaries in later:
        found = [a.update(b) for a, b in zip(found, summaries, strict=True)]
    return found


def _summarise(
    cube: CubePlan | xr.Dataset,
    channels: Sequence[str],
    inside: NDArray[np.bool_],
    remote_cache: Cache | None,
    threads: int,
    positions: NDArray[np.int64],
) -> list[ChannelSummary]:
    """Summary of each channel: one Dask task a chunk, merged as they come in."""
    cells = math.prod(grid_of(dataset_of(cube)).shape)
    numbers = _numbers(dataset_of(cube)["time"].values)

    def merge(
        earlier: dict[int, ChannelSummary], later: dict[int, ChannelSummary]
    ) -> dict[int, ChannelSummary]:
        merged = {i: earlier[i].update(later[i]) for i in earlier.keys() & later.keys()}
        return earlier | later | merged

    found: dict[int, ChannelSummary] = {}
    parts = make_parts(cube, channels, remote_cache)
    jobs = [job for part in parts for job in jobs_of(part, positions)]
    at_once = len(jobs)
    if any(part.is_remote for part in parts):  # tasks are short, and their results many
        at_once = max(64, RESULTS_BYTES // (8 * cells))
    with ThreadPoolExecutor(threads, thread_name_prefix="climlstm-statistics") as pool:
        for first in range(0, len(jobs), at_once):
            now = jobs[first : first + at_once]

            def summaries_of(
                number: int, values: list[NDArray], now: list[Job] = now
            ) -> dict[int, ChannelSummary]:
                part, steps = now[number]
                of = partial(ChannelSummary.of, numbers=numbers, inside=inside)
                return dict(zip(part.channels, [of(v, steps) for v in values], strict=True))

            found = reduce(merge, read_jobs(now, summaries_of, pool, merge=merge), found)
    return [found[channel] for channel in range(len(channels))]


def _missing(
    name: str, summary: ChannelSummary, observed: NDArray[np.bool_], cube: xr.Dataset
) -> Iterator[MissingValues]:
    """Steps without values in cells that are observed at other times."""
    for pattern, positions in summary.lacking.items():
        cells = np.argwhere(unpack(pattern, observed.shape) & observed)
        if cells.size == 0:
            continue
        place = _place(cube, *cells[0])
        for position in positions:
            yield MissingValues(
                name,
                cube["time"].values[position],
                len(cells),
                *place,
            )


def _warn_of_missing(missing: Sequence[MissingValues], steps: int) -> None:
    times = {gap.time for gap in missing}
    if times:
        logger.warning(
            "%d of %d steps lack values and are left out of all windows; the first: %s",
            len(times),
            steps,
            min(missing, key=lambda gap: gap.time),
        )


def _numbers(times: Times) -> NDArray[np.int64]:
    """Number of the step of each time, by the commonest step; it grows by more than 1 at gaps."""
    if times.size < 2:
        raise DataError(f"A cube needs two times at least; this one has {times.size}.")
    return step_of(times).number(times)


def digest_of(cube: xr.Dataset, channels: Sequence[str], settings: Sequence[Any]) -> str:
    """Digest of all that numbers computed from a cube depend on: the lazy computation itself (by
    Dask's names), the grid, the times, the channels, and the settings (plain values)."""
    names = [dask.base.tokenize(cube[name].data) for name in channels]
    coordinates = [
        hashlib.sha256(coordinate_bytes(cube[name].values)).hexdigest()
        for name in ("time", "latitude", "longitude")
    ]
    content = [list(channels), names, coordinates, list(settings)]
    return hashlib.sha256(json.dumps(content, default=list).encode()).hexdigest()
