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

from climlstm.data.cube.cube import CubePlan
from climlstm.data.store.memory import BufferPool, memory_budget
from climlstm.data.store.parts import Steps
from climlstm.data.store.remote import Cache
from climlstm.data.windows.blocks import BlockReader, KeptBlocks, KnownBlock, Scaling
from climlstm.data.windows.layout import BlockLayout, lay_out
from climlstm.data.windows.starts import Starts

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
"""Pause between two looks at `give_up` while a block is not ready."""

BLOCK_SIZE_CLASSES = 8
"""Number of sizes of blocks, up to half of the budget; few, so that a freed block fits the next:
fresh memory costs more than all reading."""

MAX_GROUPS_AHEAD = 8
"""Largest number of groups that are read ahead, however small they are."""

MAX_KEPT_AHEAD = 2
"""The same where the cube is kept: more would take memory, and what touches it first waits."""


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
    given: Tensor | None = None
    """(B, T + L, G, H, W): observed values of channels that are known from outside, if any are."""


class WindowStream:
    """Cuts windows out of a cube; a context manager, so that its threads end at once.

    cube: its plan, so that stored chunks are decoded straight into blocks, or a lazy dataset.
    channels: predicted ones. given: those known from outside, which may be among them.
    mean, std: (C,), for normalisation; observed: (C, H, W), False where a channel never has values
    (filled with 0, its mean). All of them for the channels and then those given that are none.
    forcing: names as in the run file; see forcing.py.
    memory: bytes that data may fill; None: a share of the free memory. A cube that fits, as far
    as it is used, is read once and kept.
    remote_cache: keeps objects of a remote store on disk.
    threads: number of reading threads; None: all processors that the process may use.
    """

    def __init__(
        self,
        cube: CubePlan | xr.Dataset,
        *,
        channels: Sequence[str],
        history: int,
        horizon: int,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        observed: NDArray[np.bool_] | None = None,
        given: Sequence[str] = (),
        forcing: Sequence[str] = (),
        memory: int | None = None,
        remote_cache: Cache | None = None,
        device: str | torch.device = "cpu",
        threads: int | None = None,
    ):
        self.history = history
        self.horizon = horizon
        self.length = history + horizon
        """Steps of a window."""
        self.give_up: Callable[[], bool] = lambda: False
        """Asked while a block is not ready; once it returns True, `windows` ends."""
        self.waited_seconds = 0.0
        """Time for which `windows` waited for blocks that were not ready."""
        read = list(dict.fromkeys([*channels, *given]))
        self.reader = BlockReader(
            cube,
            read,
            Scaling(mean, std, observed),
            forcing=forcing,
            remote_cache=remote_cache,
            threads=threads,
        )
        self.memory = memory_budget(memory)
        self._channels, self._read = len(channels), len(read)
        self._given = torch.tensor([read.index(name) for name in given], dtype=torch.int64)
        self._device = torch.device(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="climlstm-stream")
        self._blocks = BufferPool()
        self._batches = BufferPool()
        self._kept: KeptBlocks | None = None
        self._before: KnownBlock | None = None
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)
            self._pinned = _Pinned()
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
        if self._before is None and not keep and groups:  # so that the first batch comes soon
            groups = [part for part in np.split(groups[0], [1]) if len(part)] + list(groups[1:])
        ahead = _BlocksAhead(
            (lay_out(group, self.length) for group in groups) if keep else self._layouts(groups),
            start=lambda layout: self._thread.submit(self._read_block, layout, keep),
            fits=self._fit,
            most=MAX_KEPT_AHEAD if keep else MAX_GROUPS_AHEAD,
        )
        try:
            while (taken := ahead.take()) is not None:
                current, future = taken
                block = self._wait_for(future)
                if block is None:
                    return
                for batch in range(len(current.group)):
                    yield self._cut(block, current, batch)
                    if batch == 0:  # by now, the block before this one is free
                        ahead.start_more(current)
                del taken, future, block
        finally:
            ahead.cancel()

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

    def reads(self, groups: Sequence[Starts]) -> Iterator[Steps]:
        """The steps that are decoded for each group, where the cube is not kept."""
        before = np.empty(0, dtype="int64")
        for layout in self._layouts(groups):
            yield np.setdiff1d(layout.steps, before)
            before = layout.steps

    def _layouts(self, groups: Sequence[Starts]) -> Iterator[BlockLayout]:
        """The layout of each group; if there is room, with further steps of its last chunks that
        the next group needs."""
        layouts = (lay_out(group, self.length, room=self._room(group)) for group in groups)
        layout = next(layouts, None)
        for following in layouts:
            assert layout is not None
            spare = np.setdiff1d(self.reader.covering(layout.steps), layout.steps)
            wider = layout.with_spare(np.intersect1d(spare, following.steps))
            yield wider if self._fit([wider, following]) else layout
            layout = following
        if layout is not None:
            yield layout

    def _room(self, group: Starts) -> int:
        """Rows of each of two blocks that fit into the budget beside two batches."""
        rows = self.memory // self.reader.step_bytes - 2 * group.shape[1] * self.length
        return max(0, rows // 2 // BLOCK_SIZE_CLASSES * BLOCK_SIZE_CLASSES)

    def _rows(self, layout: BlockLayout) -> int:
        """Rows of the memory for a block, in one of BLOCK_SIZE_CLASSES sizes."""
        coarse = max(1, self._room(layout.group) // BLOCK_SIZE_CLASSES)
        return -(-layout.steps.size // coarse) * coarse

    def _fit(self, blocks: list[BlockLayout]) -> bool:
        """Whether blocks are within the budget, with the batches that may be copied out of them.

        Memory is used again for any block that fits into it, so each counts like the largest.
        """
        steps = len(blocks) * max(self._rows(layout) for layout in blocks)
        steps += 2 * blocks[0].group.shape[1] * self.length
        if self._kept is not None:
            steps += int(self._kept.here.sum())
        return steps * self.reader.step_bytes <= self.memory

    def _read_block(self, layout: BlockLayout, keep: bool) -> Tensor:
        """A block (step, C + F, H, W) on the device."""
        steps = layout.steps
        shape = (self._rows(layout), *self.reader.shape)
        pinned = self._pinned.take(shape) if self._device.type == "cuda" else None
        memory = self._blocks.take(shape) if pinned is None else pinned.numpy()
        block = memory[: steps.size]
        if keep and self._kept is not None:
            self._kept.read(steps, block)
        else:
            self.reader.read(steps, block, known=self._before)
            self._before = KnownBlock(steps, block)
        if pinned is None:
            return torch.from_numpy(block).to(self._device)
        with torch.cuda.stream(self._copies):
            copied = pinned[: steps.size].to(self._device, non_blocking=True)
        self._copies.synchronize()  # only this thread waits, so the memory can be filled again
        return copied

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

    def _cut(self, block: Tensor, layout: BlockLayout, number: int) -> Window:
        """A batch of the windows of a block: a view, if they are evenly spaced in it."""
        rows, apart, starts = layout.rows[number], layout.apart[number], layout.group[number]
        if apart is not None:
            step = block.stride(0)
            batch = block.as_strided(
                (rows.size, self.length, *self.reader.shape),
                (apart * step, *block.stride()),
                int(rows[0]) * step,
            )
        else:
            batch = self._gather(block, (rows[:, None] + np.arange(self.length)).ravel())
        return Window(
            history=batch[:, : self.history, : self._channels],
            forcing=batch[:, 1:, self._read :],
            target=batch[:, self.history :, : self._channels],
            init_time=self.reader.times[starts + self.history - 1],
            given=batch.index_select(2, self._given.to(batch.device)) if len(self._given) else None,
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


class _BlocksAhead:
    """Blocks that are read before they are needed."""

    def __init__(
        self,
        layouts: Iterator[BlockLayout],
        *,
        start: "Callable[[BlockLayout], Future[Tensor]]",
        fits: Callable[[list[BlockLayout]], bool],
        most: int,
    ):
        self._layouts = layouts
        self._most = most
        self._start = start
        self._fits = fits
        self._next = next(layouts, None)
        self._waiting: deque[tuple[BlockLayout, Future[Tensor]]] = deque()

    def take(self) -> "tuple[BlockLayout, Future[Tensor]] | None":
        """The next block, read already or not yet; None after the last."""
        if not self._waiting and self._next is not None:
            self._start_next(self._next)
        return self._waiting.popleft() if self._waiting else None

    def start_more(self, in_use: BlockLayout) -> None:
        """Start to read further blocks, as far as they fit beside those in use or waiting."""
        while self._next is not None and len(self._waiting) < self._most:
            if not self._fits([in_use, self._next, *(layout for layout, _ in self._waiting)]):
                return
            self._start_next(self._next)

    def _start_next(self, layout: BlockLayout) -> None:
        self._waiting.append((layout, self._start(layout)))
        self._next = next(self._layouts, None)

    def cancel(self) -> None:
        """Give up the blocks that are not being read yet."""
        for _, future in self._waiting:
            future.cancel()


class _Pinned:
    """Two pieces of pinned memory in turn: one is filled while the other still holds its block."""

    def __init__(self) -> None:
        self._pieces = [torch.empty(0), torch.empty(0)]

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor whose values are undefined."""
        self._pieces.reverse()
        size = int(np.prod(shape))
        if self._pieces[0].numel() < size:
            self._pieces[0] = torch.empty(size, pin_memory=True)
        return self._pieces[0][:size].view(shape)
