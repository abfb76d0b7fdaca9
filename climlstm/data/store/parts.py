"""Parts of a cube: channels that are read together, because they lie in the same chunks."""

import logging
import math
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import Field, Recipe
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored import Fetched, Span, StoredArray, find_stored

logger = logging.getLogger(__name__)

Steps = NDArray[np.int64]

UNIT_BYTES = 1 << 21
"""What one task decodes, about; small enough for the processor's cache, large enough for Dask."""


LARGEST_SHARD_BYTES = 1 << 23
"""Of the shards that one task decodes as a whole."""


class Part(Protocol):
    """Some channels of a cube, and how their steps are read."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Positions among the channels of the cube."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channels."""
        ...

    @property
    def units(self) -> Steps:
        """For each step of the cube, the unit that one task reads."""
        ...

    @property
    def chunks(self) -> Steps:
        """For each step of the cube, the chunk of storage that holds it; units are whole chunks."""
        ...

    @property
    def how(self) -> str:
        """What reads them, for the log."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether `fetch` has something to fetch."""
        ...

    def decoded(self, steps: Steps) -> tuple[int, int]:
        """Bytes that have to be decoded for some steps, in whole chunks, and how many chunks."""
        ...

    def fetch(self, steps: Steps) -> list[Fetched]:
        """Have fetched what `read` needs from a remote store; to be waited for and released."""
        ...

    def read(self, steps: Steps) -> list[NDArray]:
        """Values (step, H, W) in our units for each channel; steps: increasing, of one unit.

        They hold until the same thread reads again.
        """
        ...

    def close(self) -> None:
        """Delete what was fetched; nothing can be read afterwards."""
        ...


def make_parts(
    cube: CubePlan | xr.Dataset, channels: Sequence[str], cache: Cache | None = None
) -> tuple[Part, ...]:
    """The parts of a cube: straight from the Zarr store where that is possible, else by Dask.

    cube: its plan; of a dataset that has none, all is computed by Dask.
    cache: for objects of a remote store.
    """
    if not isinstance(cube, CubePlan):
        return tuple(_lazy_part(cube, channels, (i,)) for i in range(len(channels)))
    recipes = {recipe.channel.name: recipe for recipe in cube.recipes}
    parts: list[Part] = []
    scratch = Scratch()
    for group in _together([recipes[name] for name in channels]):
        part = _stored_part(cube, [recipes[channels[i]] for i in group], group, scratch, cache)
        parts.append(part if part is not None else _lazy_part(cube.cube, channels, group))
    return tuple(parts)


def _together(recipes: Sequence[Recipe]) -> list[tuple[int, ...]]:
    """Positions of recipes, grouped such that no variable is needed by two groups."""
    groups: list[tuple[set[str], list[int]]] = []
    for position, recipe in enumerate(recipes):
        variables, members = {f.variable for f in recipe.fields}, [position]
        for other in [group for group in groups if group[0] & variables]:
            groups.remove(other)
            variables |= other[0]
            members += other[1]
        groups.append((variables, members))
    return sorted(tuple(sorted(members)) for _, members in groups)


@dataclass(frozen=True, eq=False)
class LazyPart:
    """Channels computed from the cube's own Dask arrays."""

    channels: tuple[int, ...]
    units: Steps
    arrays: tuple[Any, ...]
    names: tuple[str, ...]
    how: str = "computed by Dask"

    @property
    def chunks(self) -> Steps:
        return self.units

    @property
    def is_remote(self) -> bool:
        return False

    def decoded(self, steps: Steps) -> tuple[int, int]:
        touched = np.isin(self.units, self.units[steps]).sum()
        chunks = np.unique(self.units[steps]).size * len(self.arrays)
        return int(touched) * sum(4 * int(np.prod(a.shape[1:])) for a in self.arrays), chunks

    def fetch(self, steps: Steps) -> list[Fetched]:
        return []

    def read(self, steps: Steps) -> list[NDArray]:
        first, last = steps[0], steps[-1] + 1
        values = dask.compute(*[a[first:last] for a in self.arrays], scheduler="synchronous")
        return [value[steps - first] for value in values]

    def close(self) -> None:
        pass


def _lazy_part(cube: xr.Dataset, channels: Sequence[str], group: tuple[int, ...]) -> LazyPart:
    dims = ("time", "latitude", "longitude")
    chosen = [cube[channels[i]].transpose(*dims) for i in group]
    arrays = tuple(a.data if a.chunks else a.chunk().data for a in chosen)
    sizes = arrays[0].chunks[0]
    names = tuple(channels[i] for i in group)
    return LazyPart(group, np.repeat(np.arange(len(sizes)), sizes), arrays, names)


@dataclass(frozen=True, eq=False)
class Input:
    """A variable of the source as its store holds it, and what of it is read."""

    stored: StoredArray
    time: int
    """The dimension of time in the store."""
    spans: tuple[tuple[Span, ...], ...]
    """What is read on each dimension of the store; time is filled in for each unit."""
    order: tuple[int, ...]
    """Dimensions of the store as (others, time, latitude, longitude)."""

    @property
    def chunk(self) -> int:
        """Times in a chunk."""
        return self.stored.chunks[self.time]

    @property
    def shard(self) -> int:
        """Times in a shard; in a chunk, without."""
        return (self.stored.array.shards or self.stored.chunks)[self.time]

    @property
    def origin(self) -> int:
        """The source's first time in the store."""
        return self.stored.origin[self.time]

    def decoded(self, wanted: Steps) -> tuple[int, int]:
        """Bytes and number of the chunks that hold times of the source."""
        touched = [
            len({at for start, stop in parts for at in range(start // size, -(-stop // size))})
            for parts, size in zip(self.spans, self.stored.chunks, strict=True)
        ]
        touched[self.time] = np.unique((wanted + self.origin) // self.chunk).size
        size = self.stored.array.dtype.itemsize * math.prod(self.stored.chunks)
        return math.prod(touched) * size, math.prod(touched)

    def runs(self, wanted: Steps) -> list[Span]:
        """Ranges of the store's times that hold times of the source: whole chunks of them.

        Part of a chunk costs more than the whole, which is decoded straight into its place.
        """
        first, last = (int(wanted[i] + self.origin) // self.chunk for i in (0, -1))
        touched = [(first, last)]
        if last - first > 1:
            chunks = np.unique((wanted + self.origin) // self.chunk)
            pieces = np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1)
            touched = [(int(piece[0]), int(piece[-1])) for piece in pieces]
        end = self.stored.array.shape[self.time]
        return [(a * self.chunk, min((b + 1) * self.chunk, end)) for a, b in touched]

    def fetch(self, wanted: Steps) -> Fetched | None:
        runs = self.runs(wanted)
        return self.stored.fetch((*self.spans[: self.time], runs, *self.spans[self.time + 1 :]))

    def read(self, wanted: Steps, scratch: "Scratch", slot: int) -> NDArray:
        """Stored values (others..., time, row_range, column_range) at times of the source."""
        runs = self.runs(wanted)
        spans = (*self.spans[: self.time], runs, *self.spans[self.time + 1 :])
        shape = tuple(sum(stop - start for start, stop in parts) for parts in spans)
        out = scratch.take(slot, shape, self.stored.array.dtype)
        self.stored.read(spans, out)
        values = out.transpose(self.order)
        if shape[self.time] > wanted.size:
            values = values[..., _within(runs, wanted + self.origin), :, :]
        for function in self.stored.functions:
            values = function(values)
        return values


@dataclass(frozen=True, eq=False)
class StoredPart:
    """Channels decoded from the chunks of a Zarr store into memory that is used again."""

    channels: tuple[int, ...]
    units: Steps
    chunks: Steps
    how: str
    plan: CubePlan
    recipes: tuple[Recipe, ...]
    inputs: tuple[Input, ...]
    fields: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]
    """For each field of each recipe: which input, and where on its other dimensions."""
    scratch: "Scratch"

    @property
    def is_remote(self) -> bool:
        return any(one.stored.is_remote for one in self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(recipe.channel.name for recipe in self.recipes)

    def decoded(self, steps: Steps) -> tuple[int, int]:
        each = [one.decoded(self.plan.times.indices[steps]) for one in self.inputs]
        return sum(size for size, _ in each), sum(count for _, count in each)

    def fetch(self, steps: Steps) -> list[Fetched]:
        if not self.is_remote:
            return []
        wanted = self.plan.times.indices[steps]
        fetched = [one.fetch(wanted) for one in self.inputs]
        return [each for each in fetched if each is not None]

    def read(self, steps: Steps) -> list[NDArray]:
        wanted = self.plan.times.indices[steps]
        stored = [one.read(wanted, self.scratch, i) for i, one in enumerate(self.inputs)]
        times = self.plan.times.values[steps]
        return [
            recipe.read([stored[which][place] for which, place in fields], times)
            for recipe, fields in zip(self.recipes, self.fields, strict=True)
        ]

    def close(self) -> None:
        for one in self.inputs:
            one.stored.decode.close()


class Scratch(threading.local):
    """Memory of each thread that every read of its overwrites, in as many slots as one needs."""

    def __init__(self) -> None:
        self._slots: dict[int, NDArray[np.uint8]] = {}

    def take(self, slot: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        """An array whose values are undefined."""
        size = int(np.prod(shape)) * dtype.itemsize
        if slot not in self._slots or self._slots[slot].size < size:
            self._slots[slot] = np.empty(size, dtype="uint8")
        return self._slots[slot][:size].view(dtype).reshape(shape)


def _stored_part(
    plan: CubePlan,
    recipes: Sequence[Recipe],
    group: tuple[int, ...],
    scratch: Scratch,
    cache: Cache | None,
) -> StoredPart | None:
    """None where a variable is not a plain part of a Zarr array with time."""
    fields = [f for recipe in recipes for f in recipe.fields]
    names = list(dict.fromkeys(f.variable for f in fields))
    found = [
        _find_input(plan, name, [dict(f.positions) for f in fields if f.variable == name], cache)
        for name in names
    ]
    inputs = tuple(one for one in found if one is not None)
    if len(inputs) < len(names):
        return None
    chunk = max(one.chunk for one in inputs)
    shard = max(one.shard for one in inputs)
    at = plan.times.indices + inputs[0].origin
    decoders = sorted({one.stored.decoder for one in inputs})
    return StoredPart(
        channels=group,
        units=at // _unit_steps(chunk, shard, sum(map(_step_bytes, inputs))),
        chunks=at // chunk,
        how=f"chunks decoded by {' and '.join(decoders)}",
        plan=plan,
        recipes=tuple(recipes),
        inputs=inputs,
        fields=tuple(
            tuple((names.index(f.variable), _place(plan, inputs, names, f)) for f in r.fields)
            for r in recipes
        ),
        scratch=scratch,
    )


def _unit_steps(chunk: int, shard: int, step_bytes: int) -> int:
    """Times in a unit: whole shards, unless they are large, which takes less than half of the time
    that their parts take; else whole chunks that divide a shard."""
    wanted = max(1, UNIT_BYTES // (chunk * step_bytes)) * chunk
    if shard * step_bytes <= LARGEST_SHARD_BYTES:
        return max(wanted // shard, 1) * shard
    return max((n for n in range(chunk, wanted + 1, chunk) if shard % n == 0), default=chunk)


def _find_input(
    plan: CubePlan, name: str, positions: Sequence[dict[Hashable, int]], cache: Cache | None
) -> Input | None:
    variable = plan.source[name]
    stored = find_stored(variable, cache)
    time, latitude, longitude = plan.axes.dims
    if stored is None or not {time, latitude, longitude} <= set(variable.dims):
        return None
    axes = dict(zip(variable.dims, stored.axes, strict=True))
    ranges = {
        latitude: plan.cells.row_range,
        longitude: plan.cells.column_range,
        time: slice(0, 1),
    }
    spans: list[tuple[Span, ...]] = [((first, first + 1),) for first in stored.origin]
    for dim, axis in axes.items():
        first = stored.origin[axis]
        if dim in ranges:
            spans[axis] = ((ranges[dim].start + first, ranges[dim].stop + first),)
        else:
            wanted = sorted({each.get(dim, 0) + first for each in positions})
            spans[axis] = tuple((at, at + 1) for at in wanted)
    last = (axes[time], axes[latitude], axes[longitude])
    others = tuple(axis for axis in range(stored.array.ndim) if axis not in last)
    return Input(stored, axes[time], tuple(spans), (*others, *last))


def _place(
    plan: CubePlan, inputs: Sequence[Input], names: Sequence[str], field: Field
) -> tuple[int, ...]:
    """Where a field lies on the other dimensions of what is read of its variable."""
    one = inputs[names.index(field.variable)]
    dims = {
        axis: dim
        for dim, axis in zip(plan.source[field.variable].dims, one.stored.axes, strict=True)
    }
    chosen = dict(field.positions)
    positions = [chosen.get(dims.get(axis), 0) + one.stored.origin[axis] for axis in one.order[:-3]]
    return tuple(
        [start for start, _ in one.spans[axis]].index(position)
        for axis, position in zip(one.order[:-3], positions, strict=True)
    )


def _step_bytes(one: Input) -> int:
    """Stored bytes, decoded, of one time."""
    sizes = [sum(stop - start for start, stop in parts) for parts in one.spans]
    return one.stored.array.dtype.itemsize * int(np.prod(sizes))


def _within(runs: Sequence[Span], wanted: Steps) -> slice | Steps:
    """Where times lie in what was read of the runs; a slice, which copies nothing, if possible."""
    if len(runs) == 1 and wanted[-1] - wanted[0] == wanted.size - 1:
        first = int(wanted[0]) - runs[0][0]
        return slice(first, first + wanted.size)
    starts = np.array([start for start, _ in runs])
    sizes = np.array([stop - start for start, stop in runs])
    run = np.searchsorted(starts, wanted, side="right") - 1
    at = wanted - starts[run] + (np.cumsum(sizes) - sizes)[run]
    steps = np.unique(np.diff(at))
    if steps.size > 1:
        return at
    return slice(int(at[0]), int(at[-1]) + 1, int(steps[0]) if steps.size else 1)
