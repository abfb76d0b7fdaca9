"""Forecasts with the truth and the climatology of their valid times, one initialisation at a time.

Each step of truth and climatology is read about once, however many forecasts share it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import Times, are_times, clock, time_text
from climlstm.data.statistics.climatology import climatology_at
from climlstm.errors import DataError
from climlstm.evaluation.baselines import forecast_of
from climlstm.evaluation.missing import COORDINATES, refuse_missing, trusted
from climlstm.evaluation.stacks import is_plain, persists, stack, stacks
from climlstm.grid import LatLon, axes, field_dims, grid_of, wrap_longitude
from climlstm.grid.find import ordered
from climlstm.plugins import Baseline
from climlstm.steps import Step, are_leads, as_times, leads_between, valid_times

logger = logging.getLogger(__name__)

GRID_TOLERANCE_DEG = 1e-3
"""Grid points farther apart than this are not the same (as in WeatherBench 2)."""

PAST = np.timedelta64(24, "h")
"""Span of the past that evaluators may ask for: enough for motion and tendencies."""


@dataclass(frozen=True)
class Case:
    """All that concerns one initialisation: fields (lead_time, latitude, longitude)."""

    forecasts: dict[str, xr.Dataset]
    """Fields by model, baselines included; an ensemble has `realization` as first dimension."""
    truth: xr.Dataset
    climatology: xr.Dataset | None
    past: xr.Dataset | None
    """Truth of the day up to init_time, as lead times up to zero; none, where there is none."""
    share: float
    """Share of the initialisations that have been read with this one."""


def orient(forecast: xr.Dataset) -> xr.Dataset:
    """Forecasts in order of init_time, latitude north to south, longitude eastward.

    Raises DataError where dimensions are missing, doubled, unknown or of the wrong kind.
    """
    forecast = axes.rename_dims(forecast, ["realization"])
    for name, is_right, kind in (
        ("init_time", lambda each: are_times(each.values), "datetime64 or cftime"),
        ("lead_time", are_leads, "timedelta64, or integers with the units 'months'"),
    ):
        if name not in forecast.dims or not is_right(forecast[name]):
            found = f"is {forecast[name].dtype}" if name in forecast.coords else "is missing"
            raise DataError(
                f"forecast: the dimension '{name}' ({kind}) {found}; the dimensions are "
                f"{', '.join(map(str, forecast.dims))}. Open forecasts with open_forecasts()."
            )
        if forecast.indexes[name].has_duplicates:
            twice = forecast.indexes[name][forecast.indexes[name].duplicated()][0]
            raise DataError(f"forecast: {name} {twice} occurs more than once.")
    if not any({"init_time", "lead_time"} < set(a.dims) and a.ndim > 3 for a in forecast.values()):
        raise _no_fields(forecast, ("latitude", "longitude"))
    forecast = ordered(forecast)
    cells = field_dims(forecast)
    needed = {"init_time", "lead_time", *cells}
    fields = [name for name, array in forecast.items() if needed <= set(array.dims)]
    if not fields:
        raise _no_fields(forecast, cells)
    order = ("init_time", "realization", "lead_time", *cells)
    chosen = forecast[fields]
    chosen = chosen.squeeze([d for d, n in chosen.sizes.items() if n == 1 and d not in order])
    unknown = [str(dim) for dim in chosen.dims if dim not in order]
    if unknown:
        raise DataError(
            f"forecast: the dimension '{unknown[0]}' ({chosen.sizes[unknown[0]]}) is not known; "
            f"expected {', '.join(order)}. If these are members of an ensemble, "
            f"forecast.rename({unknown[0]}='realization'); otherwise choose one with "
            f"forecast.isel({unknown[0]}=0)."
        )
    chosen = _without_others(chosen).transpose(*order, missing_dims="ignore")
    for name, form in (("init_time", "datetime64[us]"), ("lead_time", "timedelta64[us]")):
        if chosen[name].dtype.kind in "mM":
            chosen = chosen.assign_coords({name: chosen[name].astype(form)})
    if all(chosen.indexes[name].is_monotonic_increasing for name in ("init_time", "lead_time")):
        return chosen  # sorting would copy all
    return chosen.sortby(["init_time", "lead_time"])


def _no_fields(forecast: xr.Dataset, cells: tuple[str, str]) -> DataError:
    needed = ", ".join(sorted({"init_time", "lead_time", *cells}))
    there = ", ".join(f"{n} {a.dims}" for n, a in forecast.items()) or "no variables"
    return DataError(f"forecast: no variable has the dimensions {needed}; there are {there}.")


def _without_others(data: xr.Dataset) -> xr.Dataset:
    """The data with the coordinates of their dimensions and cells alone."""
    kept = {*data.dims, *grid_of(data).coordinates()}
    return data.drop_vars([name for name in data.coords if name not in kept])


def on_grid(dataset: xr.Dataset, forecast: xr.Dataset, what: str) -> xr.Dataset:
    """A dataset at the grid points of the forecasts, in their order and with their coordinates.

    Longitudes may count from elsewhere and latitudes run the other way.
    Raises DataError for a point of the forecasts' grid that the dataset has not.
    """
    cells = field_dims(forecast)
    if not set(cells) <= set(dataset.dims):
        raise DataError(f"{what}: dimensions {tuple(dataset.dims)} lack {' or '.join(cells)}.")
    grid = grid_of(forecast)
    if not isinstance(grid, LatLon):
        found = grid_of(dataset)
        if not found.is_close(grid):
            raise DataError(
                f"The forecast has a grid of {grid}, but the {what} one of {found}. They must be "
                "on one grid: build the cube with the forecast's region and coarsening."
            )
        return _without_others(dataset).assign_coords(grid.coordinates())
    picked = {name: _positions(dataset, forecast, name, what) for name in cells}
    picked_dataset = dataset.isel(picked).reset_coords(drop=True).transpose(..., *cells)
    return picked_dataset.assign_coords({name: forecast[name] for name in cells})


def _positions(
    dataset: xr.Dataset, forecast: xr.Dataset, name: str, what: str
) -> slice | NDArray[np.intp]:
    """Positions of the forecasts' coordinates in a dataset."""
    available = dataset[name].values.astype("float64")
    wanted = forecast[name].values.astype("float64")
    apart = available[None, :] - wanted[:, None]
    distance = np.abs(wrap_longitude(apart) if name == "longitude" else apart)
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
    return axes.as_slice(nearest)


@dataclass(frozen=True)
class Reference:
    """Truth, climatology and baselines to compare forecasts with, on the grid of the forecasts."""

    truth: xr.Dataset
    """(time, latitude, longitude)."""
    climatology: xr.Dataset | None
    """(hour, dayofyear, latitude, longitude) or (month, latitude, longitude)."""
    observed: xr.Dataset | None
    """bool (latitude, longitude); values of other cells are made NaN."""
    usable: Times
    """Times of the truth without missing values, in order."""
    baselines: Mapping[str, Baseline]
    """Baselines by name, each ready to forecast."""
    past: bool
    """Whether the cases have the truth before their beginning."""


def read_cases(
    forecast: xr.Dataset, reference: Reference, *, model: str, memory: int, stacked: bool = False
) -> Iterator[Case]:
    """Yield the initialisations in order of time, all on the grid of the forecasts.

    memory: bytes of forecasts read together.
    stacked: several initialisations in one case, if baselines allow it; see stacks.py.
    Raises DataError where a value is NaN that should be there, and where there is no truth at all.
    """
    observed, baselines = reference.observed, reference.baselines
    available, spacing = scorable(forecast, reference), _spacing(forecast)
    steps = _Steps(lambda times: reference.truth.sel(time=times), "cube", observed)
    normals = None
    if reference.climatology is not None:
        normals = _Steps(partial(climatology_at, reference.climatology), "climatology", observed)
    kept = np.flatnonzero(available.any(axis=1))
    size = max(1, int(memory // max(1, forecast.isel(init_time=[0]).nbytes)))
    for first in range(0, kept.size, size):
        batch = kept[first : first + size]
        loaded = forecast.isel(init_time=batch).load()
        valid = _valid_times(loaded)[available[batch]]
        past = [_before(init, reference) for init in loaded.init_time.values]
        known = _known_times(loaded.init_time.values, baselines, spacing).ravel()
        steps.hold(np.unique(np.concatenate([valid, known, *past])))
        if normals is not None:
            normals.hold(np.unique(np.concatenate([valid, known])))
        if stacked and not reference.past and all(map(is_plain, baselines.values())):
            for some in stacks(loaded):
                few, pairs = loaded.isel(init_time=some), available[batch[some]]
                own = stack(few, pairs, _valid_times(few)[pairs])
                forecasts = {model: trusted(own, f"forecast '{model}'", observed)}
                normal = None if normals is None else normals.at(own.valid_time)
                for name, baseline in baselines.items():
                    start = steps.at(own.valid_time, own.init_time)
                    forecasts[name] = start if persists(baseline) or normal is None else normal
                share = (first + some.stop) / kept.size
                yield Case(forecasts, steps.at(own.valid_time), normal, None, share)
            continue
        for position, row in enumerate(available[batch]):
            own = loaded.isel(init_time=position, lead_time=slice(None) if row.all() else row)
            own = own.assign_coords(valid_time=("lead_time", _valid_times(own)[0]))
            forecasts = {model: trusted(own, f"forecast '{model}'", observed)}
            normal = None if normals is None else normals.at(own.valid_time)
            for name, baseline in baselines.items():
                times = _known_times(own.init_time.values, {name: baseline}, spacing)
                until = _up_to(own, times[0])
                before = None if normals is None else normals.at(until)
                offered = {"climatology": normal, "past_climatology": before}
                made = forecast_of(name, baseline, steps.at(until), own, offered)
                refuse_missing(made, f"baseline '{name}'", observed)
                forecasts[name] = made.assign_coords({key: own[key] for key in COORDINATES})
            earlier = steps.at(_up_to(own, past[position])) if reference.past else None
            share = (first + position + 1) / kept.size
            yield Case(forecasts, steps.at(own.valid_time), normal, earlier, share)


def _up_to(forecast: xr.Dataset, times: Times) -> xr.DataArray:
    """Times up to the initialisation as valid times of lead times up to zero."""
    leads = leads_between(forecast.init_time.values, times, like=forecast.lead_time.values)
    coordinates = {"lead_time": leads, "init_time": forecast.init_time}
    valid = xr.DataArray(times, coordinates, dims="lead_time")
    return valid.assign_coords(valid_time=valid)


def _known_times(init_times: Times, baselines: Mapping[str, Baseline], spacing: Step) -> Times:
    """Times (init_time, step) that baselines start from, the initialisation last."""
    number = max((each.history for each in baselines.values()), default=0)
    return spacing.time(np.arange(1 - number, 1), np.atleast_1d(init_times)[:, None])


def _spacing(forecast: xr.Dataset) -> Step:
    """The step of forecasts, which is the smallest distance between lead times."""
    leads = forecast.lead_time.values
    smallest = min(each for each in (leads[0], *np.diff(leads)) if each > each * 0)
    months = leads.dtype.kind in "iu"
    return Step(months=int(smallest)) if months else Step(duration=smallest.item())


def _before(init_time: Any, reference: Reference) -> Times:
    """Times with truth, of the day up to an initialisation, in order; none if not asked for."""
    times, until = clock(reference.usable), clock(as_times(init_time))
    return reference.usable[(times >= until - PAST) & (times <= until) & reference.past]


def _valid_times(forecast: xr.Dataset) -> Times:
    return valid_times(np.atleast_1d(forecast.init_time.values), forecast.lead_time.values)


def scorable(forecast: xr.Dataset, reference: Reference) -> NDArray[np.bool_]:
    """Pairs (init_time, lead_time) that can be scored, for all models alike.

    Raises DataError where there is none.
    """
    times = reference.usable
    valid = _valid_times(forecast)
    there = np.asarray(np.isin(valid, times))
    known = _known_times(forecast.init_time.values, reference.baselines, _spacing(forecast))
    started = np.isin(known, times).all(axis=1, keepdims=True)
    available = there & started
    ends = " to ".join(time_text(time) for time in times[[0, -1]]) if times.size else "none"
    span = f"the cube has {times.size} usable times, {ends}"
    if not available.any():
        raise DataError(
            f"No forecast can be scored: they are valid from {time_text(valid.min())} to "
            f"{time_text(valid.max())}, but {span}. Evaluate against a cube of the forecast's "
            "period and step."
        )
    logger.info(
        "Scoring %d initialisations, %d pairs of initialisation and lead time.",
        available.any(axis=1).sum(),
        available.sum(),
    )
    if not available.all():
        logger.info(
            "Left out, for all models alike: %d pairs without truth at the valid time, and %d more "
            "without the analyses that baselines start from; %s.",
            (~there).sum(),
            (there & ~available).sum(),
            span,
        )
    return available


@dataclass
class _Steps:
    """Time steps of a lazy dataset in memory: read once, dropped when no longer wanted."""

    read: Callable[[Times], xr.Dataset]
    what: str
    observed: xr.Dataset | None
    held: list[xr.Dataset] = field(default_factory=list)
    """The steps in order of time; at most one dataset."""

    def hold(self, times: Times) -> None:
        """Have these steps, and no others."""
        kept = [block.isel(time=np.isin(block.time.values, times)) for block in self.held]
        new = np.setdiff1d(times, kept[0].time.values) if kept else times
        if new.size:
            block = self.read(new).load()
            block = block.transpose("time", *field_dims(block))
            kept.append(trusted(block, self.what, self.observed))
        self.held = [xr.concat(kept, "time").sortby("time") if len(kept) > 1 else kept[0]]

    def at(self, valid_time: xr.DataArray, time: xr.DataArray | None = None) -> xr.Dataset:
        """Fields with the coordinates of (lead_time,) valid times; those of `time`, if given."""
        wanted = valid_time if time is None else time
        held = self.held[0]
        at = np.searchsorted(held.time.values, np.broadcast_to(wanted.values, valid_time.shape))
        coordinates = {name: each.variable for name, each in valid_time.coords.items()}
        own = {name: each.variable for name, each in held.coords.items() if name != "time"}
        fields = {
            name: xr.Variable(("lead_time", *v.dims[1:]), v.values[at], v.attrs)
            for name, v in held.data_vars.variables.items()
        }
        return xr.Dataset(fields, own | coordinates, held.attrs)
