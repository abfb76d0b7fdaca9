"""The few steps of a cube that an audit reads."""

import numpy as np
import xarray as xr
from dask import threaded
from numpy.typing import NDArray

from climlstm.audit import chunking
from climlstm.data.cube.cube import CubePlan, explain_read_errors

SAMPLE_STEPS = 24
"""Steps that are read, spread evenly over all periods."""

SAMPLE_BYTES = 256 * 2**20
"""Decoded bytes beyond which fewer steps are read, down to LEAST_STEPS."""

LEAST_STEPS = 4


def sample_positions(plan: CubePlan, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps to look at, evenly spaced over those wanted, as many as SAMPLE_BYTES allow."""
    number = min(SAMPLE_STEPS, wanted.size)
    while number > LEAST_STEPS and bytes_decoded(plan, _spread(wanted, number)) > SAMPLE_BYTES:
        number = max(LEAST_STEPS, number // 2)
    return _spread(wanted, number)


def _spread(wanted: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    at = np.linspace(0, wanted.size - 1, number)
    return np.unique(wanted[at.round().astype("int64")])


def bytes_decoded(plan: CubePlan, positions: NDArray[np.int64]) -> int:
    return sum(
        plan.source[name].dtype.itemsize * int(np.prod([decoded for decoded, _ in dims.values()]))
        for name, dims in chunking.points_read(plan, positions).items()
    )


def read_steps(cube: xr.Dataset, positions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Each channel at some steps, (step, H, W); static fields as one step."""
    chosen = {
        str(name): field.isel(time=positions) if "time" in field.dims else field.expand_dims("time")
        for name, field in cube.data_vars.items()
    }
    values = {}
    for name, field in chosen.items():
        with explain_read_errors(f"Channel '{name}'"):
            values[name] = np.asarray(field.data.compute(scheduler=threaded.get))
    return values
