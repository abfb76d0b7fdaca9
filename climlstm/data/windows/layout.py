"""Layout of the block of a group of batches: its steps, and the rows at which windows begin."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from climlstm.data.store.parts import Steps
from climlstm.data.windows.starts import Starts


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """The rows of a block in memory, from which the windows of a group are cut."""

    group: Starts
    """(batch, window)"""
    steps: Steps
    """Step of the cube in each row of the block."""
    rows: Steps
    """(batch, window): the rows at which windows begin."""

    @cached_property
    def apart(self) -> list[int | None]:
        """Rows from each window of a batch to the next, where these are evenly spaced."""
        if self.rows.shape[1] == 1:
            return [1] * len(self.rows)
        apart = np.diff(self.rows, axis=1)
        even = (apart == apart[:, :1]).all(axis=1) & (apart[:, 0] >= 0)
        return [int(a) if e else None for a, e in zip(apart[:, 0], even, strict=True)]

    def with_spare(self, steps: Steps) -> "BlockLayout":
        """The layout with rows of further steps, at which no window begins."""
        return replace(self, steps=np.concatenate([self.steps, steps]))


def lay_out(group: Starts, length: int, *, room: int = 0) -> BlockLayout:
    """The layout of a group of windows of `length` steps: without copies, if possible.

    Each step comes once, if the windows of each batch are then evenly spaced. Otherwise each column
    of the batches stands by itself, if all span as many steps and that saves copying; or each
    window, if that takes no more rows than `room`. Batches are then evenly spaced rows: views of
    the block. Otherwise each step comes once, and batches are gathered.
    """
    shared = np.unique(np.unique(group)[:, None] + np.arange(length))
    once = BlockLayout(group, shared, np.searchsorted(shared, group))
    if None not in once.apart:
        return once
    first = group.min(axis=0)
    span = group.max(axis=0) - first + length
    apart = span[0] * span.size
    if np.all(span == span[0]) and apart <= shared.size + group.size * length:
        steps = (first[:, None] + np.arange(span[0])).ravel()
        return BlockLayout(group, steps, np.arange(span.size) * span[0] + group - first)
    if group.size * length <= room:
        steps = (group.ravel()[:, None] + np.arange(length)).ravel()
        return BlockLayout(group, steps, np.arange(group.size).reshape(group.shape) * length)
    return once
