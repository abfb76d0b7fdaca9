"""Parts of a cube that are decoded straight from the chunks of a Zarr store."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import ChannelRecipe, Field
from climlstm.data.sources.origin import AxisChunks
from climlstm.data.store.memory import Scratch
from climlstm.data.store.parts import LazyPart, Part, PlannedPart, Steps
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored import Fetched, Span, Spans, StoredArray, find_stored

UNIT_BYTES = 1 << 21
"""Bytes that one task decodes, about: small enough for the processor's cache, large enough for
Dask."""

MAX_SHARD_BYTES = 1 << 23
"""Size up to which a shard is decoded as a whole by one task."""


def make_parts(
    cube: CubePlan | xr.Dataset, channels: Sequence[str], cache: Cache | None = None
) -> tuple[Part, ...]:
    """The parts of a cube: straight from the Zarr store where that is possible, else by Dask.

    cube: its plan; a dataset without one is computed by Dask.
    cache: for objects of a remote store.
    """
    if not isinstance(cube, CubePlan):
        return tuple(LazyPart.of(cube, channels, (i,)) for i in range(len(channels)))
    recipes = {recipe.channel.name: recipe for recipe in cube.recipes}
    scratch = Scratch()
    if cube.others:
        own = [i for i, name in enumerate(channels) if name in recipes]
        rest = [i for i in range(len(channels)) if i not in own]
        parts = make_parts(replace(cube, others={}), [channels[i] for i in own], cache)
        moved = [replace(p, channels=tuple(own[i] for i in p.channels)) for p in parts]
        return (*moved, *(LazyPart.of(cube.cube, channels, (i,)) for i in rest))
    return tuple(
        _stored_part(cube, [recipes[channels[i]] for i in together], together, scratch, cache)
        or PlannedPart.of(cube, [recipes[channels[i]] for i in together], together)
        for together in _sharing_variables([recipes[name] for name in channels])
    )


def _sharing_variables(recipes: Sequence[ChannelRecipe]) -> list[tuple[int, ...]]:
    """Positions of recipes, put together such that no variable is needed in two places."""
    found: list[tuple[set[str], list[int]]] = []
    for position, recipe in enumerate(recipes):
        variables, members = {f.variable for f in recipe.fields}, [position]
        for other in [each for each in found if each[0] & variables]:
            found.remove(other)
            variables |= other[0]
            members += other[1]
        found.append((variables, members))
    return sorted(tuple(sorted(members)) for _, members in found)


@dataclass(frozen=True, eq=False)
class StoredVariable:
    """A variable of the source in its store, and which entries of it are read."""

    stored: StoredArray
    time: int
    """Dimension of time in the store."""
    spans: tuple[tuple[Span, ...], ...]
    """Ranges to read on each dimension of the store; time is filled in for each unit."""
    order: tuple[int, ...]
    """Dimensions of the store as (others, time, latitude, longitude)."""

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Entries that are decoded together on each dimension: inner chunks of shards."""
        return tuple(self.stored.array.chunks)

    @property
    def chunk(self) -> int:
        """Times in a chunk."""
        return self.chunks[self.time]

    @property
    def shard(self) -> int:
        """Times in a shard; in a chunk, without shards."""
        return (self.stored.array.shards or self.chunks)[self.time]

    @property
    def origin(self) -> int:
        """Position of the source's first time in the store."""
        return self.stored.origin[self.time]

    @property
    def step_bytes(self) -> int:
        """Stored bytes, decoded, of one time."""
        sizes = [sum(stop - start for start, stop in parts) for parts in self.spans]
        return self.stored.array.dtype.itemsize * math.prod(sizes)

    def decoded(self, wanted: Steps) -> tuple[int, int]:
        """Bytes and number of the chunks that hold times of the source."""
        touched = [
            len({at for start, stop in parts for at in range(start // size, -(-stop // size))})
            for parts, size in zip(self.spans, self.chunks, strict=True)
        ]
        touched[self.time] = np.unique((wanted + self.origin) // self.chunk).size
        size = self.stored.array.dtype.itemsize * math.prod(self.chunks)
        return math.prod(touched) * size, math.prod(touched)

    def spans_of(self, wanted: Steps) -> Spans:
        """Ranges to read for times of the source: whole chunks.

        Part of a chunk costs more than the whole, which is decoded straight into its place.
        """
        first, last = (int(wanted[i] + self.origin) // self.chunk for i in (0, -1))
        touched = [(first, last)]
        if last - first > 1:
            chunks = np.unique((wanted + self.origin) // self.chunk)
            pieces = np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1)
            touched = [(int(piece[0]), int(piece[-1])) for piece in pieces]
        end = self.stored.array.shape[self.time]
        runs = [(a * self.chunk, min((b + 1) * self.chunk, end)) for a, b in touched]
        return (*self.spans[: self.time], runs, *self.spans[self.time + 1 :])

    def read(self, wanted: Steps, scratch: Scratch, slot: int) -> NDArray:
        """Stored values (others..., time, row_range, column_range) at times of the source."""
        spans = self.spans_of(wanted)
        shape = tuple(sum(stop - start for start, stop in parts) for parts in spans)
        out = scratch.take(slot, shape, self.stored.array.dtype)
        self.stored.reader.read(spans, out)
        values = out.transpose(self.order)
        if shape[self.time] > wanted.size:
            values = values[..., _within(spans[self.time], wanted + self.origin), :, :]
        return values if self.stored.unpack is None else self.stored.unpack(values)

    def place(self, positions: Sequence[int]) -> tuple[int, ...]:
        """Where an entry of the other dimensions lies in what is read."""
        return tuple(
            [start for start, _ in self.spans[axis]].index(position)
            for axis, position in zip(self.order[:-3], positions, strict=True)
        )


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


@dataclass(frozen=True, eq=False)
class StoredPart(Part):
    """Channels decoded from the chunks of a Zarr store into memory that is used again."""

    plan: CubePlan
    recipes: tuple[ChannelRecipe, ...]
    variables: tuple[StoredVariable, ...]
    fields: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]
    """For each field of each recipe: which variable, and where on its other dimensions."""
    scratch: Scratch

    @property
    def how(self) -> str:
        readers = sorted({one.stored.reader.name for one in self.variables})
        return f"chunks decoded by {' and '.join(readers)}"

    @property
    def is_remote(self) -> bool:
        return any(one.stored.is_remote for one in self.variables)

    def decoded(self, steps: Steps) -> tuple[int, int]:
        each = [one.decoded(self.plan.times.indices[steps]) for one in self.variables]
        return sum(size for size, _ in each), sum(count for _, count in each)

    def fetch(self, steps: Steps) -> list[Fetched]:
        if not self.is_remote:
            return []
        wanted = self.plan.times.indices[steps]
        fetched = [one.stored.reader.fetch(one.spans_of(wanted)) for one in self.variables]
        return [each for each in fetched if each is not None]

    def read(self, steps: Steps) -> list[NDArray]:
        wanted = self.plan.times.indices[steps]
        stored = [one.read(wanted, self.scratch, i) for i, one in enumerate(self.variables)]
        times = self.plan.times.values[steps]
        return [
            recipe.read([stored[which][place] for which, place in fields], times)
            for recipe, fields in zip(self.recipes, self.fields, strict=True)
        ]

    def close(self) -> None:
        for one in self.variables:
            one.stored.reader.close()


def _stored_part(
    plan: CubePlan,
    recipes: Sequence[ChannelRecipe],
    channels: tuple[int, ...],
    scratch: Scratch,
    cache: Cache | None,
) -> StoredPart | None:
    """The part of some channels; None where a variable is no plain part of a Zarr array with time.

    cache: for objects of a remote store.
    """
    fields = [field for recipe in recipes for field in recipe.fields]
    names = list(dict.fromkeys(field.variable for field in fields))
    variables = []
    for name in names:
        positions = [dict(field.positions) for field in fields if field.variable == name]
        variable = _find_variable(plan, name, positions, cache)
        if variable is None:
            return None
        variables.append(variable)
    chunk = max(one.chunk for one in variables)
    shard = max(one.shard for one in variables)
    unit = _unit_steps(chunk, shard, sum(one.step_bytes for one in variables))
    length, first = plan.source.sizes[plan.axes.dims[0]], variables[0].origin

    def place(field: Field) -> tuple[int, tuple[int, ...]]:
        which = names.index(field.variable)
        return which, variables[which].place(_positions(plan, field, variables[which]))

    return StoredPart(
        channels=channels,
        names=tuple(recipe.channel.name for recipe in recipes),
        places=plan.times.indices,
        chunks=AxisChunks(length, chunk, first),
        units=AxisChunks(length, unit, first),
        plan=plan,
        recipes=tuple(recipes),
        variables=tuple(variables),
        fields=tuple(tuple(map(place, recipe.fields)) for recipe in recipes),
        scratch=scratch,
    )


def _unit_steps(chunk: int, shard: int, step_bytes: int) -> int:
    """Times in a unit: whole shards, unless they are large, which takes less than half of the time
    that their parts take; else whole chunks that divide a shard."""
    wanted = max(1, UNIT_BYTES // (chunk * step_bytes)) * chunk
    if shard * step_bytes <= MAX_SHARD_BYTES:
        return max(wanted // shard, 1) * shard
    return max((n for n in range(chunk, wanted + 1, chunk) if shard % n == 0), default=chunk)


def _find_variable(
    plan: CubePlan, name: str, positions: Sequence[dict[Hashable, int]], cache: Cache | None
) -> StoredVariable | None:
    """positions: of the entries that are read, on dimensions besides time and place."""
    variable = plan.source[name]
    time, latitude, longitude = plan.axes.dims
    if not {time, latitude, longitude} <= set(variable.dims):
        return None
    stored = find_stored(variable, cache)
    if stored is None:
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
    return StoredVariable(stored, axes[time], tuple(spans), (*others, *last))


def _positions(plan: CubePlan, field: Field, one: StoredVariable) -> list[int]:
    """Positions of a field in the store, on dimensions besides time and place."""
    dims = dict(zip(one.stored.axes, plan.source[field.variable].dims, strict=True))
    chosen = dict(field.positions)
    return [chosen.get(dims.get(axis), 0) + one.stored.origin[axis] for axis in one.order[:-3]]
