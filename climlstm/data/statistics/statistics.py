"""Mean, standard deviation and gaps of a cube: of the training period, in one pass through Dask."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import dask.base
import numpy as np
import pandas as pd
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan, dataset_of
from climlstm.data.cube.recipes import Field
from climlstm.data.statistics.moments import Account, look, unpack
from climlstm.data.store.parts import make_parts
from climlstm.data.store.prefetch import Job, jobs_of, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.errors import DataError
from climlstm.files import lock, write_text
from climlstm.grid import cell_area_weights

logger = logging.getLogger(__name__)

Period = tuple[pd.Timestamp, pd.Timestamp]
"""First and last moment, both included."""

RESULTS_BYTES = 1 << 27
"""Fields in memory together, about: two of each unit of a remote store that one graph reads."""

BYTES_OF_A_CALL = 1 << 28
"""Decoded by one call of an executor, about: seconds of work, beside which its start is nothing."""

STATISTICS = "climlstm_statistics"
"""Attribute of a prepared store with the statistics of its training period."""

FORMAT = 2
"""Counted up when statistics change their meaning, so that cached ones are made anew."""


@dataclass(frozen=True)
class MissingValues:
    """A step at which a channel lacks values that it has at other times."""

    channel: str
    time: np.datetime64
    cells: int
    """How many lack a value."""
    latitude: float
    """Degrees north, of the first of them."""
    longitude: float
    """Degrees east."""

    def __str__(self) -> str:
        return (
            f"{self.channel} at {pd.Timestamp(self.time)}: {self.cells} cells without a value, "
            f"the first at latitude {self.latitude:g}, longitude {self.longitude:g}"
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of each channel from the training period.

    Means over time and space are weighted by the area of the cells, as the losses are.
    """

    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    """(C,), in the units of the channels."""
    std: NDArray[np.float64]
    """(C,): of all values of the training period."""
    tendency_std: NDArray[np.float64]
    """(C,): of the change over one step."""
    observed: NDArray[np.bool_]
    """(C, H, W): False where a channel has no value at any time of the training period."""
    missing: tuple[MissingValues, ...]
    """Of all periods, in order of time."""
    train: Period
    others: tuple[Period, ...]
    """Further periods whose missing values were looked for."""
    digest: str
    """Of everything that these numbers depend on."""

    @property
    def unusable(self) -> NDArray[np.datetime64]:
        """Times that no window may contain, because some channel lacks values there."""
        return np.unique(np.array([gap.time for gap in self.missing], dtype="datetime64[ns]"))

    def of(self, channels: tuple[str, ...]) -> "Statistics":
        """Of some of the channels, in another order."""
        at = [self.channels.index(name) for name in channels]
        return replace(
            self,
            channels=channels,
            mean=self.mean[at],
            std=self.std[at],
            tendency_std=self.tendency_std[at],
            observed=self.observed[at],
            missing=tuple(gap for gap in self.missing if gap.channel in channels),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back exactly."""
        return {
            "channels": list(self.channels),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "tendency_std": self.tendency_std.tolist(),
            "observed": {
                "shape": list(self.observed.shape),
                "bits": np.packbits(self.observed).tobytes().hex(),
            },
            "missing": [
                [gap.channel, str(gap.time), gap.cells, gap.latitude, gap.longitude]
                for gap in self.missing
            ],
            "train": [str(moment) for moment in self.train],
            "others": [[str(moment) for moment in period] for period in self.others],
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Statistics":
        """Raises DataError where the dictionary is not what `to_dict` gives."""
        try:
            shape = tuple(content["observed"]["shape"])
            bits = np.frombuffer(bytes.fromhex(content["observed"]["bits"]), dtype="uint8")
            train, *others = (
                (pd.Timestamp(start), pd.Timestamp(stop))
                for start, stop in (content["train"], *content["others"])
            )
            return cls(
                channels=tuple(content["channels"]),
                mean=np.array(content["mean"], dtype="float64"),
                std=np.array(content["std"], dtype="float64"),
                tendency_std=np.array(content["tendency_std"], dtype="float64"),
                observed=np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool),
                missing=tuple(
                    MissingValues(channel, np.datetime64(time), cells, latitude, longitude)
                    for channel, time, cells, latitude, longitude in content["missing"]
                ),
                train=train,
                others=tuple(others),
                digest=content["digest"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"These are not statistics as climlstm {FORMAT=} writes them: {error!r}. "
                "Delete the file, so that they are computed anew."
            ) from error


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
    executor: looks at some steps with each call, on hosts that see the source under the same name;
        None: threads of this process.

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
        if kept.is_file():
            logger.info("statistics of the training period: taken from %s", kept)
            return Statistics.from_dict(json.loads(kept.read_text(encoding="utf-8")))
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
    known = Statistics.from_dict(content)
    cells = (plan.times.indices.size, plan.cells.latitude.size, plan.cells.longitude.size)
    whole = cells == tuple(plan.source.sizes[dim] for dim in plan.axes.dims)
    stored = {
        recipe.channel.name
        for recipe in plan.recipes
        if recipe.fields == (Field(recipe.channel.variable.name, recipe.channel.name),)
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
    inside = _within(times, train)
    if inside.sum() < 2:
        raise DataError(
            f"The training period {train[0]} to {train[1]} holds {inside.sum()} of the times from "
            f"{times[0]} to {times[-1]}; statistics need two at least. Change data.periods.train."
        )
    wanted = np.logical_or.reduce([inside, *(_within(times, period) for period in others)])
    account = partial(_account, cube, channels, inside, remote_cache)
    if executor is None:
        found = account(CPU_COUNT, np.flatnonzero(wanted))
    else:
        found = _spread(executor, partial(account, 1), dataset, channels, np.flatnonzero(wanted))
    shape = (dataset.sizes["latitude"], dataset.sizes["longitude"])
    observed = np.stack([~account.never(inside, shape) for account in found])
    missing = [
        gap
        for name, account, seen in zip(channels, found, observed, strict=True)
        for gap in _missing(name, account, seen, dataset)
    ]
    area = cell_area_weights(dataset["latitude"]).values
    mean, std = np.array([account.values.over_rows(area) for account in found]).T
    _check(channels, mean, std, observed, train)
    _warn_of_missing(missing, int(wanted.sum()))
    return Statistics(
        channels=channels,
        mean=mean,
        std=std,
        tendency_std=np.array([account.changes.over_rows(area)[1] for account in found]),
        observed=observed,
        missing=tuple(sorted(missing, key=lambda gap: (gap.time, gap.channel))),
        train=train,
        others=tuple(others),
        digest=digest,
    )


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
    account: Callable[[NDArray[np.int64]], list[Account]],
    cube: xr.Dataset,
    channels: Sequence[str],
    positions: NDArray[np.int64],
) -> list[Account]:
    """Accounts of consecutive steps, some with each call, merged in order of time."""
    step_bytes = 4 * len(channels) * cube.sizes["latitude"] * cube.sizes["longitude"]
    size = max(1, BYTES_OF_A_CALL // step_bytes)
    blocks = [positions[first : first + size] for first in range(0, positions.size, size)]
    step = _step(cube["time"].values)
    found, *later = executor.map(account, blocks)
    for accounts in later:
        found = [a.merge(b, step) for a, b in zip(found, accounts, strict=True)]
    return found


def _account(
    cube: CubePlan | xr.Dataset,
    channels: Sequence[str],
    inside: NDArray[np.bool_],
    remote_cache: Cache | None,
    threads: int,
    positions: NDArray[np.int64],
) -> list[Account]:
    """What is to be known of each channel: one Dask task a chunk, merged as they come in."""
    sizes, times = dataset_of(cube).sizes, dataset_of(cube)["time"].values
    step = _step(times)

    def merge(earlier: dict[int, Account], later: dict[int, Account]) -> dict[int, Account]:
        merged = {i: earlier[i].merge(later[i], step) for i in earlier.keys() & later.keys()}
        return earlier | later | merged

    found: dict[int, Account] = {}
    parts = make_parts(cube, channels, remote_cache)
    jobs = [job for part in parts for job in jobs_of(part, positions)]
    at_once = len(jobs)
    if any(part.is_remote for part in parts):  # tasks are short, and their results many
        at_once = max(64, RESULTS_BYTES // (8 * sizes["latitude"] * sizes["longitude"]))
    with ThreadPoolExecutor(threads, thread_name_prefix="climlstm-statistics") as pool:
        for first in range(0, len(jobs), at_once):
            now = jobs[first : first + at_once]

            def accounts_of(
                number: int, values: list[NDArray], now: list[Job] = now
            ) -> dict[int, Account]:
                part, steps = now[number]
                accounts = [look(v, steps, times=times, inside=inside, step=step) for v in values]
                return dict(zip(part.channels, accounts, strict=True))

            found = reduce(merge, read_jobs(now, accounts_of, pool, merge=merge), found)
    return [found[channel] for channel in range(len(channels))]


def _missing(
    name: str, account: Account, observed: NDArray[np.bool_], cube: xr.Dataset
) -> Iterator[MissingValues]:
    """Steps without values in cells that are observed at other times."""
    for pattern, positions in account.lacking.items():
        cells = np.argwhere(unpack(pattern, observed.shape) & observed)
        if cells.size == 0:
            continue
        row, column = cells[0]
        for position in positions:
            yield MissingValues(
                name,
                cube["time"].values[position],
                len(cells),
                float(cube["latitude"][row]),
                float(cube["longitude"][column]),
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


def _within(times: NDArray[np.datetime64], period: Period) -> NDArray[np.bool_]:
    return (times >= period[0].to_datetime64()) & (times <= period[1].to_datetime64())


def _step(times: NDArray[np.datetime64]) -> np.timedelta64:
    """The commonest distance between neighbouring times."""
    if times.size < 2:
        raise DataError(f"A cube needs two times at least; this one has {times.size}.")
    distances, counts = np.unique(np.diff(times), return_counts=True)
    step: np.timedelta64 = distances[np.argmax(counts)]
    return step


def digest_of(cube: xr.Dataset, channels: Sequence[str], settings: Sequence[Any]) -> str:
    """Of all that numbers computed from a cube depend on: the lazy computation itself (by Dask's
    names), the grid, the times, the channels, and the settings (plain values)."""
    names = [dask.base.tokenize(cube[name].data) for name in channels]
    coordinates = [
        hashlib.sha256(np.ascontiguousarray(cube[name].values).tobytes()).hexdigest()
        for name in ("time", "latitude", "longitude")
    ]
    content = [list(channels), names, coordinates, list(settings)]
    return hashlib.sha256(json.dumps(content, default=list).encode()).hexdigest()
