"""Parts of a cube: channels that are read together, because they lie in the same chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan
from climlstm.data.cube.recipes import Recipe
from climlstm.data.store.memory import Scratch
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored import Fetched
from climlstm.data.store.stored_part import Steps, stored_part


class Part(Protocol):
    """Some channels of a cube, and the way to read their steps."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Positions among the channels of the cube."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels."""
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
        """Name of the reader, for the log."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether `fetch` has something to fetch."""
        ...

    def decoded(self, steps: Steps) -> tuple[int, int]:
        """Bytes and number of the chunks that have to be decoded for some steps."""
        ...

    def fetch(self, steps: Steps) -> list[Fetched]:
        """Begin to fetch what `read` needs from a remote store; wait for it, then release it."""
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

    cube: its plan; a dataset without one is computed by Dask.
    cache: for objects of a remote store.
    """
    if not isinstance(cube, CubePlan):
        return tuple(_lazy_part(cube, channels, (i,)) for i in range(len(channels)))
    recipes = {recipe.channel.name: recipe for recipe in cube.recipes}
    scratch = Scratch()
    return tuple(
        stored_part(cube, [recipes[channels[i]] for i in together], together, scratch, cache)
        or _lazy_part(cube.cube, channels, together)
        for together in _sharing_variables([recipes[name] for name in channels])
    )


def _sharing_variables(recipes: Sequence[Recipe]) -> list[tuple[int, ...]]:
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
class LazyPart:
    """Channels computed from the cube's own Dask arrays."""

    channels: tuple[int, ...]
    names: tuple[str, ...]
    units: Steps
    arrays: tuple[Any, ...]
    how: str = "computed by Dask"
    is_remote: bool = False

    @property
    def chunks(self) -> Steps:
        return self.units

    def decoded(self, steps: Steps) -> tuple[int, int]:
        wanted = np.unique(self.units[steps])
        step_bytes = sum(4 * int(np.prod(array.shape[1:])) for array in self.arrays)
        return int(np.isin(self.units, wanted).sum()) * step_bytes, wanted.size * len(self.arrays)

    def fetch(self, steps: Steps) -> list[Fetched]:
        return []

    def read(self, steps: Steps) -> list[NDArray]:
        first, last = steps[0], steps[-1] + 1
        values = dask.compute(*[a[first:last] for a in self.arrays], scheduler="synchronous")
        return [value[steps - first] for value in values]

    def close(self) -> None:
        pass


def _lazy_part(cube: xr.Dataset, channels: Sequence[str], positions: tuple[int, ...]) -> LazyPart:
    names = tuple(channels[i] for i in positions)
    chosen = [cube[name].transpose("time", "latitude", "longitude") for name in names]
    arrays = tuple(a.data if a.chunks else a.chunk().data for a in chosen)
    sizes = arrays[0].chunks[0]
    return LazyPart(positions, names, np.repeat(np.arange(len(sizes)), sizes), arrays)
