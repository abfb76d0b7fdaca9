"""Forecasts, truth and climatology brought together at valid times, one initialisation at a time.

Each step of truth and climatology is read about once, however many forecasts share it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.statistics.climatology import climatology_at
from climlstm.errors import DataError
from climlstm.grid import wrap_longitude

logger = logging.getLogger(__name__)

GRID_TOLERANCE_DEG = 1e-3
"""Grid points farther apart than this are not the same (as in WeatherBench 2)."""

Times = NDArray[np.datetime64]

FIELD = ("latitude", "longitude")
COORDINATES = ("init_time", "lead_time", "valid_time", *FIELD)

PAST = np.timedelta64(24, "h")
"""How far back an evaluator sees that asks for the past: motion, tendencies, not a history."""


@dataclass(frozen=True)
class Case:
    """All that concerns one initialisation: fields (lead_time, latitude, longitude)."""

    forecasts: dict[str, xr.Dataset]
    """By model, baselines included; an ensemble has `realization` as its first dimension."""
    truth: xr.Dataset
    climatology: xr.Dataset | None
    past: xr.Dataset | None
    """Truth of the day up to init_time, where there is any, as lead times up to zero."""
    share: float
    """Of all initialisations, those read when this one is."""


def orient(forecast: xr.Dataset) -> xr.Dataset:
    """Forecasts in order of init_time, latitude north to south, longitude eastward.

    Raises DataError where dimensions are missing, doubled or of the wrong kind.
    """
    for name, kind in (("init_time", np.datetime64), ("lead_time", np.timedelta64)):
        if name not in forecast.dims or not np.issubdtype(forecast[name].dtype, kind):
            found = f"is {forecast[name].dtype}" if name in forecast.coords else "is missing"
            raise DataError(
                f"forecast: the dimension '{name}' ({kind.__name__}) {found}; the dimensions are "
                f"{', '.join(map(str, forecast.dims))}. Open forecasts with open_forecasts()."
            )
        if forecast.indexes[name].has_duplicates:
            twice = forecast.indexes[name][forecast.indexes[name].duplicated()][0]
            raise DataError(f"forecast: {name} {twice} occurs more than once.")
    order = ("init_time", "realization", "lead_time", *FIELD)
    needed = {"init_time", "lead_time", *FIELD}
    fields = [name for name, array in forecast.items() if needed <= set(array.dims)]
    if not fields:
        raise DataError(
            f"forecast: no variable has the dimensions {', '.join(sorted(needed))}; there are "
            f"{', '.join(f'{n} {a.dims}' for n, a in forecast.items()) or 'no variables'}."
        )
    forecast = forecast[fields]
    forecast = forecast.reset_coords(drop=True).transpose(*order, missing_dims="ignore")
    forecast = forecast.assign_coords(
        init_time=forecast.init_time.astype("datetime64[us]"),
        lead_time=forecast.lead_time.astype("timedelta64[us]"),
    )
    forecast = forecast.sortby(["init_time", "lead_time"]).sortby("latitude", ascending=False)
    longitude = forecast.longitude.values.astype("float64")
    if longitude.size > 1 and np.median(wrap_longitude(np.diff(longitude))) < 0:
        forecast, longitude = forecast.isel(longitude=slice(None, None, -1)), longitude[::-1]
    eastward = longitude[0] + (longitude - longitude[0]) % 360
    if np.any(np.diff(eastward) <= 0):
        raise DataError(
            f"forecast: the longitudes {longitude[0]:g}, {longitude[1]:g} … {longitude[-1]:g} do "
            "not go round the Earth once in order. Sort them and drop doubled ones."
        )
    return forecast.assign_coords(longitude=("longitude", eastward, forecast.longitude.attrs))


def on_grid(dataset: xr.Dataset, forecast: xr.Dataset, what: str) -> xr.Dataset:
    """A dataset at the grid points of the forecasts, in their order and with their coordinates.

    Longitudes may count from elsewhere and latitudes run the other way.
    Raises DataError for a point of the forecasts' grid that the dataset has not.
    """
    if not set(FIELD) <= set(dataset.dims):
        raise DataError(f"{what}: dimensions {tuple(dataset.dims)} lack latitude or longitude.")
    picked = {
        "latitude": _positions(dataset, forecast, "latitude", turn=np.inf, what=what),
        "longitude": _positions(dataset, forecast, "longitude", turn=360.0, what=what),
    }
    picked_dataset = dataset.isel(picked).reset_coords(drop=True)
    return picked_dataset.assign_coords({name: forecast[name] for name in FIELD})


def _positions(
    dataset: xr.Dataset, forecast: xr.Dataset, name: str, *, turn: float, what: str
) -> slice | NDArray[np.intp]:
    """Where the forecasts' coordinates are in a dataset; a slice if they are in a row."""
    available = dataset[name].values.astype("float64")
    wanted = forecast[name].values.astype("float64")
    distance = np.abs(available[None, :] - wanted[:, None])
    if np.isfinite(turn):
        distance = np.minimum(distance % turn, -distance % turn)
    nearest = distance.argmin(axis=1)
    gap = distance[np.arange(wanted.size), nearest]
    if gap.max() > GRID_TOLERANCE_DEG:
        worst = gap.argmax()
        raise DataError(
            f"The forecast has {name} {wanted[worst]:g}, but the nearest of the {what} is "
            f"{available[nearest[worst]]:g} ({available.size} from {available[0]:g} to "
            f"{available[-1]:g}; forecast: {wanted.size} from {wanted[0]:g} to {wanted[-1]:g}). "
            "They must be on one grid: build the cube with the forecast's region and coarsening."
        )
    if wanted.size > 1 and np.all(np.diff(nearest) == 1):
        return slice(int(nearest[0]), int(nearest[-1]) + 1)
    return nearest


def read_cases(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    observed: xr.Dataset | None,
    *,
    unusable: Iterable[np.datetime64],
    model: str,
    baselines: Sequence[str],
    memory: int,
    past: bool = False,
) -> Iterator[Case]:
    """Yield the initialisations in order of time, all on the grid of the forecasts.

    observed: bool (latitude, longitude); values elsewhere are made NaN.
    memory: bytes of forecasts read together.
    past: whether the cases have the truth before their beginning.
    Raises DataError where a value is NaN that should be there, and where there is no truth at all.
    """
    usable = _usable(truth, unusable)
    available = _available(forecast, usable, persistence="persistence" in baselines)
    steps = _Steps(lambda times: truth.sel(time=times), "cube", observed)
    normals = None
    if climatology is not None:
        normals = _Steps(partial(climatology_at, climatology), "climatology", observed)
    kept = np.flatnonzero(available.any(axis=1))
    done = 0
    size = max(1, int(memory // max(1, forecast.isel(init_time=[0]).nbytes)))
    for batch in (kept[start : start + size] for start in range(0, kept.size, size)):
        loaded = forecast.isel(init_time=batch).load()
        valid = _valid_times(loaded)[available[batch]]
        inits = loaded.init_time.values if "persistence" in baselines else valid[:0]
        before = {t: _before(t, usable) if past else valid[:0] for t in loaded.init_time.values}
        steps.hold(np.unique(np.concatenate([valid, inits, *before.values()])))
        if normals is not None:
            normals.hold(np.unique(valid))
        for position, row in enumerate(available[batch]):
            own = loaded.isel(init_time=position)
            own = own if row.all() else own.isel(lead_time=row)
            own = own.assign_coords(valid_time=own.init_time + own.lead_time)
            own = _trusted(own, f"forecast '{model}'", observed)
            when = own.coords.to_dataset().drop_dims("realization", errors="ignore")
            normal = None if normals is None else normals.at(when)
            forecasts = {model: own}
            for baseline in baselines:
                if baseline == "persistence":
                    forecasts[baseline] = steps.at(when, valid=False)
                elif normal is not None:
                    forecasts[baseline] = normal
            done += 1
            earlier = steps.at(_ago(when, before[when.init_time.values[()]])) if past else None
            yield Case(forecasts, steps.at(when), normal, earlier, share=done / kept.size)


def scorable_inits(
    forecast: xr.Dataset, truth: xr.Dataset, unusable: Iterable[np.datetime64], persistence: bool
) -> NDArray[np.intp]:
    """Positions of the initialisations that can be scored at one lead time at least."""
    available = _available(forecast, _usable(truth, unusable), persistence=persistence)
    return np.flatnonzero(available.any(axis=1))


def _usable(truth: xr.Dataset, unusable: Iterable[np.datetime64]) -> pd.DatetimeIndex:
    return truth.indexes["time"].difference(pd.DatetimeIndex(list(unusable)))


def _before(init_time: np.datetime64, usable: pd.DatetimeIndex) -> Times:
    """Times with truth, of the day up to an initialisation, in order."""
    return usable[(usable >= init_time - PAST) & (usable <= init_time)].sort_values().values


def _ago(when: xr.Dataset, times: Times) -> xr.Dataset:
    """The coordinates of one initialisation, for times up to its beginning."""
    start = when["init_time"]
    past = when.drop_vars("valid_time").drop_dims("lead_time")
    past = past.assign_coords(lead_time=("lead_time", times - start.values))
    return past.assign_coords(valid_time=("lead_time", times))


def _valid_times(forecast: xr.Dataset) -> Times:
    return forecast.init_time.values[:, None] + forecast.lead_time.values[None, :]


def _available(
    forecast: xr.Dataset, times: pd.DatetimeIndex, *, persistence: bool
) -> NDArray[np.bool_]:
    """Which pairs (init_time, lead_time) can be scored, for all models alike."""
    valid = _valid_times(forecast)
    there = pd.DatetimeIndex(valid.ravel()).isin(times).reshape(valid.shape)
    started = forecast.indexes["init_time"].isin(times)
    available = there & started[:, None] if persistence else there
    span = f"the cube has {len(times)} usable times from {times.min()} to {times.max()}"
    if not available.any():
        raise DataError(
            f"No forecast can be scored: they are valid from {valid.min()} to {valid.max()}, but "
            f"{span}. Evaluate against a cube of the forecast's period and step."
        )
    logger.info(
        "Scoring %d initialisations, %d pairs of initialisation and lead time.",
        available.any(axis=1).sum(),
        available.sum(),
    )
    if not available.all():
        logger.info(
            "Left out, for all models alike: %d pairs without truth at the valid time, and %d more "
            "without an analysis to persist at the initialisation; %s.",
            (~there).sum(),
            (there & ~available).sum(),
            span,
        )
    return available


@dataclass
class _Steps:
    """Time steps of a lazy dataset in memory: read once, let go when no longer wanted."""

    read: Callable[[Times], xr.Dataset]
    what: str
    observed: xr.Dataset | None
    steps: dict[np.datetime64, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    attrs: dict[str, dict[str, object]] = field(default_factory=dict)

    def hold(self, times: Times) -> None:
        """Have these steps, and no others."""
        kept = {time: self.steps[time] for time in times if time in self.steps}
        new = np.array([time for time in times if time not in kept], dtype=times.dtype)
        self.steps = kept
        if new.size == 0:
            return
        block = _trusted(self.read(new).load(), self.what, self.observed)
        arrays = {str(n): block[n].transpose("time", *FIELD).values for n in block.data_vars}
        self.attrs = {name: block[name].attrs for name in arrays}
        for position, time in enumerate(new):
            self.steps[time] = {name: array[position] for name, array in arrays.items()}

    def at(self, when: xr.Dataset, *, valid: bool = True) -> xr.Dataset:
        """Fields at the valid times of one initialisation, or its initial state over and over.

        when: no variables, but the coordinates that the fields get.
        """
        times = when["valid_time"].values
        start: np.datetime64 = when["init_time"].values[()]  # type: ignore[assignment]
        shape = tuple(when.sizes[name] for name in ("lead_time", *FIELD))
        fields = {}
        for name, attrs in self.attrs.items():
            if valid:
                values = np.stack([self.steps[time][name] for time in times])
            else:
                values = np.broadcast_to(self.steps[start][name], shape)
            fields[name] = (("lead_time", *FIELD), values, attrs)
        return when.assign(fields)


def _trusted(dataset: xr.Dataset, what: str, observed: xr.Dataset | None) -> xr.Dataset:
    """The same data, NaN where nothing is ever observed; DataError for NaN anywhere else."""
    for name, variable in dataset.data_vars.variables.items():
        missing = variable.copy(data=~np.isfinite(variable.values))
        if observed is not None:
            missing = missing & observed.variables[name]
        if missing.values.any():
            raise DataError(_first_missing(what, dataset[name], missing))
    return dataset if observed is None else dataset.where(observed)


def _first_missing(what: str, array: xr.DataArray, missing: xr.Variable) -> str:
    first = dict(zip(array.dims, np.argwhere(missing.values)[0], strict=True))
    point = array.isel(first)
    known = [name for name in ("time", *COORDINATES) if name in point.coords]
    place = ", ".join(f"{name} {_text(point[name].values)}" for name in known)
    return (
        f"{what}: '{array.name}' is {float(point)} at {place} ({int(missing.sum())} such values). "
        "Scores would be wrong. Repair the data; or, where a cell is always missing, say so in "
        "`observed`, and where a time cannot be used, in `unusable`."
    )


def _text(value: NDArray[np.generic]) -> str:
    if value.dtype.kind == "m":
        return str(pd.Timedelta(value.item()))
    return str(pd.Timestamp(value.item())) if value.dtype.kind == "M" else f"{value:g}"
