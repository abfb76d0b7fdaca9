"""Channels from other sources of the catalog, which may have a longer step than the run.

At each step of the run they have the last value that was known by then, never a future one, nor
one of long ago. A mean or sum is known when its interval has ended: by its bounds, for months when
the month is over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.config import ChannelConfig, DataConfig
from climlstm.data.cube.accumulation import time_method
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.roles import HOST
from climlstm.data.sources.catalog import open_source
from climlstm.data.sources.times import bounds_of
from climlstm.errors import DataError

MONTH = np.timedelta64(27 * 24 + 12, "h")
"""Distance of neighbouring times from which a source is taken for one of months."""

SAME_PLACE_DEG = 1e-3


def open_cube(data: DataConfig, *, outputs: bool = True) -> xr.Dataset:
    """The cube that the data section of a run file describes, lazily.

    outputs: whether outputs are in it that are not seen at the start: no forecast needs them.

    >>> import climlstm
    >>> config = climlstm.load_config("run.yaml")
    >>> climlstm.open_cube(config.data)["z500"].attrs["units"]
    'm2 s-2'
    """
    seen = [n for n in data.output if data.channels.get(n, ChannelConfig()).seen_at_start]
    wanted = data if outputs else data.model_copy(update={"output": tuple(seen)})
    plan = plan_cube(open_source(data.catalog, data.source, **data.parameters), wanted)
    return with_others(plan, wanted).cube


def with_others(plan: CubePlan, data: DataConfig) -> CubePlan:
    """The plan with prescribed channels, and those of a host, that other sources have.

    The plan itself where there are none. Raises DataError where they lie on another grid.
    """
    others: dict[str, xr.DataArray] = {}
    for entry, parameters, names in _wanted(data):
        theirs = _plan_of(entry, parameters, tuple(names), data)
        require_same_grid(entry, theirs, plan)
        at = held_at(known_times(theirs), plan.times.values)
        for plain, label in names.items():
            field = theirs.cube[plain]
            held = field.isel(time=np.maximum(at, 0)).assign_coords(time=plan.times.values)
            there = xr.DataArray(at >= 0, {"time": plan.times.values}, "time")
            others[label] = held.where(there).assign_attrs(field.attrs).chunk({"time": 64})
    return replace(plan, others=others) if others else plan


def require_same_grid(entry: str, theirs: CubePlan, plan: CubePlan) -> None:
    """Raises DataError unless an entry lies on the grid of the run."""
    if not theirs.grid.is_close(plan.grid, SAME_PLACE_DEG):
        raise DataError(
            f"The source '{entry}' has another grid ({theirs.grid}) than the run "
            f"({plan.grid}). Bring it to that grid first, by 'regrid' in the catalog."
        )


def _wanted(data: DataConfig) -> Iterator[tuple[str, Mapping[str, Any], dict[str, str]]]:
    """Entry, parameters, and names of channels there and in the cube."""
    for name, each in data.prescribed.items():
        if each.source is not None:
            yield each.source, each.parameters, {name: name}
    if data.boundary is not None and data.boundary.source is not None:
        names = {name: name + HOST for name in data.state}
        yield data.boundary.source, data.boundary.parameters, names


def _plan_of(
    entry: str, parameters: Mapping[str, Any], names: tuple[str, ...], data: DataConfig
) -> CubePlan:
    """Plan of channels of another source at its own times."""
    only: dict[str, Any] = {"state": names, "output": (), "static": (), "forcing": ()}
    only |= {"prescribed": {}, "boundary": None, "step": None}
    source = open_source(data.catalog, entry, **parameters)
    return plan_cube(source, data.model_copy(update=only))


def held_at(known: NDArray[np.datetime64], times: NDArray[np.datetime64]) -> NDArray[np.intp]:
    """Position of the last value known at each time; -1 where there is none, or it is too old.

    A value is held for the step of its source: not beyond the end of the source, nor over a gap.
    """
    at = np.searchsorted(known, times, side="right") - 1
    if known.size < 2:
        return at
    step = np.median(np.diff(known))
    longest = step * 1.1 if step >= MONTH else step  # months are of several lengths
    return np.where(times - known[np.maximum(at, 0)] < longest, at, -1)


def known_times(plan: CubePlan) -> NDArray[np.datetime64]:
    """When each value of a source was known: the end of the interval that it stands for."""
    times = plan.times.values
    if times.dtype.kind != "M":
        raise DataError(
            f"A channel of another source needs times of the standard calendar, but '{times[0]}' "
            "has another one. Convert the source first: ds.convert_calendar('standard')."
        )
    bounds = bounds_of(plan.source, plan.axes.time)
    if bounds is not None:
        ends: NDArray[np.datetime64] = bounds.values.max(axis=1)[plan.times.indices]
        return ends
    if times.size < 2:
        return times
    step = np.median(np.diff(times))
    if step >= MONTH:
        months = pd.DatetimeIndex(times).to_period("M")
        return (months + 1).start_time.to_numpy().astype(times.dtype)
    said = time_method(plan.source[plan.recipes[0].fields[0].variable])
    return times + step if said is not None and said.method != "sum" else times
