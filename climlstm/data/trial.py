"""A few steps of a source, read on trial: how fast they come, and which share is missing."""

import math
import time
from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field

import dask
import numpy as np
import xarray as xr
from dask import threaded

from climlstm.config import format_size
from climlstm.data.sources.origin import as_dask
from climlstm.data.words import seconds_in_words

MOST_VARIABLES = 16
MOST_BYTES = 64 * 2**20
"""Decoded bytes that are read for one step, at most."""

ENOUGH_BYTES = 4 * 2**20
"""Decoded bytes that are read where steps are small, so that the rate means something."""

ENOUGH_CHUNKS = 512
"""Chunks that are read where they are small: opening each takes its time, too."""


@dataclass(frozen=True)
class Trial:
    """Size of a source, and what reading some steps in its middle gave."""

    total: int
    """Bytes of all variables that change in time, in memory."""
    decoded: int = 0
    """Bytes of the chunks that were read."""
    steps: int = 1
    """Most steps in a chunk of what was read."""
    whole: float = 0.0
    """Seconds for reading all of the source once, at the rate of the trial."""
    missing: dict[str, float] = field(default_factory=dict)
    """Share of missing values at these steps, by variable."""

    def __str__(self) -> str:
        size = f"{format_size(self.total)} in memory"
        if not self.decoded:
            return f"{size}; one step of it is too large for a trial"
        held = f"a chunk holds {self.steps} step{'s' * (self.steps > 1)}"
        tried = format_size(self.decoded)
        return f"{size}; read once in {seconds_in_words(self.whole)} ({tried} tried); {held}"


def read_some_steps(source: xr.Dataset, dims: Sequence[Hashable]) -> Trial:
    """Read steps in the middle, of up to `MOST_VARIABLES` variables and `MOST_BYTES`.

    dims: time, rows and columns. Of further dimensions, such as levels, the first entry is read.
    Raises whatever the storage does where values cannot be read.
    """
    varying = {str(name): variable for name, variable in source.variables.items()
               if set(dims) <= set(variable.dims) and variable.dtype.kind in "iuf"}  # fmt: skip
    total = sum(variable.nbytes for variable in varying.values())
    stored = sum(_decoded(variable, variable.sizes) for variable in varying.values())
    chosen: dict[str, xr.Variable] = {}
    of_a_step, chunks, held = 0, 0, 1
    for name, variable in varying.items():
        size = _decoded(variable, dims[1:])
        if len(chosen) < MOST_VARIABLES and of_a_step + size <= MOST_BYTES:
            chosen[name] = variable.isel({dim: 0 for dim in variable.dims if dim not in dims})
            of_a_step += size
            chunks += size // _decoded(variable, ())
            held = max(held, chunk_shape(variable)[variable.dims.index(dims[0])])
    if not chosen:
        return Trial(total)
    steps = source.sizes[dims[0]]
    enough = min(ENOUGH_BYTES // of_a_step, ENOUGH_CHUNKS // chunks)
    wanted = min(max(enough, 1) * held, steps)
    first = (steps - wanted) // 2 // held * held  # where a chunk begins
    few = {dims[0]: slice(first, first + wanted)}
    some = as_dask(xr.Dataset({name: variable.isel(few) for name, variable in chosen.items()}))
    begun = time.perf_counter()
    read = dask.compute(*(some[name].data for name in chosen), scheduler=threaded.get)
    seconds = time.perf_counter() - begun
    decoded = of_a_step * -(-wanted // held)
    missing = {name: float(np.isnan(values).mean())
               for name, values in zip(chosen, read, strict=True)
               if values.dtype.kind == "f"}  # fmt: skip
    return Trial(total, decoded, held, seconds * stored / decoded, missing)


def chunk_shape(variable: xr.Variable) -> tuple[int, ...]:
    """Sizes of the chunks in which a variable is stored; planes, where it is stored whole."""
    stored = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    if stored is not None:
        return tuple(stored)
    chunks = tuple(sizes[0] for sizes in variable.chunks or ())
    if chunks and chunks != variable.shape:
        return chunks
    return tuple(1 if axis < variable.ndim - 2 else n for axis, n in enumerate(variable.shape))


def _decoded(variable: xr.Variable, along: Container[Hashable]) -> int:
    """Bytes of all chunks along some dimensions, and of one chunk along the others."""
    shape = zip(variable.dims, variable.shape, chunk_shape(variable), strict=True)
    sizes = (-(-size // chunk) * chunk if dim in along else chunk for dim, size, chunk in shape)
    return variable.dtype.itemsize * math.prod(sizes)
