"""Parts of a cube: channels that are read together, because they lie in the same chunks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import ChannelRecipe
from climlstm.data.sources.origin import AxisChunks
from climlstm.data.store.stored import Fetched

Steps = NDArray[np.int64]
"""Positions on the time axis of a cube, or of a source."""


def join_ranges(first: Steps, last: Steps) -> Steps:
    """The numbers of all half-open ranges, one after the other."""
    sizes = last - first
    return np.arange(sizes.sum()) + np.repeat(first - np.cumsum(sizes) + sizes, sizes)


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """Some channels of a cube, and the way to read their steps."""

    channels: tuple[int, ...]
    """Positions among the channels of the cube."""
    names: tuple[str, ...]
    """Names of the channels."""
    places: Steps
    """For each step of the cube, its position among the stored ones; increasing."""
    chunks: AxisChunks
    """Chunks of storage along the places."""
    units: AxisChunks
    """Ranges that one task reads: whole chunks."""

    @property
    def how(self) -> str:
        """Name of the reader, for the log."""
        return "computed by Dask"

    @property
    def is_remote(self) -> bool:
        """Whether `fetch` has something to fetch."""
        return False

    def units_of(self, steps: Steps) -> Steps:
        """The number of the unit that holds each of some steps."""
        return self.units.holding(self.places[steps])

    def decoded_with(self, steps: Steps) -> Steps:
        """All steps of the cube in the chunks of some steps, increasing."""
        starts, stops = self.chunks.ends(np.unique(self.chunks.holding(self.places[steps])))
        first, last = np.searchsorted(self.places, starts), np.searchsorted(self.places, stops)
        return join_ranges(first, last)

    @abstractmethod
    def decoded(self, steps: Steps) -> tuple[int, int]:
        """Bytes and number of the chunks that have to be decoded for some steps."""

    def fetch(self, steps: Steps) -> list[Fetched]:
        """Begin to fetch what `read` needs from a remote store; wait for it, then release it."""
        return []

    @abstractmethod
    def read(self, steps: Steps) -> list[NDArray]:
        """Values (step, H, W) in our units for each channel; steps: increasing, of one unit.

        They hold until the same thread reads again.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing to delete)
        """Delete what was fetched; nothing can be read afterwards."""


@dataclass(frozen=True, eq=False)
class LazyPart(Part):
    """Channels computed from the cube's own Dask arrays."""

    arrays: tuple[Any, ...]

    @classmethod
    def of(
        cls, cube: xr.Dataset, channels: Sequence[str], positions: tuple[int, ...]
    ) -> "LazyPart":
        """The part of some channels of a cube."""
        names = tuple(channels[i] for i in positions)
        chosen = [cube[name].transpose("time", ...) for name in names]
        arrays = tuple(a.data if a.chunks else a.chunk().data for a in chosen)
        sizes = arrays[0].chunks[0]
        chunks = AxisChunks(sum(sizes), max(sizes), edges=np.cumsum(sizes))
        return cls(positions, names, np.arange(sum(sizes)), chunks, chunks, arrays)

    def decoded(self, steps: Steps) -> tuple[int, int]:
        wanted = np.unique(self.units_of(steps))
        step_bytes = sum(4 * int(np.prod(array.shape[1:])) for array in self.arrays)
        return self.units.points(wanted) * step_bytes, wanted.size * len(self.arrays)

    def read(self, steps: Steps) -> list[NDArray]:
        first, last = steps[0], steps[-1] + 1
        values = dask.compute(*[a[first:last] for a in self.arrays], scheduler=dask.get)
        return [value[steps - first] for value in values]


@dataclass(frozen=True, eq=False)
class PlannedPart(Part):
    """Channels read through xarray, for what is no plain part of a Zarr store."""

    plan: CubePlan
    recipes: tuple[ChannelRecipe, ...]

    @classmethod
    def of(
        cls, plan: CubePlan, recipes: Sequence[ChannelRecipe], positions: tuple[int, ...]
    ) -> "PlannedPart":
        """The part of some channels of a cube."""
        chunks = plan.chunks(recipes[0])
        names = tuple(recipe.channel.name for recipe in recipes)
        return cls(positions, names, plan.times.indices, chunks, chunks, plan, tuple(recipes))

    @property
    def how(self) -> str:
        return "read by xarray"

    def decoded(self, steps: Steps) -> tuple[int, int]:
        wanted = np.unique(self.units_of(steps))
        plane = 4 * math.prod(self.plan.grid.shape)
        number = len(self.recipes)
        return self.units.points(wanted) * plane * number, wanted.size * number

    def read(self, steps: Steps) -> list[NDArray]:
        whole = slice(int(steps[0]), int(steps[-1]) + 1)
        return [values[steps - steps[0]] for values in self.plan.read(self.recipes, whole)]
