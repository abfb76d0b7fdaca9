"""Where forecasts can start, what they start from, and how they are labelled."""

import json
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.calendars import clock, time_text, within
from climlstm.data.knowledge import PRESCRIBED_FROM
from climlstm.data.roles import origins_of
from climlstm.data.windows.starts import valid_starts
from climlstm.errors import DataError
from climlstm.forecasting.ensemble import Times
from climlstm.grid import grid_of
from climlstm.grid.winds import ALONG_GRID, is_turned, to_earth
from climlstm.model.spec import Spec
from climlstm.plugins.channels import installed_channel
from climlstm.steps import Step, as_times

logger = logging.getLogger(__name__)

INIT_DIMS = ("init_time", "realization")


def possible_inits(
    cube: xr.Dataset,
    spec: Spec,
    *,
    period: tuple[pd.Timestamp, pd.Timestamp],
    every: Step,
    unusable: Iterable[Any] = (),
) -> Times:
    """Times in a period, at intervals of `every` from the first, whose history the cube holds.

    Each step of months, where `every` is a shorter duration.
    unusable: times that no history may contain.
    """
    times = cube["time"].values
    starts = valid_starts(times, length=spec.history, step=spec.step, unusable=unusable)
    inits = times[starts + spec.history - 1]
    inits = inits[within(inits, period)]
    if inits.size == 0:
        raise DataError(
            f"No forecast can start between {period[0]} and {period[1]}: it needs {spec.history} "
            f"steps of {spec.step} before it, and the cube has {times.size} times from "
            f"{time_text(times[0])} to {time_text(times[-1])}."
        )
    each = spec.step.duration is None and spec.step.is_longer_than(every)
    return inits if each else inits[every.thin(inits)]


def with_truth(cube: xr.Dataset, spec: Spec, init_times: Times, steps: int, *, only: bool) -> Times:
    """The initialisations, with a word about those whose lead times are not all in the cube.

    only: leave these out, since tools that score forecasts may ask for the truth of all leads.
    Raises DataError where none is left.
    """
    times = cube["time"].values
    leads = np.arange(1, steps + 1)
    whole = np.isin(spec.step.time(leads, init_times[:, None]), times).all(axis=1)
    if only and not whole.any():
        raise DataError(
            f"None of the {len(init_times)} initialisations from {time_text(init_times[0])} has "
            f"all its {steps} lead steps in the data, which end at {time_text(times[-1])}. Choose "
            "earlier ones or fewer steps, or forecast without --verifiable (verifiable=False)."
        )
    if not whole.all():
        logger.warning(
            "%d of %d initialisations, the first at %s, have lead times that are not in the data, "
            "which end at %s: %s",
            (~whole).sum(),
            whole.size,
            time_text(init_times[~whole][0]),
            time_text(times[-1]),
            "left out."
            if only
            else "other tools may refuse to score them. Leave them out with --verifiable "
            "(verifiable=True).",
        )
    return init_times[whole] if only else init_times


def check(spec: Spec, cube: xr.Dataset) -> None:
    """Raises DataError unless the cube has a forecaster's channels, units and grid."""
    for name, units in zip(spec.channels, spec.units, strict=True):
        if name not in spec.known:
            continue
        if name not in cube:
            raise DataError(
                f"The forecaster needs the channel '{name}', but the cube has "
                f"{', '.join(map(str, cube.data_vars))}. Add it to data.state."
            )
        found = cube[name].attrs.get("units")
        if found != units:
            raise DataError(
                f"The forecaster was trained with '{name}' in '{units}', but the cube has it in "
                f"'{found}'. Build the cube with the climlstm that trained it."
            )
    found_grid = grid_of(cube)
    if not found_grid.is_close(spec.grid):
        raise DataError(
            f"The forecaster was trained on a grid of {spec.grid}, but the cube has {found_grid}. "
            "Choose the same region and grid."
        )


def histories(spec: Spec, cube: xr.Dataset, inits: Times) -> NDArray[np.float32]:
    """Known states (B, T, C, H, W) in physical units, each time read once; NaN for outputs
    that are not seen at the start."""
    wanted = spec.step.time(np.arange(1 - spec.history, 1), inits[:, None])
    needed, place = np.unique(wanted, return_inverse=True)
    absent = needed[~np.isin(needed, cube["time"].values)]
    if absent.size:
        init = inits[(wanted == absent[0]).any(axis=1)][0]
        times = cube["time"].values
        starts = valid_starts(times, length=spec.history, step=spec.step)
        possible = times[starts + spec.history - 1]
        apart = np.abs(clock(possible) - clock(as_times([init])))
        nearest = possible[apart.argmin()] if possible.size else "not there"
        raise DataError(
            f"The cube has no data at {absent[0]}, which the forecast from {init} starts from. The "
            f"nearest possible start is {nearest}."
        )
    states = cube[list(spec.known)].sel(time=needed).to_dataarray("channel")
    values = states.transpose("time", "channel", *spec.grid.dims).values
    whole = np.full((needed.size, len(spec.channels), *spec.grid.shape), np.nan, dtype="float32")
    whole[:, [spec.channels.index(name) for name in spec.known]] = values
    return whole[place.reshape(wanted.shape)]


def labelled(states: Tensor, spec: Spec, inits: Times, first: int = 0) -> xr.Dataset:
    """(B, L, C, H, W), or (B, M, L, C, H, W), with names, coordinates and attributes.

    first: number of the lead steps before these.
    """
    values = states.cpu().numpy()
    several = states.dim() == 6
    dims = (*INIT_DIMS[: 1 + several], "lead_time", *spec.grid.dims)
    fields = {
        name: (dims, values[..., number, :, :], attributes(spec, number))
        for number, name in enumerate(spec.channels)
    }
    coords = {
        "init_time": inits,
        "lead_time": lead_axis(spec.step, first, first + states.shape[-4]),
        **spec.grid.coordinates(),
    }
    if several:
        coords["realization"] = np.arange(states.shape[1], dtype="int32")
    origins = origins_of(spec.given)
    attrs = {PRESCRIBED_FROM: json.dumps(origins)} if origins else {}
    return to_earth(xr.Dataset(fields, coords, attrs))


def lead_axis(step: Step, first: int, last: int) -> xr.Variable:
    """Lead times of the steps after the first ones: timedelta64, or integers in months."""
    attrs = {"units": "months"} if step.duration is None else {}
    return xr.Variable("lead_time", step.leads(np.arange(first + 1, last + 1)), attrs)


def attributes(spec: Spec, number: int) -> dict[str, str]:
    """Attributes of a channel; of winds, as the network has them."""
    name = spec.channels[number]
    variable = installed_channel(name).variable
    long_name = spec.settings.get(name, {}).get("long_name", variable.long_name)
    attributes = {"units": spec.units[number], "long_name": long_name}
    if variable.standard_name:
        along = ALONG_GRID if is_turned(spec.grid) else {}
        attributes["standard_name"] = along.get(variable.standard_name, variable.standard_name)
    return attributes
