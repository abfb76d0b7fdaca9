"""Blocks of a cube: steps read through Dask, one task a chunk, each normalised into its place.

A block is float32 (step, C + F, H, W): normalised channels, then the fields of the forcings.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.data.cube.cube import CubePlan, dataset_of
from climlstm.data.cube.forcing import forcing_channels, forcing_fields
from climlstm.data.sources.origin import AxisChunks
from climlstm.data.sources.times import step_of
from climlstm.data.store.memory import reserve
from climlstm.data.store.parts import Part, Steps
from climlstm.data.store.passes import normalise
from climlstm.data.store.prefetch import Job, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import DataError
from climlstm.grid import grid_of

logger = logging.getLogger(__name__)

Block = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scaling:
    """How channels are normalised: (value - mean) / std; cells never observed become 0."""

    mean: NDArray[np.float64]
    """(C,)"""
    std: NDArray[np.float64]
    """(C,)"""
    observed: NDArray[np.bool_] | None = None
    """(C, H, W); None: everywhere."""

    def apply(self, channel: int, values: NDArray, out: Block) -> bool:
        """Normalise one channel (step, H, W) into `out`, and return whether all of it is finite."""
        return normalise(
            *(values, out),
            mean=np.float32(self.mean[channel]),
            std=np.float32(self.std[channel]),
            hidden=self._hidden[channel],
        )

    @cached_property
    def _hidden(self) -> list[NDArray[np.bool_] | None]:
        """The cells (H, W) of each channel that are never observed, if there are any."""
        if self.observed is None:
            return [None] * len(self.mean)
        return [None if seen.all() else ~seen for seen in self.observed]


class BlockReader:
    """Reads steps of a cube into blocks, on all processors that the process may use.

    cube: its plan, so that chunks of a Zarr store are decoded straight into their places; for other
    formats, and for a dataset without a plan, the cube's Dask arrays are computed.
    forcing: names as in the run file; see forcing.py.
    remote_cache: keeps objects of a remote store on disk.
    """

    def __init__(
        self,
        cube: CubePlan | xr.Dataset,
        channels: Sequence[str],
        scaling: Scaling,
        *,
        forcing: Sequence[str] = (),
        remote_cache: Cache | None = None,
        threads: int | None = None,
    ):
        dataset = dataset_of(cube)
        self.times = dataset["time"].values
        self._months = step_of(self.times).months if self.times.size > 1 else 0
        self.grid = grid_of(dataset)
        self.channels = tuple(channels)
        self.forcing = tuple(forcing)
        depth = len(self.channels) + len(forcing_channels(self.forcing))
        self.shape = (depth, *self.grid.shape)
        """Shape of one step: (C + F, H, W)."""
        self.scaling = scaling
        self.parts = make_parts(cube, self.channels, remote_cache)
        self._alike = list(_alike(self.parts, lambda part: part.units).values())
        self._layouts = [p[0] for p in _alike(self.parts, lambda part: part.chunks).values()]
        self.threads = threads or CPU_COUNT
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="climlstm-read")
        self._closed = threading.Event()

    @property
    def step_bytes(self) -> int:
        """Size of one step in a block."""
        return 4 * int(np.prod(self.shape))

    @property
    def chunk_steps(self) -> int:
        """Largest number of steps of the cube that storage decodes together."""
        return max(
            int(np.unique(part.chunks.holding(part.places), return_counts=True)[1].max())
            for part in self._layouts
        )

    def describe(self) -> str:
        """How the channels are read, for people."""
        ways: dict[str, list[str]] = {}
        for part in self.parts:
            ways.setdefault(part.how, []).extend(self.channels[i] for i in part.channels)
        if len(ways) == 1:
            return next(iter(ways))
        return "; ".join(f"{', '.join(names)}: {how}" for how, names in ways.items())

    def close(self) -> None:
        """End at once; a read that is under way fails."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for part in self.parts:  # ends the waits for objects on their way
            part.close()
        self._pool.shutdown(wait=True)

    def covering(self, steps: Steps) -> Steps:
        """All steps that are decoded if these are read: those of the same chunks, increasing."""
        return np.unique(np.concatenate([p.decoded_with(steps) for p in self._layouts]))

    def read(
        self,
        steps: Steps,
        out: Block,
        rows: Steps | None = None,
        *,
        wanted: NDArray[np.bool_] | None = None,
        known: "KnownBlock | None" = None,
    ) -> Steps:
        """Fill rows of `out` (row, C + F, H, W) with steps of the cube, each chunk decoded once.

        Returns the steps that lack values, which may be others than those wanted.

        steps: in any order, also more than once; rows: where each goes, None: the first ones.
        wanted: (time,), True for the steps that must be whole; None: all.
        known: another block, from which steps that it has are copied.
        Raises DataError for a value that is missing or infinite though it is observed otherwise.
        """
        places = np.arange(steps.size) if rows is None else rows
        copying: list[Future[None]] = []
        if known is not None:
            here, where = known.find(steps)
            copying = self._copy(known.block, where, out, places[here])
            steps, places = steps[~here], places[~here]
        jobs: list[Job] = []
        goals: list[tuple[Steps, Steps]] = []
        for parts in self._alike:
            units = parts[0].units_of(steps)
            order = np.argsort(units, kind="stable")
            cuts = np.flatnonzero(np.diff(units[order])) + 1
            pieces = [mine for mine in np.split(order, cuts) if mine.size]  # none: all is known
            read = [np.unique(steps[mine]) for mine in pieces]
            jobs += [(part, mine) for part in parts for mine in read]
            goals += [(steps[mine], places[mine]) for mine in pieces] * len(parts)

        def place(number: int, values: list[NDArray]) -> Steps:
            return self._scale(*jobs[number], values, *goals[number], out, wanted)

        lacking = read_jobs(jobs, place, self._pool)
        if self.forcing:
            shares = np.array_split(np.arange(steps.size), self.threads)
            list(self._pool.map(lambda mine: self._force(steps[mine], places[mine], out), shares))
        for each in copying:
            each.result()
        return np.unique(np.concatenate(lacking)) if lacking else np.empty(0, dtype="int64")

    def copy(self, block: Block, rows: Steps, out: Block) -> None:
        """Fill `out` with rows of another block."""
        for each in self._copy(block, rows, out, np.arange(rows.size)):
            each.result()

    def _copy(self, block: Block, rows: Steps, out: Block, places: Steps) -> "list[Future[None]]":
        """Begin to copy rows of a block to places of another one."""
        return [
            self._pool.submit(_copy_rows, block, rows[some], out, places[some])
            for some in np.array_split(np.arange(rows.size), self.threads)
        ]

    def _scale(
        self,
        part: Part,
        read: Steps,
        values: list[NDArray],
        steps: Steps,
        rows: Steps,
        out: Block,
        wanted: NDArray[np.bool_] | None,
    ) -> Steps:
        """Normalise what was read of some channels into all rows that want it.

        Returns the steps that lack values.
        """
        if self._closed.is_set():
            raise RuntimeError("the stream was closed while it was read")
        where = np.searchsorted(read, steps)
        runs = _runs(where, rows)
        lacking = [steps[:0]]
        for channel, fields in zip(part.channels, values, strict=True):
            for first, last in runs:
                chosen = fields[where[first] : where[first] + last - first]
                place = out[rows[first] : rows[first] + last - first, channel]
                if not self.scaling.apply(channel, chosen, place):
                    bad = np.argwhere(~np.isfinite(place))
                    self._refuse(channel, steps[first:last], bad, wanted)
                    lacking.append(steps[first:last][np.unique(bad[:, 0])])
        return np.concatenate(lacking)

    def _force(self, steps: Steps, rows: Steps, out: Block) -> None:
        if steps.size:
            unique, where = np.unique(steps, return_inverse=True)
            fields = forcing_fields(
                self.forcing, self.times[unique], *self.grid.places, months=self._months
            )
            out[rows, len(self.channels) :] = fields[where]

    def _refuse(
        self, channel: int, steps: Steps, bad: NDArray[np.int64], wanted: NDArray[np.bool_] | None
    ) -> None:
        """bad: (value, 3), the row among the steps, the latitude and longitude of values that are
        not finite."""
        if wanted is not None:
            bad = bad[wanted[steps[bad[:, 0]]]]
        if bad.size == 0:
            return
        step, *cell = bad[0]
        latitude, longitude = (p[*cell] for p in (self.grid.latitude, self.grid.longitude))
        raise DataError(
            f"Channel '{self.channels[channel]}' has {(bad[:, 0] == step).sum()} missing or "
            f"infinite values at {self.times[steps[step]]}, the first at latitude "
            f"{latitude:g}, longitude {longitude:g}, where other times have "
            "values. Compute the statistics anew, so that windows go round such times, or repair "
            "the source."
        )


@dataclass(frozen=True, eq=False)
class KnownBlock:
    """A block that was read already."""

    steps: Steps
    """Step of each row."""
    block: Block

    def find(self, steps: Steps) -> tuple[NDArray[np.bool_], Steps]:
        """A mask of the steps that the block has, and the rows of those."""
        unique, rows = np.unique(self.steps, return_index=True)
        at = np.searchsorted(unique, steps).clip(max=unique.size - 1)
        here = unique[at] == steps
        return here, rows[at[here]]


def _copy_rows(block: Block, rows: Steps, out: Block, places: Steps) -> None:
    for first, last in _runs(rows, places) if rows.size else ():
        size = last - first
        out[places[first] : places[first] + size] = block[rows[first] : rows[first] + size]


class KeptBlocks:
    """Steps of a cube that are read once and kept, for cubes that fit into memory."""

    def __init__(self, reader: BlockReader):
        self._reader = reader
        self._steps = reserve((reader.times.size, *reader.shape))
        self.here = np.zeros(reader.times.size, dtype=bool)
        """(time,), True for the steps that have been read."""

    def read(self, steps: Steps, out: Block) -> None:
        """Fill `out` with steps; other steps that are decoded with them are kept as well.

        Those may lack values; asked for later, they are read again and refused.
        """
        missing = np.unique(steps[~self.here[steps]])
        if missing.size:
            decoded = self._reader.covering(missing)
            new = decoded[~self.here[decoded]]
            wanted = np.zeros(self.here.size, dtype=bool)
            wanted[missing] = True
            lacking = self._reader.read(new, self._steps, rows=new, wanted=wanted)
            self.here[np.setdiff1d(new, lacking)] = True
        self._reader.copy(self._steps, steps, out)


def _alike(
    parts: Sequence[Part], ranges: Callable[[Part], AxisChunks]
) -> dict[Hashable, list[Part]]:
    """The parts, those with equal ranges of steps together."""
    found: dict[Hashable, list[Part]] = {}
    for part in parts:
        found.setdefault(ranges(part).layout, []).append(part)
    return found


def _runs(where: NDArray[np.intp], rows: Steps) -> list[tuple[int, int]]:
    """Half-open ranges in which source and place both go on by one."""
    ends = np.flatnonzero((np.diff(where) != 1) | (np.diff(rows) != 1)) + 1
    edges = [0, *ends.tolist(), len(rows)]
    return list(pairwise(edges))
