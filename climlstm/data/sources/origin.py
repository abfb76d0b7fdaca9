"""Where the values of a source lie, so that their chunks can be read directly.

Variables are opened without Dask: those of a store with hundreds of them and a million hourly
chunks each would fill gigabytes with tasks that nobody asks for. The origin of a variable stands in
its encoding, with xarray's holder of the values that it is for.
"""

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import dask.base
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from climlstm.errors import DataError

KEY = "climlstm_origin"

UNCHUNKED_BYTES = 1 << 23
"""Bytes, about, that are read together of values which lie in one piece."""


@dataclass(frozen=True)
class Origin:
    """A variable's place in a Zarr store or file."""

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
    chunks: tuple[int, ...]
    """Points that are stored together on each dimension of the array."""
    values: Any = field(repr=False)
    """Xarray's holder of the variable's values; other values are not those of the store."""
    is_zarr: bool
    changed: float | None
    """Time at which a local store or file was changed."""

    def open(self) -> zarr.Array:
        """The array, with one request of a remote store."""
        options = None if self.options is None else dict(self.options)
        return zarr.open_array(self.store, path=self.path, mode="r", storage_options=options)


def open_zarr(store: Any, **options: Any) -> xr.Dataset:
    """A Zarr store, lazy without Dask, with the origin of each variable.

    options: as for `xr.open_dataset`.
    """
    opened = xr.open_dataset(store, engine="zarr", chunks=None, cache=False, **options)
    return with_origins(opened, store)


def with_origins(
    source: xr.Dataset,
    store: Any,
    *,
    options: Mapping[str, Any] | None = None,
    group: str | None = None,
    is_zarr: bool = True,
) -> xr.Dataset:
    """A dataset as xarray opened it, with the origin of each variable that is not in memory."""
    local = isinstance(store, str | os.PathLike) and os.path.exists(store)
    changed = os.path.getmtime(store) if local else None
    for name, variable in source.variables.items():
        if not isinstance(variable, xr.IndexVariable):
            path = f"{group}/{name}" if group else str(name)
            variable.encoding[KEY] = Origin(
                store=store,
                options=options,
                path=path,
                dims=variable.dims,
                first=(0,) * variable.ndim,
                chunks=_stored_chunks(variable, name),
                values=_holder(variable),
                is_zarr=is_zarr,
                changed=changed,
            )
    return source


def _stored_chunks(variable: xr.Variable, name: Hashable = "") -> tuple[int, ...]:
    """Points that are stored together; of values in one piece, so many on the first dimension."""
    stored = variable.encoding.get("preferred_chunks")
    if stored:
        chunks = tuple(int(stored.get(dim, variable.sizes[dim])) for dim in variable.dims)
        if min(chunks, default=1) < 1 <= variable.size:
            raise DataError(
                f"The variable '{name}' cannot be read: its metadata say that chunks hold "
                f"{' × '.join(map(str, chunks))} values. Write the store anew."
            )
        return chunks
    each = variable.dtype.itemsize * int(np.prod(variable.shape[1:]))
    return (max(1, UNCHUNKED_BYTES // max(each, 1)), *variable.shape[1:])[: variable.ndim]


def _holder(variable: xr.Variable) -> Any:
    """The object that holds a variable's values; xarray has no public name for it, since `data`
    would read them."""
    return variable._data


def origin_of(variable: xr.DataArray | xr.Variable) -> Origin | None:
    """The origin of a variable; None if it has none, or was changed since."""
    origin: Origin | None = variable.encoding.get(KEY)
    own = variable.variable if isinstance(variable, xr.DataArray) else variable
    return origin if origin is not None and _holder(own) is origin.values else None


def token_of(variable: xr.Variable) -> str:
    """Digest of what a variable holds: of its place, or of its computation, or of its values."""
    origin = origin_of(variable)
    if origin is None:
        return str(dask.base.tokenize(_holder(variable)))
    place = (str(origin.store), origin.path, origin.changed, *map(str, origin.dims), *origin.first)
    return str(dask.base.tokenize(place, variable.shape, str(variable.dtype)))


def follow(source: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.Dataset:
    """`change(source)`, with the origins of its variables.

    change: may cut out, rename and describe variables. Those that it computes, which it does
    through `as_dask`, have no origin.
    """
    positions = {dim: f"position {i} of {KEY}" for i, dim in enumerate(source.dims)}
    tracked = {name: (dim, np.arange(source.sizes[dim])) for dim, name in positions.items()}
    changed = change(source.assign_coords(tracked))
    kept = {
        dim: _Kept.of(changed[name].variable) for dim, name in positions.items() if name in changed
    }
    changed = changed.drop_vars(tracked, errors="ignore")
    for variable in changed.variables.values():
        origin = variable.encoding.pop(KEY, None)
        if origin is not None and _is_lazy(variable):
            cut = _cut(origin, kept, _holder(variable))
            variable.encoding |= {} if cut is None else {KEY: cut}
    return changed


@dataclass(frozen=True)
class _Kept:
    """Positions of a dimension that are left."""

    dim: Hashable | None
    """The dimension's new name; None where one entry was chosen."""
    first: int | None
    """The first position; None where they are no range of neighbours."""

    @classmethod
    def of(cls, positions: xr.Variable) -> "_Kept":
        values = np.atleast_1d(positions.values)
        range_of_neighbours = values.size > 0 and not np.any(np.diff(values) != 1)
        return cls(
            positions.dims[0] if positions.dims else None,
            int(values[0]) if range_of_neighbours else None,
        )


def _cut(origin: Origin, kept: Mapping[Hashable, _Kept], values: Any) -> Origin | None:
    """The origin of a part; None where it is no range of neighbours."""
    dims, first = list(origin.dims), list(origin.first)
    for axis, dim in enumerate(origin.dims):
        if dim is None:
            continue
        if dim not in kept:  # its entries were combined
            return None
        start = kept[dim].first
        if start is None:
            return None
        dims[axis] = kept[dim].dim
        first[axis] += start
    return replace(origin, dims=tuple(dims), first=tuple(first), values=values)


@dataclass(frozen=True)
class AxisChunks:
    """Chunks of a variable along one of its dimensions, as they are stored or computed."""

    length: int
    """Points of the variable."""
    size: int
    """Points of a chunk."""
    first: int = 0
    """Position in the store of the variable's first point."""
    edges: NDArray[np.int64] | None = None
    """Ends of chunks of several sizes, which Dask computes."""

    def holding(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each position, the number of the chunk that holds it."""
        if self.edges is not None:
            return np.searchsorted(self.edges, positions, side="right")
        return np.asarray((positions + self.first) // self.size)

    def ends(self, chunks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first point of each of some chunks, and the first one after it."""
        if self.edges is not None:
            return np.concatenate([[0], self.edges])[chunks], self.edges[chunks]
        starts = chunks * self.size - self.first
        return starts.clip(0), (starts + self.size).clip(max=self.length)

    def points(self, chunks: NDArray[np.int64]) -> int:
        """Number of points in some chunks."""
        starts, stops = self.ends(chunks)
        return int((stops - starts).sum())

    @property
    def layout(self) -> tuple[int, int, bytes]:
        """A key that is the same for equal chunks."""
        return self.size, self.first, b"" if self.edges is None else self.edges.tobytes()


def chunks_along(variable: xr.Variable, dim: Hashable) -> AxisChunks:
    """The chunks of a variable along one dimension."""
    length = variable.sizes[dim]
    if variable.chunks is not None:
        sizes = variable.chunksizes[dim]
        return AxisChunks(length, max(sizes), edges=np.cumsum(sizes))
    origin: Origin | None = variable.encoding.get(KEY)
    if origin is None or dim not in origin.dims:
        stored = dict(zip(variable.dims, _stored_chunks(variable), strict=True))
        return AxisChunks(length, max(1, stored[dim]))
    axis = origin.dims.index(dim)
    return AxisChunks(length, max(1, origin.chunks[axis]), origin.first[axis])


def as_dask(source: xr.Dataset) -> xr.Dataset:
    """The same with Dask arrays in the chunks of the store, so that it can be computed with."""
    return source.assign(
        {
            name: variable.chunk(_sizes(variable), name=f"{name}-{token_of(variable)}")
            for name, variable in source.variables.items()
            if _is_lazy(variable)
        }
    )


def _is_lazy(variable: xr.Variable) -> bool:
    """Whether values have not been read, and are no computation of Dask's either."""
    held = _holder(variable)
    return not isinstance(variable, xr.IndexVariable) and not isinstance(
        held, np.ndarray | da.Array
    )


def _sizes(variable: xr.Variable) -> dict[Hashable, tuple[int, ...]]:
    return {
        dim: run_lengths(chunks_along(variable, dim).holding(np.arange(variable.sizes[dim])))
        for dim in variable.dims
    }


def run_lengths(numbers: NDArray[np.int64]) -> tuple[int, ...]:
    """How many equal neighbours follow one another."""
    edges = np.flatnonzero(np.diff(numbers)) + 1
    return tuple(np.diff([0, *edges.tolist(), numbers.size]).tolist())
