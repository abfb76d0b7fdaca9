"""Where the variables of a source lie in a Zarr store, so that their chunks can be read directly.

The origin of a variable stands in its encoding, with Dask's name of the values that it holds for.
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
import zarr

logger = logging.getLogger(__name__)

KEY = "climlstm_origin"


@dataclass(frozen=True)
class Origin:
    """A variable's place in a Zarr store."""

    store: Any
    """Path, URL or zarr store."""
    options: Mapping[str, Any] | None = field(repr=False)
    """Storage options of a URL."""
    path: str
    """Path of the array in the store."""
    dims: tuple[Hashable | None, ...]
    """For each dimension of the array, the variable's; None where one entry was chosen."""
    first: tuple[int, ...]
    """Position at which the variable begins on each dimension of the array."""
    lazy: str
    """Dask's name of the values: other values under this origin are not those of the store."""

    def open(self) -> zarr.Array:
        """The array, with one request of a remote store."""
        options = None if self.options is None else dict(self.options)
        return zarr.open_array(self.store, path=self.path, mode="r", storage_options=options)


def open_zarr(store: Any, **options: Any) -> xr.Dataset:
    """`xr.open_zarr`, in the chunks of the store, with the origin of each variable."""
    return with_origins(xr.open_zarr(store, chunks={}, **options), store)


def with_origins(
    source: xr.Dataset,
    store: Any,
    *,
    options: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> xr.Dataset:
    """A dataset as xarray opened it from a Zarr store, with the origin of each lazy variable."""
    for name, variable in source.variables.items():
        if variable.chunks is not None:
            path = f"{group}/{name}" if group else str(name)
            first = (0,) * variable.ndim
            lazy = variable.data.name
            variable.encoding[KEY] = Origin(store, options, path, variable.dims, first, lazy)
    return source


def origin_of(variable: xr.DataArray) -> Origin | None:
    """The origin of a variable; None if it has none, or was changed since."""
    origin: Origin | None = variable.encoding.get(KEY)
    same = origin is not None and variable.chunks is not None and variable.data.name == origin.lazy
    return origin if same else None


def follow(source: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.Dataset:
    """`change(source)`, with the origins of its variables.

    change: may cut out, rename and describe variables. Those that it computes have no origin.
    """
    positions = {dim: f"position {i} of {KEY}" for i, dim in enumerate(source.dims)}
    tracked = {name: (dim, np.arange(source.sizes[dim])) for dim, name in positions.items()}
    changed = change(source.assign_coords(tracked))
    kept = {dim: changed[name].variable for dim, name in positions.items() if name in changed}
    changed = changed.drop_vars(tracked, errors="ignore")
    for variable in changed.variables.values():
        origin = variable.encoding.pop(KEY, None)
        if origin is not None and variable.chunks is not None:
            cut = _cut(origin, kept, variable.data.name)
            variable.encoding |= {} if cut is None else {KEY: cut}
    return changed


def _cut(origin: Origin, kept: Mapping[Hashable, xr.Variable], lazy: str) -> Origin | None:
    """The origin of a part; None where it is no range of neighbours.

    kept: positions on each dimension that are left, one number where one entry was chosen.
    """
    dims, first = list(origin.dims), list(origin.first)
    for axis, dim in enumerate(origin.dims):
        if dim is None:
            continue
        if dim not in kept:  # its entries were combined
            return None
        positions = kept[dim]
        values = np.atleast_1d(positions.values)
        if values.size == 0 or np.any(np.diff(values) != 1):
            return None
        dims[axis] = positions.dims[0] if positions.dims else None
        first[axis] += int(values[0])
    return replace(origin, dims=tuple(dims), first=tuple(first), lazy=lazy)
