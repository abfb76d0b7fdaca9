"""Mean, standard deviation and gaps of a cube, and its climatology: of the training period only.

One pass over the data through Dask; moments are accumulated in float64 for each row and merged
by the pairwise update of Chan, Golub & LeVeque (1983, Am. Stat. 37, 242-247, eqs 2.1).
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights

logger = logging.getLogger(__name__)

Period = tuple[pd.Timestamp, pd.Timestamp]
"""First and last moment, both included."""

FORMAT = 1
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
    digest: str
    """Of everything that these numbers depend on."""

    @property
    def unusable(self) -> NDArray[np.datetime64]:
        """Times that no window may contain, because some channel lacks values there."""
        return np.unique(np.array([gap.time for gap in self.missing], dtype="datetime64[ns]"))

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
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Statistics":
        """Raises DataError where the dictionary is not what `to_dict` gives."""
        try:
            shape = tuple(content["observed"]["shape"])
            bits = np.frombuffer(bytes.fromhex(content["observed"]["bits"]), dtype="uint8")
            start, stop = content["train"]
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
                train=(pd.Timestamp(start), pd.Timestamp(stop)),
                digest=content["digest"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"These are not statistics as climlstm {FORMAT=} writes them: {error!r}. "
                "Delete the file, so that they are computed anew."
            ) from error


def compute_statistics(
    cube: xr.Dataset,
    *,
    channels: Sequence[str],
    train: Period,
    others: Sequence[Period] = (),
    cache: Path | None = None,
) -> Statistics:
    """Statistics of the training period, and where values are missing in any period.

    cube: one step between its times; gaps do not count as a change over one step.
    others: further periods whose missing values are looked for.
    cache: a folder; statistics found there under the same digest are not computed again.

    Raises DataError where the training period is empty, or a channel is constant in it.
    """
    digest = _digest(cube, channels, train, others)
    kept = None if cache is None else cache / f"statistics-{digest[:16]}.json"
    if kept is not None and kept.is_file():
        logger.info("statistics of the training period: taken from %s", kept)
        return Statistics.from_dict(json.loads(kept.read_text(encoding="utf-8")))
    statistics = _compute(cube, tuple(channels), train, others, digest)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps(statistics.to_dict()), encoding="utf-8")
        partial.replace(kept)
    return statistics


def _compute(
    cube: xr.Dataset,
    channels: tuple[str, ...],
    train: Period,
    others: Sequence[Period],
    digest: str,
) -> Statistics:
    times = cube["time"].values
    step = _step(times)
    inside = _within(times, train)
    if inside.sum() < 2:
        raise DataError(
            f"The training period {train[0]} to {train[1]} holds {inside.sum()} of the times from "
            f"{times[0]} to {times[-1]}; statistics need two at least. Change data.periods.train."
        )
    wanted = inside | np.any([_within(times, period) for period in others], axis=0)
    shape = (cube.sizes["latitude"], cube.sizes["longitude"])
    area = cell_area_weights(cube["latitude"]).values
    accounts = dask.compute(
        {name: _account(cube[name], times, inside, wanted, step) for name in channels},
        scheduler="threads",
    )[0]
    found = {name: _merge(parts, step) for name, parts in accounts.items()}
    missing: list[MissingValues] = []
    observed = np.ones((len(channels), *shape), dtype=bool)
    for index, (name, account) in enumerate(found.items()):
        observed[index] = ~account.never(inside, shape)
        missing += _missing(name, account, observed[index], cube)
        if not observed[index].any():
            raise DataError(
                f"Channel '{name}' has no value at all in the training period {train[0]} to "
                f"{train[1]}. Leave it out, or change data.periods.train."
            )
    values = [account.values.over_rows(area) for account in found.values()]
    changes = [account.changes.over_rows(area) for account in found.values()]
    for name, (mean, std) in zip(channels, values, strict=True):
        if not std > np.finfo("float32").eps * abs(mean):
            raise DataError(
                f"Channel '{name}' is {mean:g} everywhere in the training period {train[0]} to "
                f"{train[1]}, so it cannot be normalised. Leave it out, or use it as static."
            )
    _warn_of_missing(missing, int(wanted.sum()))
    return Statistics(
        channels=channels,
        mean=np.array([mean for mean, _ in values]),
        std=np.array([std for _, std in values]),
        tendency_std=np.array([std for _, std in changes]),
        observed=observed,
        missing=tuple(sorted(missing, key=lambda gap: (gap.time, gap.channel))),
        train=train,
        digest=digest,
    )


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of each row (H,), in float64."""

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Moments":
        """values: (time, H, W); those that are not finite do not count."""
        finite = np.isfinite(values)
        count = finite.sum(axis=(0, 2)).astype("float64")
        wide = np.where(finite, values, 0).astype("float64")
        mean = wide.sum(axis=(0, 2)) / np.maximum(count, 1)
        deviation = np.where(finite, wide - mean[:, None], 0)
        return cls(count, mean, np.square(deviation).sum(axis=(0, 2)))

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets of values together."""
        count = self.count + other.count
        weight = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * weight
        return Moments(count, self.mean + apart * weight, squares)

    def over_rows(self, area: NDArray[np.float64]) -> tuple[float, float]:
        """Mean and standard deviation over all rows, weighted by the area of a cell (H,)."""
        weight = area * self.count
        mean = float(weight @ self.mean / weight.sum()) if weight.any() else np.nan
        squares = area @ (self.squares + self.count * (self.mean - mean) ** 2)
        return mean, float(np.sqrt(squares / weight.sum())) if weight.any() else np.nan


@dataclass(frozen=True, eq=False)
class _Account:
    """What one pass over some consecutive steps of a channel tells."""

    values: Moments
    """Of the training period."""
    changes: Moments
    """Over one step, both ends in the training period."""
    lacking: dict[bytes, NDArray[np.int64]]
    """Patterns of missing cells (packed bits), and the positions in time that have them."""
    ends: tuple[tuple[np.datetime64, NDArray[np.float32]], ...]
    """First and last time in the training period and their fields, for changes across parts."""

    def never(self, inside: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells (H, W) missing at all times of the training period."""
        patterns = [p for p, positions in self.lacking.items() if inside[positions].any()]
        covered = sum(int(inside[self.lacking[p]].sum()) for p in patterns)
        if covered < int(inside.sum()):
            return np.zeros(shape, dtype=bool)
        return np.logical_and.reduce([_unpack(p, shape) for p in patterns])


def _account(
    channel: xr.DataArray,
    times: NDArray[np.datetime64],
    inside: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    step: np.timedelta64,
) -> list[Any]:
    """A lazy _Account for each chunk in time of a channel, in order."""
    array = da.asarray(channel.transpose("time", "latitude", "longitude").data)
    edges = np.concatenate([[0], np.cumsum(array.chunks[0])])
    parts = []
    for first, last in pairwise(edges):
        chosen = np.flatnonzero(wanted[first:last])
        if chosen.size:
            positions = first + chosen
            block = array[positions[0] : positions[-1] + 1]
            parts.append(
                dask.delayed(_look)(block, positions - positions[0], positions, times, inside, step)
            )
    return parts


def _look(
    block: NDArray[np.float32],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    times: NDArray[np.datetime64],
    inside: NDArray[np.bool_],
    step: np.timedelta64,
) -> _Account:
    block = block[rows]
    lacking: dict[bytes, list[int]] = {}
    for position, field in zip(positions, block, strict=True):
        finite = np.isfinite(field)
        if not finite.all():
            lacking.setdefault(np.packbits(~finite).tobytes(), []).append(int(position))
    training = block[inside[positions]]
    moments = times[positions[inside[positions]]]
    changes = np.diff(training, axis=0)[np.diff(moments) == step]
    ends = ((moments[0], training[0]), (moments[-1], training[-1])) if moments.size else ()
    return _Account(
        Moments.of(training),
        Moments.of(changes),
        {pattern: np.array(where) for pattern, where in lacking.items()},
        ends,
    )


def _merge(parts: Iterable[_Account], step: np.timedelta64) -> _Account:
    """All parts, which follow one another in time, as one."""
    iterator = iter(parts)
    whole = next(iterator)
    for part in iterator:
        changes = whole.changes.merge(part.changes)
        if whole.ends and part.ends and part.ends[0][0] - whole.ends[1][0] == step:
            change = part.ends[0][1] - whole.ends[1][1]
            changes = changes.merge(Moments.of(change[None]))
        lacking = dict(whole.lacking)
        for pattern, positions in part.lacking.items():
            before = lacking.get(pattern, np.empty(0, dtype="int64"))
            lacking[pattern] = np.concatenate([before, positions])
        ends = (*whole.ends[:1], *part.ends[1:]) if whole.ends and part.ends else ()
        ends = ends or whole.ends or part.ends
        whole = _Account(whole.values.merge(part.values), changes, lacking, ends)
    return whole


def _missing(
    name: str, account: _Account, observed: NDArray[np.bool_], cube: xr.Dataset
) -> Iterator[MissingValues]:
    """Steps without values in cells that are observed at other times."""
    for pattern, positions in account.lacking.items():
        cells = np.argwhere(_unpack(pattern, observed.shape) & observed)
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


def _unpack(pattern: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    bits = np.frombuffer(pattern, dtype="uint8")
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def _within(times: NDArray[np.datetime64], period: Period) -> NDArray[np.bool_]:
    return (times >= period[0].to_datetime64()) & (times <= period[1].to_datetime64())


def _step(times: NDArray[np.datetime64]) -> np.timedelta64:
    """The commonest distance between neighbouring times."""
    if times.size < 2:
        raise DataError(f"A cube needs two times at least; this one has {times.size}.")
    distances, counts = np.unique(np.diff(times), return_counts=True)
    step: np.timedelta64 = distances[np.argmax(counts)]
    return step


def _digest(
    cube: xr.Dataset, channels: Sequence[str], train: Period, others: Sequence[Period]
) -> str:
    """Of all that statistics depend on: the lazy computation itself (by Dask's names), the grid,
    the channels and the periods."""
    names = [dask.base.tokenize(cube[name].data) for name in channels]
    coordinates = [
        hashlib.sha256(np.ascontiguousarray(cube[name].values).tobytes()).hexdigest()
        for name in ("time", "latitude", "longitude")
    ]
    periods = [[str(moment) for moment in period] for period in (train, *others)]
    content = [FORMAT, list(channels), names, coordinates, periods]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
