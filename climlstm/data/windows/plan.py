"""In which order the training windows come, and which worker takes which.

Everything here is a pure function of integers: the order of the windows and the batches that they
form depend neither on the number of workers nor on where a run was interrupted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.config import format_size
from climlstm.data.windows.starts import Starts
from climlstm.errors import DataError

ORDER_MEMORY = 2 * 2**30
ORDER_BATCHES = 6
"""Bytes, and the least number of batches that fit, where a run file names no memory. Not a share
of the free memory, so that the order of training is the same on every machine."""

MIN_SEGMENTS = 4
"""Segments that the shuffle buffer keeps before segments are made shorter: training reached the
loss of full shuffling within 1 %, two standard errors over four seeds of a year of weather, with
segments of 45 to 180 windows; a single segment loses 12 % (benchmarks/shuffle.py)."""

CONSECUTIVE = 4
"""Segments that follow one another in time from group to group, so that what two neighbours both
need is decoded once. Training reaches the same loss: 1.002 and 0.997 of that of full shuffling with
segments of 45 and 90 windows, four mixed, four seeds (benchmarks/shuffle.py)."""

RESERVE = 64 * 2**20
"""Bytes that reading takes besides blocks and batches: chunks being decoded, and the libraries."""


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """The order of the training windows: a pure function of its fields and the epoch.

        period    |------ stratum 1 ---|------ stratum 2 ---|------ stratum 3 ---|
        segments  | a1 | a2 | a3 | a4  | b1 | b2 | b3 | b4  | c1 | c2 | c3 | c4  |
        group     a shuffle buffer of one segment from each stratum: {a2, b4, c1}
        batches   the same shuffled offsets of all its segments: (a2[7] b4[7] c1[7]), (a2[3] ...
        next      the neighbours in time, {a3, b1, c2}, `consecutive` times, then others

    The period is divided into equal strata, so that each batch is a stratified sample, spread
    evenly over the years. Workers divide a batch by the strata, so each reads its own part of the
    period, in all epochs. A segment is about `segment` consecutive windows, read and decoded once
    for all of them, and a group is used up before the next. With segments of one window, the
    windows of each stratum are shuffled freely.

    Short segments at gaps, and those that fill no group, make shuffled batches of their own, which
    come among the groups at random. Windows that do not fill a last batch are left out: other ones
    in each epoch.
    """

    starts: Starts
    """Increasing; see `valid_starts`."""
    batch_size: int
    """Windows in one batch, over all workers."""
    seed: int
    segment: int = 1
    """Largest number of consecutive windows in a segment; see `choose_segments`."""
    mixed: int | None = None
    """Segments in the shuffle buffer, a divisor of batch_size; None: batch_size itself."""
    consecutive: int = CONSECUTIVE
    """Segments that follow one another in time from group to group."""

    def __post_init__(self) -> None:
        if self.starts.size < self.batch_size:
            raise DataError(
                f"There are {self.starts.size} training windows, fewer than one batch of "
                f"{self.batch_size}. Lengthen the training period, shorten history or horizon, or "
                "reduce training.batch_size."
            )
        if self.batch_size % self.strata or self.segment < self.windows_per_segment:
            raise ValueError(
                f"mixed={self.strata} must divide batch_size={self.batch_size}, "
                f"and segment={self.segment} be no less than their ratio"
            )

    @property
    def strata(self) -> int:
        """Number of equal parts of the period: one for each segment in the shuffle buffer."""
        return self.batch_size if self.mixed is None else self.mixed

    @property
    def settings(self) -> dict[str, int]:
        """Plain values for JSON that, with the starts, determine the order; a resume needs them.

        Their names are those of the first checkpoints.
        """
        chain = {"chain": self.consecutive} if self.segment > 1 else {}
        order = {"batch_size": self.batch_size, "seed": self.seed, "block": self.segment}
        return order | chain | {"mixed": self.strata}

    @property
    def windows_per_segment(self) -> int:
        """Windows that one batch takes from one segment of a group."""
        return self.batch_size // self.strata

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches, the same in every epoch."""
        return int(self.starts.size // self.batch_size)

    @property
    def full_segment(self) -> int:
        """Windows in a full segment: at most `segment`, and such that few windows are left over.

        A segment has as many equal columns as a batch takes windows from it. Their length has no
        divisor in common with 24 if that costs little: else all windows of a batch would begin at
        the same hour.
        """
        groups = math.ceil(self.starts.size / (self.strata * self.segment))
        column = max(self.starts.size // (self.batch_size * groups), 1)
        if self.batch_size > 1:
            nearly = range(column, 3 * column // 4, -1)
            column = next((n for n in nearly if math.gcd(n, 24) == 1), column)
        return column * self.windows_per_segment

    def groups(self, epoch: int, first: int = 0) -> list[Starts]:
        """Where windows begin, (batch, window), group by group: batches that are read together.

        first: batches of the epoch to leave out, because they are done.
        Windows of one segment stand side by side in a batch, so that workers which divide the
        batch into consecutive shares read different segments.
        """
        draw = _Draw(self.seed, epoch)
        groups = self._free(draw) if self.segment == 1 else self._in_segments(draw)
        ends = np.cumsum([len(group) for group in groups])
        left = [
            group[max(len(group) - (end - first), 0) :]
            for group, end in zip(groups, ends, strict=True)
        ]
        return [group for group in left if len(group)]

    def _free(self, draw: "_Draw") -> list[Starts]:
        """Batches of one window from each stratum, each a group of its own."""
        whole = self.batches_per_epoch * self.batch_size
        kept = np.sort(self.starts[draw.permutation(self.starts.size)[:whole]])
        strata = kept.reshape(self.batch_size, -1)
        shuffled = [stratum[draw.permutation(stratum.size)] for stratum in strata]
        batches = np.stack(shuffled, axis=1)[:, None]
        return list(batches[draw.permutation(len(batches))])

    def _in_segments(self, draw: "_Draw") -> list[Starts]:
        """Groups of one segment from each stratum, and batches of what is left over."""
        runs = np.split(self.starts, np.flatnonzero(np.diff(self.starts) != 1) + 1)
        size = self.full_segment
        segments = [
            segment for run in runs for segment in _cut(run, size, draw.below(run.size % size + 1))
        ]
        full = [segment for segment in segments if segment.size == size]
        number = len(full) // self.strata
        over = set(draw.permutation(len(full))[number * self.strata :].tolist())
        dealt = [segment for i, segment in enumerate(full) if i not in over]
        rest = [each for each in segments if each.size < size] + [full[i] for i in sorted(over)]
        groups = []
        if number:
            strata = np.stack(dealt).reshape(self.strata, number, size)
            order = [stratum[_in_runs(number, self.consecutive, draw)] for stratum in strata]
            groups = [self._batches(group, draw) for group in np.stack(order, axis=1)]
        others = self._shuffled([rest[i] for i in draw.permutation(len(rest))], draw)
        places = draw.permutation(len(groups) + len(others))
        in_turn = iter(groups)
        return [next(in_turn) if i < len(groups) else others[i - len(groups)] for i in places]

    def _batches(self, group: Starts, draw: "_Draw") -> Starts:
        """Batches of a group (segment, offset): the same offset of each column of each segment."""
        columns = group.reshape(self.batch_size, -1)
        return columns[:, draw.permutation(columns.shape[1])].T

    def _shuffled(self, segments: list[Starts], draw: "_Draw") -> list[Starts]:
        """Batches of the segments that are left, shuffled in buffers of the size of a group."""
        if not segments:
            return []
        windows = np.concatenate(segments)
        size = self.strata * self.full_segment
        buffers = [windows[i : i + size] for i in range(0, windows.size, size)]
        windows = np.concatenate([buffer[draw.permutation(buffer.size)] for buffer in buffers])
        whole = windows.size // self.batch_size * self.batch_size
        batches = np.sort(windows[:whole].reshape(-1, self.batch_size), axis=1)
        each = size // self.batch_size
        return [batches[i : i + each] for i in range(0, len(batches), each)]


def _cut(run: Starts, size: int, first: int) -> list[Starts]:
    """A run of consecutive starts in segments of some size, and a shorter one at either end."""
    edges = np.arange(first, run.size, size)
    return [segment for segment in np.split(run, edges) if segment.size]


def _in_runs(number: int, length: int, draw: "_Draw") -> NDArray[np.int64]:
    """The numbers below `number` in runs of about `length` consecutive ones, in random order."""
    runs = np.array_split(np.arange(number), math.ceil(number / length))
    return np.concatenate([runs[i] for i in draw.permutation(len(runs))])


class _Draw:
    """Random numbers from (seed, epoch) that no release of NumPy may change.

    NumPy keeps the raw output of a bit generator the same for ever, but not what Generator makes
    of it (NEP 19); permutations are therefore made from raw numbers here.
    """

    def __init__(self, seed: int, epoch: int):
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))

    def permutation(self, size: int) -> NDArray[np.int64]:
        return np.argsort(self._bits.random_raw(size), kind="stable")

    def below(self, bound: int) -> int:
        return int(self._bits.random_raw() % bound)


def choose_segments(
    windows: int,
    *,
    length: int,
    batch_size: int,
    step_bytes: int,
    memory: int | None = None,
    chunk: int = 1,
) -> tuple[int, int]:
    """`segment` and `mixed` of a WindowPlan: as much mixing as two groups in `memory` bytes allow.

    windows: how many there are; length: steps of each; step_bytes: of one step of all channels;
    memory: of all workers together, for blocks and two batches; see ORDER_MEMORY for None;
    chunk: steps that storage decodes together.

    Where the steps of all windows fit, windows are shuffled freely: segments of 1. Otherwise a
    segment is up to 16 times as long as the overhead that is decoded for it (further steps of its
    last window, parts of chunks at its ends), and as many are mixed as fit at 8 times the overhead.
    Where memory is short, fewer are mixed, down to MIN_SEGMENTS; then segments become half as
    long, then shorter still, but rather than read more overhead than windows, fewer are mixed.
    Raises DataError where memory does not suffice for any.
    """
    batch = batch_size * length * step_bytes
    if memory is None:
        memory = max(ORDER_MEMORY, ORDER_BATCHES * batch)
    steps = (memory - min(RESERVE, memory // 4) - 2 * batch) // step_bytes
    if windows + length - 1 <= steps:
        return 1, batch_size
    overhead = length - 1 + chunk - 1
    divisors = [k for k in range(batch_size, 0, -1) if batch_size % k == 0]
    enough = [k for k in divisors if k >= min(MIN_SEGMENTS, batch_size)]
    wanted = [(8 * overhead, enough), (4 * overhead, enough), (overhead, divisors)]
    wanted += [(length - 1, divisors), (1, divisors)]
    for least, mixed in ((least, k) for least, several in wanted for k in several):
        each = batch_size // mixed
        columns = each if mixed > 1 else 1  # of one segment, neighbours share steps; see layout.py
        fitting = steps // (2 * mixed) - columns * (length - 1)
        spare = min(chunk - 1, max(fitting, 0) // 16)  # of the last chunk, for the next segment
        segment = min(16 * overhead, fitting - spare) // each * each
        if segment >= max(least, each):
            return segment, mixed
    needed = 4 * batch + min(RESERVE, 4 * batch // 3)
    raise DataError(
        f"A memory of {format_size(memory)} does not hold two batches of {format_size(batch)} "
        f"and the steps that they come from; {format_size(needed)} are "
        "needed. Increase data.memory, or reduce training.batch_size, horizon or the number of "
        "channels."
    )


def turns(batches: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The source of each batch of an epoch, where several have so many batches: shuffled."""
    order = np.repeat(np.arange(len(batches)), batches)
    return order if len(batches) == 1 else order[_Draw(seed, epoch).permutation(order.size)]


def share(groups: Sequence[Starts], *, rank: int, world: int) -> list[Starts]:
    """The consecutive share of each batch (batch, window) of each group that a worker takes.

    Shares differ by one window at most. With weights len(share) / len(batch), the sum over workers
    of their mean losses is the mean over the batch.
    """
    for group in groups:
        if group.shape[1] < world:
            raise DataError(
                f"{world} workers cannot divide batches of {group.shape[1]} windows. "
                "Increase training.batch_size, or use fewer workers."
            )
    return [np.array_split(group, world, axis=1)[rank] for group in groups]


def in_order(starts: Starts, *, batch_size: int) -> list[Starts]:
    """Groups of one batch each, in the order given; the last batch may be smaller."""
    return [starts[None, i : i + batch_size] for i in range(0, starts.size, batch_size)]
