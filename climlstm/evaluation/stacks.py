"""Initialisations one after another along `lead_time`, so that small fields are scored together.

Small fields cost more by their number than by their cells. In a stack, init_time and valid_time
are coordinates along `lead_time`, too.
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import Times
from climlstm.evaluation.baselines import Climatology, Persistence
from climlstm.grid import field_dims
from climlstm.plugins import Baseline

STACK_BYTES = 2 * 2**20
"""Bytes of one variable, about, that are scored together: few calls, and within a cache."""


def persists(baseline: Baseline) -> bool:
    """Whether a baseline is the state at the start, unchanged."""
    return isinstance(baseline, Persistence) and not baseline.anomaly


def is_plain(baseline: Baseline) -> bool:
    """Whether a baseline is the state at the start or the climatology, unchanged."""
    return persists(baseline) or isinstance(baseline, Climatology)


def stacks(forecast: xr.Dataset) -> Iterator[slice]:
    """Ranges of initialisations, of each of which a variable takes about STACK_BYTES."""
    number = forecast.sizes["init_time"]
    each = max(array.nbytes for array in forecast.values()) // number
    size = max(1, STACK_BYTES // each)
    return (slice(first, min(first + size, number)) for first in range(0, number, size))


def stack(forecast: xr.Dataset, kept: NDArray[np.bool_], valid_time: Times) -> xr.Dataset:
    """Pairs of initialisation and lead time, one after another.

    kept: (init_time, lead_time), True for the pairs that are wanted. valid_time: of these pairs.
    """
    init, lead = np.nonzero(kept)
    cells = field_dims(forecast)
    stacked = {}
    for name, variable in forecast.data_vars.variables.items():
        values = variable.transpose(..., "init_time", "lead_time", *cells).values
        merged = values.reshape(*values.shape[:-4], kept.size, *values.shape[-2:])
        dims = ("realization", "lead_time", *cells)[-merged.ndim :]
        chosen = merged if kept.all() else merged[..., np.flatnonzero(kept), :, :]
        stacked[name] = xr.Variable(dims, chosen, variable.attrs)
    own = {
        name: each.variable
        for name, each in forecast.coords.items()
        if not {"init_time", "lead_time"} & set(each.dims)
    }
    leads = xr.Variable("lead_time", forecast.lead_time.values[lead], forecast.lead_time.attrs)
    times = {
        "init_time": ("lead_time", forecast.init_time.values[init]),
        "valid_time": ("lead_time", valid_time),
    }
    return xr.Dataset(stacked, own | {"lead_time": leads} | times, forecast.attrs)
