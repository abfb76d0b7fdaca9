"""Windows of a cube as normalised tensors, batch after batch, each step decoded about once.

Blocks of the steps that the next batches need are read in a background thread while the current
ones are used. A cube that fits into the memory budget is read once and kept.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import psutil
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.data.blocks import Block, CubeReader, Scaling
from climlstm.data.forcing import forcing_fields
from climlstm.data.plan import Starts

MEMORY_SHARE = 0.4
"""Part of the memory that is free when a stream opens, and that its blocks may fill."""


@dataclass(frozen=True)
class Window:
    """A batch of windows: float32 tensors, normalised. T history steps, L lead steps."""

    history: Tensor
    """(B, T, C, H, W)"""
    forcing: Tensor
    """(B, T - 1 + L, F, H, W): of the step that each transition leads to."""
    target: Tensor
    """(B, L, C, H, W)"""
    init_time: NDArray[np.datetime64]
    """(B,): time of the last history step."""


@dataclass(frozen=True, eq=False)
class _Load:
    """Steps that are read together, because consecutive batches need them."""

    first_batch: int
    last_batch: int
    steps: NDArray[np.int64]


class WindowStream:
    """Cuts windows out of a cube; a context manager, so that its thread ends at once.

    forcing: names as in the run file; see forcing.py.
    mean, std: (C,), for normalisation; observed: (C, H, W), False where a channel never has values
    (filled with 0, its mean).
    memory: bytes that blocks may fill; a share of the free memory, if None.
    """

    def __init__(
        self,
        cube: xr.Dataset,
        *,
        channels: Sequence[str],
        history: int,
        horizon: int,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        observed: NDArray[np.bool_] | None = None,
        forcing: Sequence[str] = (),
        memory: int | None = None,
        block: int = 64,
        device: str | torch.device = "cpu",
    ):
        self.history = history
        self.horizon = horizon
        self.waited_seconds = 0.0
        """Time in which somebody waited for windows that were not ready."""
        self.read_bytes = 0
        """Bytes of blocks filled so far; over the bytes of the period: how often it was read."""
        self._reader = CubeReader(cube, channels, Scaling(mean, std, observed))
        self._forcing = tuple(forcing)
        self._block = block
        self._device = torch.device(device)
        self._memory = free_memory_share() if memory is None else memory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="climlstm-stream")
        self._resident: Block | None = None
        self._is_resident = np.zeros(self._reader.times.size, dtype=bool)
        self._rings: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}

    def __enter__(self) -> "WindowStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the background thread; a block that is being read is waited for."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def windows(self, batches: Starts | Sequence[Starts]) -> Iterator[Window]:
        """One batch after another, from where each of its windows begins."""
        if len(batches) == 0:
            return
        if self._keeps(batches):
            yield from self._from_memory(batches)
        else:
            yield from self._from_blocks(batches)

    @property
    def _length(self) -> int:
        return self.history + self.horizon

    def _bytes(self, steps: int) -> int:
        return steps * int(np.prod(self._reader.shape)) * 4

    def _keeps(self, batches: Starts | Sequence[Starts]) -> bool:
        """Whether all steps of the batches, with those already here, fit into the budget."""
        needed = self._is_resident.copy()
        needed[_steps(np.concatenate([np.ravel(b) for b in batches]), self._length)] = True
        return self._bytes(int(needed.sum())) <= self._memory

    def _from_memory(self, batches: Starts | Sequence[Starts]) -> Iterator[Window]:
        if self._resident is None:
            self._resident = np.empty((self._is_resident.size, *self._reader.shape), "float32")
        resident = self._resident
        steps = _steps(np.concatenate([np.ravel(b) for b in batches]), self._length)
        missing = steps[~self._is_resident[steps]]
        begun = time.perf_counter()
        for part in np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1):
            if part.size:
                self._reader.read(part, resident[part[0] : part[-1] + 1])
                self.read_bytes += self._bytes(part.size)
        self._is_resident[missing] = True
        self.waited_seconds += time.perf_counter() - begun
        for starts in batches:
            yield self._cut(starts, [resident[s : s + self._length] for s in starts])

    def _from_blocks(self, batches: Starts | Sequence[Starts]) -> Iterator[Window]:
        loads = _schedule(batches, self._length, self._block)
        waiting: list[tuple[_Load, Future[Block]]] = []
        held: list[tuple[_Load, Block]] = []
        position = 0
        try:
            for number, starts in enumerate(batches):
                held = [(load, block) for load, block in held if load.last_batch >= number]
                in_use = sum(self._bytes(load.steps.size) for load, _ in held)
                in_use += sum(self._bytes(load.steps.size) for load, _ in waiting)
                while position < len(loads):
                    load = loads[position]
                    size = self._bytes(load.steps.size)
                    if in_use + size > self._memory and load.first_batch > number:
                        break
                    waiting.append((load, self._thread.submit(self._read, load.steps)))
                    in_use += size
                    position += 1
                begun = time.perf_counter()
                while waiting and waiting[0][0].first_batch <= number:
                    load, future = waiting.pop(0)
                    held.append((load, future.result()))
                self.waited_seconds += time.perf_counter() - begun
                yield self._cut(starts, [_find(held, start, self._length) for start in starts])
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, steps: NDArray[np.int64]) -> Block:
        block = self._buffer((steps.size, *self._reader.shape))
        self._reader.read(steps, block)
        self.read_bytes += block.nbytes
        return block

    def _cut(self, starts: Starts, states: list[Block]) -> Window:
        batch = self._buffer((len(starts), self._length, *self._reader.shape))
        np.stack(states, out=batch)
        tensor = torch.from_numpy(batch).to(self._device)
        times = self._reader.times
        return Window(
            history=tensor[:, : self.history],
            forcing=self._forcings(starts).to(self._device),
            target=tensor[:, self.history :],
            init_time=times[np.asarray(starts) + self.history - 1],
        )

    def _forcings(self, starts: Starts) -> Tensor:
        transitions = np.asarray(starts)[:, None] + np.arange(1, self._length)
        steps, place = np.unique(transitions, return_inverse=True)
        reader = self._reader
        fields = forcing_fields(
            self._forcing, reader.times[steps], reader.latitude, reader.longitude
        )
        return torch.from_numpy(fields[place.reshape(transitions.shape)])

    def _buffer(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Memory that nobody holds any more, if any: fresh pages cost more than the copy itself."""
        ring = self._rings.setdefault(shape, [])
        for buffer in ring:
            if sys.getrefcount(buffer) == 3:  # the ring, the loop, the argument
                return buffer
        ring.append(np.empty(shape, "float32"))
        return ring[-1]


def free_memory_share() -> int:
    """Bytes: a share of the memory that is free on this machine."""
    return int(MEMORY_SHARE * psutil.virtual_memory().available)


def _steps(starts: Starts, length: int) -> NDArray[np.int64]:
    """Positions of all steps of some windows, increasing."""
    return np.unique(starts[:, None] + np.arange(length))


def _find(held: list[tuple[_Load, Block]], start: np.int64, length: int) -> Block:
    """The window (T + L, C, H, W) that begins at `start`, as a view of the block that holds it."""
    for load, block in held:
        first, last = np.searchsorted(load.steps, [start, start + length - 1])
        inside = last < load.steps.size and load.steps[first] == start
        if inside and load.steps[last] == start + length - 1:
            return block[first : last + 1]
    raise AssertionError(f"no block holds the window that begins at {start}")


def _schedule(batches: Starts | Sequence[Starts], length: int, block: int) -> list[_Load]:
    """What to read, in order of first use: strips of starts while consecutive batches use them."""
    open_runs: dict[int, tuple[int, int, list[Starts]]] = {}
    loads: list[_Load] = []

    def close(run: tuple[int, int, list[Starts]]) -> None:
        loads.append(_Load(run[0], run[1], _steps(np.concatenate(run[2]), length)))

    for number, starts in enumerate(batches):
        starts = np.asarray(starts)
        for strip in np.unique(starts // block):
            mine = starts[starts // block == strip]
            run = open_runs.get(strip)
            if run is not None and run[1] < number - 1:
                close(open_runs.pop(strip))
                run = None
            first, used = (run[0], run[2]) if run else (number, [])
            open_runs[strip] = (first, number, [*used, mine])
    for run in open_runs.values():
        close(run)
    return sorted(loads, key=lambda load: load.first_batch)
