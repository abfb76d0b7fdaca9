"""Windows of a cube as normalised tensors, batch after batch, each step decoded about once.

The windows of a group of batches lie in few blocks of consecutive steps. The blocks of the next
groups are read in a background thread while the current ones are used, and windows are views of
them wherever the plan allows.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from climlstm.data.blocks import BlockReader, KeptBlocks, Scaling, Steps
from climlstm.data.cube import CubePlan
from climlstm.data.memory import Buffers, memory_budget
from climlstm.data.plan import Starts
from climlstm.data.remote import Cache

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
"""While windows are waited for."""

GROUPS_AHEAD = 8
"""At most so many groups are read ahead, however small they are."""


@dataclass(frozen=True)
class Window:
    """A batch of windows: float32 tensors, normalised. T history steps, L lead steps.

    The tensors may share memory with other windows, so they are not to be changed in place.
    """

    history: Tensor
    """(B, T, C, H, W)"""
    forcing: Tensor
    """(B, T - 1 + L, F, H, W): of the step that each transition leads to."""
    target: Tensor
    """(B, L, C, H, W)"""
    init_time: NDArray[np.datetime64]
    """(B,): time of the last history step."""


class WindowStream:
    """Cuts windows out of a cube; a context manager, so that its threads end at once.

    plan: how the cube comes from its source, so that stored chunks are decoded straight into
    blocks.
    mean, std: (C,), for normalisation; observed: (C, H, W), False where a channel never has values
    (filled with 0, its mean).
    forcing: names as in the run file; see forcing.py.
    memory: bytes that data may fill; a share of the free memory, if None. A cube that fits, as
    far as it is used, is read once and kept.
    remote_cache: keeps objects of a remote store on disk.
    threads: that read; all processors that the process may use, if None.
    """

    def __init__(
        self,
        cube: xr.Dataset,
        *,
        channels: Sequence[str],
        history: int,
        horizon: int,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        observed: NDArray[np.bool_] | None = None,
        forcing: Sequence[str] = (),
        plan: CubePlan | None = None,
        memory: int | None = None,
        remote_cache: Cache | None = None,
        device: str | torch.device = "cpu",
        threads: int | None = None,
    ):
        self.history = history
        self.horizon = horizon
        self.give_up: Callable[[], bool] = lambda: False
        """Asked while windows are waited for; once it says yes, `windows` ends."""
        self.waited_seconds = 0.0
        """Time in which somebody waited for windows that were not ready."""
        self.reader = BlockReader(
            cube,
            channels,
            Scaling(mean, std, observed),
            forcing=forcing,
            plan=plan,
            remote_cache=remote_cache,
            threads=threads,
        )
        self.memory = memory_budget(memory)
        self._channels = len(channels)
        self._device = torch.device(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="climlstm-stream")
        self._blocks = Buffers()
        self._batches = Buffers()
        self._kept: KeptBlocks | None = None
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)
            self._pinned = torch.empty(0, pin_memory=True)
        logger.info("reading %s", self.reader.describe())

    def __enter__(self) -> "WindowStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def buffer_bytes(self) -> int:
        """Memory of blocks and batches, in use or waiting to be used again."""
        kept = 0 if self._kept is None else int(self._kept.here.sum()) * self.reader.step_bytes
        return self._blocks.nbytes + self._batches.nbytes + kept

    def close(self) -> None:
        """End the background threads at once; what they were reading is lost."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.reader.close()
        self._thread.shutdown(wait=True)

    def windows(self, groups: Sequence[Starts]) -> Iterator[Window]:
        """One batch after another, from where its windows begin: (batch, window) in each group.

        The batches of a group are read together; see WindowPlan.groups and in_order.
        """
        keep = self.keeps(groups)
        if keep and self._kept is None:
            self._kept = KeptBlocks(self.reader)
        ahead = _Ahead(
            (lay_out(group, self.length) for group in groups),
            start=lambda layout: self._thread.submit(self._read, layout.steps, keep),
            fits=self._fit,
        )
        try:
            while (taken := ahead.take()) is not None:
                current, future = taken
                block = self._wait_for(future)
                if block is None:
                    return
                for starts in current.group:
                    yield self._cut(block, current.rows(starts), starts)
                    ahead.start_more(current)  # by now, the block before this one is free
                del taken, future, block
        finally:
            ahead.cancel()

    @property
    def length(self) -> int:
        """Steps of a window."""
        return self.history + self.horizon

    def keeps(self, groups: Sequence[Starts]) -> bool:
        """Whether all steps of the groups, with those kept already, fit into the budget."""
        needed = np.zeros(self.reader.times.size + self.length, dtype=bool)
        for group in groups:
            for step in range(self.length):
                needed[group + step] = True
        if self._kept is not None:
            needed[: self.reader.times.size] |= self._kept.here
        largest = max((group.size for group in groups), default=0) * self.length
        return (int(needed.sum()) + largest) * self.reader.step_bytes <= self.memory

    def _fit(self, blocks: "list[Layout]") -> bool:
        """Whether blocks are within the budget, with the batches that may be copied out of them.

        Memory is used again for any block that fits into it, so each counts like the largest.
        """
        steps = len(blocks) * max(layout.steps.size for layout in blocks)
        steps += 2 * blocks[0].group.shape[1] * self.length
        if self._kept is not None:
            steps += int(self._kept.here.sum())
        return steps * self.reader.step_bytes <= self.memory

    def _read(self, steps: Steps, keep: bool) -> Tensor:
        """A block (step, C + F, H, W) on the device."""
        source = self._kept if keep and self._kept is not None else self.reader
        shape = (steps.size, *self.reader.shape)
        if self._device.type != "cuda":
            block = self._blocks.take(shape)
            source.read(steps, block)
            return torch.from_numpy(block).to(self._device)
        pinned = self._pinned_memory(shape)
        source.read(steps, pinned.numpy())
        with torch.cuda.stream(self._copies):
            copied = pinned.to(self._device, non_blocking=True)
        self._copies.synchronize()  # only this thread waits, so the memory can be filled again
        return copied

    def _pinned_memory(self, shape: tuple[int, ...]) -> Tensor:
        size = int(np.prod(shape))
        if self._pinned.numel() < size:
            self._pinned = torch.empty(size, pin_memory=True)
        return self._pinned[:size].view(shape)

    def _wait_for(self, future: "Future[Tensor]") -> Tensor | None:
        """A block, or None where it was given up before it came."""
        begun = time.perf_counter()
        while not future.done() and not self.give_up():
            wait([future], timeout=SECONDS_BETWEEN_LOOKS)
        if not future.done():
            return None
        block = future.result()
        self.waited_seconds += time.perf_counter() - begun
        if block.is_cuda:
            block.record_stream(torch.cuda.current_stream(self._device))
        return block

    def _cut(self, block: Tensor, rows: Steps, starts: Starts) -> Window:
        """Windows that begin at some rows of a block: a view, if these are evenly spaced."""
        apart = np.unique(np.diff(rows))
        if apart.size == 0 or (apart.size == 1 and apart[0] >= 0):
            step = block.stride(0)
            batch = block.as_strided(
                (rows.size, self.length, *self.reader.shape),
                (int(apart[0]) * step if apart.size else step, *block.stride()),
                int(rows[0]) * step,
            )
        else:
            batch = self._gather(block, (rows[:, None] + np.arange(self.length)).ravel())
        return Window(
            history=batch[:, : self.history, : self._channels],
            forcing=batch[:, 1:, self._channels :],
            target=batch[:, self.history :, : self._channels],
            init_time=self.reader.times[starts + self.history - 1],
        )

    def _gather(self, block: Tensor, rows: Steps) -> Tensor:
        shape = (rows.size, *self.reader.shape)
        index = torch.from_numpy(rows).to(block.device)
        if block.is_cuda:
            batch = block.index_select(0, index)
        else:
            batch = torch.from_numpy(self._batches.take(shape))
            torch.index_select(block, 0, index, out=batch)
        return batch.view(-1, self.length, *self.reader.shape)


class _Ahead:
    """Blocks that are read before they are needed."""

    def __init__(
        self,
        layouts: "Iterator[Layout]",
        *,
        start: "Callable[[Layout], Future[Tensor]]",
        fits: "Callable[[list[Layout]], bool]",
    ):
        self._layouts = layouts
        self._start = start
        self._fits = fits
        self._next = next(layouts, None)
        self._waiting: deque[tuple[Layout, Future[Tensor]]] = deque()

    def take(self) -> "tuple[Layout, Future[Tensor]] | None":
        """The next block, read already or not yet; None after the last."""
        if not self._waiting and self._next is not None:
            self._start_next(self._next)
        return self._waiting.popleft() if self._waiting else None

    def start_more(self, in_use: "Layout") -> None:
        """Start to read further blocks, as far as they fit beside those in use or waiting."""
        while self._next is not None and len(self._waiting) < GROUPS_AHEAD:
            if not self._fits([in_use, self._next, *(layout for layout, _ in self._waiting)]):
                return
            self._start_next(self._next)

    def _start_next(self, layout: "Layout") -> None:
        self._waiting.append((layout, self._start(layout)))
        self._next = next(self._layouts, None)

    def cancel(self) -> None:
        """Give up what is not being read yet."""
        for _, future in self._waiting:
            future.cancel()


@dataclass(frozen=True, eq=False)
class Layout:
    """Which steps make up the block of a group, and where in it its windows begin."""

    group: Starts
    """(batch, window)"""
    steps: Steps
    """Of each row of the block."""
    lanes: Starts | None
    """First step of each column's own stretch of rows; None: all windows share one stretch."""

    def rows(self, starts: Starts) -> Steps:
        """Rows of the block at which the windows of a batch begin."""
        if self.lanes is None:
            return np.searchsorted(self.steps, starts)
        pitch = self.steps.size // self.lanes.size
        return np.arange(self.lanes.size) * pitch + starts - self.lanes


def lay_out(group: Starts, length: int) -> Layout:
    """Each column of the batches by itself, if they span as many steps and it saves copying.

    Batches are then evenly spaced rows: views of the block. Otherwise each step comes once, and
    batches are gathered.
    """
    shared = np.unique(np.unique(group)[:, None] + np.arange(length))
    first = group.min(axis=0)
    span = group.max(axis=0) - first + length
    apart = span[0] * span.size
    if np.all(span == span[0]) and apart <= shared.size + group.size * length:
        steps = (first[:, None] + np.arange(span[0])).ravel()
        return Layout(group, steps, first)
    return Layout(group, shared, None)
