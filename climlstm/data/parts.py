"""Parts of a cube: channels that are read together, because they lie in the same chunks."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.cube import CubePlan
from climlstm.data.recipes import Recipe
from climlstm.data.stored import Span, StoredArray, find_stored

logger = logging.getLogger(__name__)

Steps = NDArray[np.int64]

UNIT_BYTES = 1 << 21
"""What one task decodes, about; small enough for the processor's cache, large enough for Dask."""


class Part(Protocol):
    """Some channels of a cube, and how their steps are read."""

    channels: tuple[int, ...]
    """Positions among the channels of the cube."""
    units: Steps
    """For each step of the cube, the unit that one task reads."""
    chunk_steps: int
    """Steps of the cube in one chunk."""
    how: str
    """What reads them, for the log."""

    def read(self, steps: Steps) -> list[NDArray]:
        """Values (step, H, W) in our units for each channel; steps: increasing, of one unit.

        They hold until the same thread reads again.
        """
        ...


def make_parts(
    cube: xr.Dataset, channels: Sequence[str], plan: CubePlan | None
) -> tuple[Part, ...]:
    """The parts of a cube: straight from the Zarr store where that is possible, else by Dask."""
    if plan is None:
        return tuple(_lazy_part(cube, channels, (i,)) for i in range(len(channels)))
    recipes = {recipe.channel.name: recipe for recipe in plan.recipes}
    parts: list[Part] = []
    scratch = Scratch()
    for group in _together([recipes[name] for name in channels]):
        part = _stored_part(plan, [recipes[channels[i]] for i in group], group, scratch)
        parts.append(part if part is not None else _lazy_part(cube, channels, group))
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
    chunk_steps: int
    arrays: tuple[Any, ...]
    how: str = "computed by Dask"

    def read(self, steps: Steps) -> list[NDArray]:
        first, last = steps[0], steps[-1] + 1
        values = dask.compute(*[a[first:last] for a in self.arrays], scheduler="synchronous")
        return [value[steps - first] for value in values]


def _lazy_part(cube: xr.Dataset, channels: Sequence[str], group: tuple[int, ...]) -> LazyPart:
    dims = ("time", "latitude", "longitude")
    chosen = [cube[channels[i]].transpose(*dims) for i in group]
    arrays = tuple(a.data if a.chunks else a.chunk().data for a in chosen)
    sizes = arrays[0].chunks[0]
    return LazyPart(group, np.repeat(np.arange(len(sizes)), sizes), max(sizes), arrays)


@dataclass(frozen=True, eq=False)
class _Input:
    """A variable of the source as its store holds it, and what of it is read."""

    stored: StoredArray
    time: int
    """The dimension of time in the store."""
    spans: tuple[tuple[Span, ...], ...]
    """What is read on each dimension of the store; time is filled in for each unit."""
    order: tuple[int, ...]
    """Dimensions of the store as (others, time, latitude, longitude)."""


@dataclass(frozen=True, eq=False)
class StoredPart:
    """Channels decoded from the chunks of a Zarr store into memory that is used again."""

    channels: tuple[int, ...]
    units: Steps
    chunk_steps: int
    how: str
    plan: CubePlan
    recipes: tuple[Recipe, ...]
    inputs: dict[str, _Input]
    scratch: "Scratch"

    def read(self, steps: Steps) -> list[NDArray]:
        wanted = self.plan.times.indices[steps]
        stored = {
            name: self._decode(slot, one, wanted)
            for slot, (name, one) in enumerate(self.inputs.items())
        }
        times = self.plan.times.values[steps]
        values = []
        for recipe in self.recipes:
            fields = [
                stored[f.variable][self._other(f.variable, f.positions)] for f in recipe.fields
            ]
            values.append(recipe.read(fields, times))
        return values

    def _decode(self, slot: int, one: _Input, wanted: Steps) -> NDArray:
        """Stored values (others..., time, row_range, column_range) of the source's times wanted."""
        size = one.stored.chunks[one.time]
        cuts = np.flatnonzero(np.diff(wanted // size) > 1) + 1
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(wanted, cuts)]
        spans = list(one.spans)
        spans[one.time] = tuple(
            (start + one.stored.origin[one.time], stop + one.stored.origin[one.time])
            for start, stop in runs
        )
        shape = tuple(sum(stop - start for start, stop in parts) for parts in spans)
        out = self.scratch.take(slot, shape, one.stored.array.dtype)
        one.stored.read(spans, out)
        values = out.transpose(one.order)
        for function in one.stored.functions:
            values = function(values)
        before = np.concatenate([[0], np.cumsum([stop - start for start, stop in runs])[:-1]])
        run_of = np.searchsorted([start for start, _ in runs], wanted, side="right") - 1
        at = wanted - np.array([start for start, _ in runs])[run_of] + before[run_of]
        return values[..., _slice(at), :, :]

    def _other(self, name: str, positions: Sequence[tuple[Any, int]]) -> tuple[int, ...]:
        """Where a field lies on the other dimensions of what `_decode` gives."""
        one = self.inputs[name]
        return tuple(
            _position(one.spans[axis], position)
            for axis, position in zip(
                one.order[:-3], _other_positions(self.plan, name, one, positions), strict=True
            )
        )


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
    plan: CubePlan, recipes: Sequence[Recipe], group: tuple[int, ...], scratch: Scratch
) -> StoredPart | None:
    """None where a variable is not a plain part of a Zarr array with time."""
    fields = [f for recipe in recipes for f in recipe.fields]
    inputs: dict[str, _Input] = {}
    for name in dict.fromkeys(f.variable for f in fields):
        one = _find_input(plan, name, [f.positions for f in fields if f.variable == name])
        if one is None:
            return None
        inputs[name] = one
    chunk = max(one.stored.chunks[one.time] for one in inputs.values())
    stored_bytes = sum(
        one.stored.array.dtype.itemsize
        * int(np.prod([sum(b - a for a, b in parts) for parts in one.spans]))
        for one in inputs.values()
    )
    unit = max(1, UNIT_BYTES // (stored_bytes * chunk)) * chunk
    origin = next(iter(inputs.values())).stored.origin[next(iter(inputs.values())).time]
    indices = plan.times.indices
    decoders = sorted({one.stored.decoder for one in inputs.values()})
    counts = np.unique((indices + origin) // chunk, return_counts=True)[1]
    return StoredPart(
        channels=group,
        units=(indices + origin) // unit,
        chunk_steps=int(counts.max()),
        how=f"chunks decoded by {' and '.join(decoders)}",
        plan=plan,
        recipes=tuple(recipes),
        inputs=inputs,
        scratch=scratch,
    )


def _find_input(
    plan: CubePlan, name: str, positions: Sequence[Sequence[tuple[Any, int]]]
) -> _Input | None:
    variable = plan.source[name]
    stored = find_stored(variable)
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
            wanted = sorted({dict(each).get(dim, 0) + first for each in positions})
            spans[axis] = tuple((at, at + 1) for at in wanted)
    last = (axes[time], axes[latitude], axes[longitude])
    others = tuple(axis for axis in range(stored.array.ndim) if axis not in last)
    return _Input(stored, axes[time], tuple(spans), (*others, *last))


def _other_positions(
    plan: CubePlan, name: str, one: _Input, positions: Sequence[tuple[Any, int]]
) -> list[int]:
    """A field's position in the store on each dimension besides time, latitude, longitude."""
    chosen = dict(positions)
    dims = {axis: dim for dim, axis in zip(plan.source[name].dims, one.stored.axes, strict=True)}
    return [chosen.get(dims.get(axis), 0) + one.stored.origin[axis] for axis in one.order[:-3]]


def _position(spans: Sequence[Span], position: int) -> int:
    return [start for start, _ in spans].index(position)


def _slice(positions: Steps) -> slice | Steps:
    """Evenly spaced positions as a slice, which copies nothing."""
    steps = np.unique(np.diff(positions))
    if steps.size == 0:
        return slice(int(positions[0]), int(positions[0]) + 1)
    if steps.size > 1:
        return positions
    return slice(int(positions[0]), int(positions[-1]) + 1, int(steps[0]))
