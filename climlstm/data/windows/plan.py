"""Which windows there are, in which order they come, and which worker takes which.

Everything here is a pure function of times and integers: the order of the windows and the batches
that they form depend neither on the number of workers nor on where a run was interrupted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from climlstm.config import format_duration, format_size
from climlstm.errors import DataError

Starts = NDArray[np.int64]
"""Positions on the time axis of a cube at which windows begin."""

MINUTES = "%Y-%m-%d %H:%M"

ORDER_MEMORY = 2 * 2**30
ORDER_BATCHES = 6
"""Bytes, and batches that are to fit at least, where a run file names no memory. Not what is free
on some machine, so that the order of training is the same on every one."""

ENOUGH_MIXED = 4
"""Strips that are mixed at least before they are made shorter: training reached the loss of full
shuffling within 1 %, two standard errors over four seeds of a year of weather, with strips of 45
to 180 windows; a single strip loses 12 % (benchmarks/shuffle.py)."""

CHAIN = 4
"""Strips that a lane takes one after another as they lie in time, so that what two neighbours both
need is decoded once. Training reaches the same loss: 1.002 and 0.997 of that of full shuffling with
strips of 45 and 90 windows, four mixed, four seeds (benchmarks/shuffle.py)."""

RESERVE = 64 * 2**20
"""Bytes that reading takes besides blocks and batches: chunks being decoded, and the libraries."""


def valid_starts(
    times: NDArray[np.datetime64],
    *,
    length: int,
    step: np.timedelta64,
    unusable: Iterable[np.datetime64] = (),
) -> Starts:
    """Positions from which `length` times follow one another by `step`, all of them usable.

    times: strictly increasing.
    unusable: times that no window may contain.
    """
    if length < 1:
        raise ValueError(f"a window has at least one step, not {length}")
    if times.size < length:
        return np.empty(0, dtype="int64")
    refused = np.isin(times, np.array(list(unusable), dtype=times.dtype))
    broken = np.diff(times) != step
    breaks = np.concatenate([[0], np.cumsum(broken)])  # gaps before each time
    refusals = np.concatenate([[0], np.cumsum(refused)])  # refused times before each one
    first = np.arange(times.size - length + 1)
    whole = breaks[first + length - 1] == breaks[first]
    clean = refusals[first + length] == refusals[first]
    return first[whole & clean]


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """The order of the training windows: a pure function of its fields and the epoch.

    The period is divided into as many stretches as there are lanes, and each batch takes as many
    windows from every stretch: a stratified sample, spread evenly over the years. Workers divide
    a batch by its lanes, so each reads its own part of the period, in all epochs.

    With a block of 1 the windows of each stretch are shuffled freely. Otherwise they are cut into
    strips of about `block` consecutive windows, so that a strip is read and decoded once for all
    of its windows. A group mixes one strip from each stretch and is used up before the next: its
    batches take the same, shuffled offsets of all its strips (of each part of them, where they take
    several windows from each). From group to group a stretch gives strips that follow one another
    in time, `chain` of them; such chains come in random order. What is left (shorter strips at
    gaps, strips that fill no group) makes shuffled batches of its own, and those come among the
    groups at random. Windows that do not fill a last batch are left out: other ones in each epoch.
    """

    starts: Starts
    """Increasing; see `valid_starts`."""
    batch_size: int
    """Windows in one batch, over all workers."""
    seed: int
    block: int = 1
    """Consecutive windows in a strip, at most; with 1, all are shuffled freely. See
    `choose_strips`."""
    mixed: int | None = None
    """Strips mixed with one another, a divisor of batch_size; batch_size itself if None."""
    chain: int = CHAIN
    """Strips that follow one another in time from group to group."""

    def __post_init__(self) -> None:
        if self.starts.size < self.batch_size:
            raise DataError(
                f"There are {self.starts.size} training windows, fewer than one batch of "
                f"{self.batch_size}. Lengthen the training period, shorten history or horizon, or "
                "reduce training.batch_size."
            )
        if self.batch_size % self.lanes or self.block < self.windows_per_lane:
            raise ValueError(
                f"mixed={self.lanes} must divide batch_size={self.batch_size}, "
                f"and block={self.block} be no less than their ratio"
            )

    @property
    def lanes(self) -> int:
        """Strips that are mixed with one another."""
        return self.batch_size if self.mixed is None else self.mixed

    @property
    def settings(self) -> dict[str, int]:
        """What the order follows from besides the starts: plain JSON, for who resumes."""
        names = ("batch_size", "seed", "block") + (("chain",) if self.block > 1 else ())
        return {name: getattr(self, name) for name in names} | {"mixed": self.lanes}

    @property
    def windows_per_lane(self) -> int:
        """Windows that one batch takes from one strip of a group."""
        return self.batch_size // self.lanes

    @property
    def batches_per_epoch(self) -> int:
        """The same in every epoch."""
        return int(self.starts.size // self.batch_size)

    @property
    def strip(self) -> int:
        """Windows in a full strip: no more than `block`, and such that few windows are left over.

        A strip has as many equal parts as a batch takes windows from it. Their length has no
        divisor in common with 24 if that costs little: else all windows of a batch would begin at
        the same hour.
        """
        groups = math.ceil(self.starts.size / (self.lanes * self.block))
        part = max(self.starts.size // (self.batch_size * groups), 1)
        if self.batch_size > 1:
            nearly = range(part, 3 * part // 4, -1)
            part = next((n for n in nearly if math.gcd(n, 24) == 1), part)
        return part * self.windows_per_lane

    def groups(self, epoch: int, first: int = 0) -> list[Starts]:
        """Where windows begin, (batch, window), group by group: batches that are read together.

        first: batches of the epoch to leave out, because they are done.
        Windows of one strip stand side by side in a batch, so that workers which divide the
        batch into consecutive parts read different strips.
        """
        draw = _Draw(self.seed, epoch)
        return _skip(self._free(draw) if self.block == 1 else self._in_strips(draw), first)

    def _free(self, draw: "_Draw") -> list[Starts]:
        """Batches of one window from each stretch, each a group of its own."""
        whole = self.batches_per_epoch * self.batch_size
        kept = np.sort(self.starts[draw.permutation(self.starts.size)[:whole]])
        stretches = kept.reshape(self.batch_size, -1)
        shuffled = [stretch[draw.permutation(stretch.size)] for stretch in stretches]
        batches = np.stack(shuffled, axis=1)[:, None]
        return list(batches[draw.permutation(len(batches))])

    def _in_strips(self, draw: "_Draw") -> list[Starts]:
        """Groups of one strip from each stretch, and batches of what is left over."""
        runs = np.split(self.starts, np.flatnonzero(np.diff(self.starts) != 1) + 1)
        size = self.strip
        strips = [
            strip for run in runs for strip in _cut(run, size, draw.below(run.size % size + 1))
        ]
        full = [strip for strip in strips if strip.size == size]
        number = len(full) // self.lanes
        over = set(draw.permutation(len(full))[number * self.lanes :].tolist())
        dealt = [strip for i, strip in enumerate(full) if i not in over]
        rest = [strip for strip in strips if strip.size < size] + [full[i] for i in sorted(over)]
        groups = []
        if number:
            stretches = np.stack(dealt).reshape(self.lanes, number, size)
            mixed = np.stack(
                [each[_chained(number, self.chain, draw)] for each in stretches], axis=1
            )
            groups = [self._columns(group, draw) for group in mixed]
        others = self._shuffled([rest[i] for i in draw.permutation(len(rest))], draw)
        places = draw.permutation(len(groups) + len(others))
        in_turn = iter(groups)
        return [next(in_turn) if i < len(groups) else others[i - len(groups)] for i in places]

    def _columns(self, group: Starts, draw: "_Draw") -> Starts:
        """Batches of a group (strip, offset): the same offset from each part of each strip.

        A strip of which a batch takes several windows has as many parts, each of them a column.
        """
        columns = group.reshape(self.batch_size, -1)
        return columns[:, draw.permutation(columns.shape[1])].T

    def _shuffled(self, strips: list[Starts], draw: "_Draw") -> list[Starts]:
        """Batches of whatever strips are left, shuffled in pools of the size of a group."""
        if not strips:
            return []
        windows = np.concatenate(strips)
        pool = self.lanes * self.strip
        windows = np.concatenate(
            [
                windows[i : i + pool][draw.permutation(windows[i : i + pool].size)]
                for i in range(0, windows.size, pool)
            ]
        )
        whole = windows.size // self.batch_size * self.batch_size
        batches = np.sort(windows[:whole].reshape(-1, self.batch_size), axis=1)
        per_pool = pool // self.batch_size
        return [batches[i : i + per_pool] for i in range(0, len(batches), per_pool)]


def choose_strips(
    windows: int,
    *,
    length: int,
    batch_size: int,
    step_bytes: int,
    memory: int | None = None,
    chunk: int = 1,
) -> tuple[int, int]:
    """Block and mixed of a WindowPlan: as much mixing as two groups in `memory` bytes allow.

    windows: how many there are; length: steps of each; step_bytes: of one step of all channels;
    memory: of all workers together, for blocks and two batches; see ORDER_MEMORY for None;
    chunk: steps that storage decodes together.

    Where the steps of all windows fit, windows are shuffled freely: block is 1. Otherwise a strip
    is up to sixteen times as long as what is decoded for it in vain (its last window's further
    steps, and parts of chunks at its ends), and as many are mixed as fit with eight times as much.
    Where memory is short, fewer are mixed, down to ENOUGH_MIXED, and then strips become half as
    long, then shorter still, but rather than read more in vain than in use, fewer of them are
    mixed.
    Raises DataError where memory does not suffice for any.
    """
    batch = batch_size * length * step_bytes
    if memory is None:
        memory = max(ORDER_MEMORY, ORDER_BATCHES * batch)
    steps = (memory - min(RESERVE, memory // 4) - 2 * batch) // step_bytes
    if windows + length - 1 <= steps:
        return 1, batch_size
    vain = length - 1 + chunk - 1
    divisors = [k for k in range(batch_size, 0, -1) if batch_size % k == 0]
    enough = [k for k in divisors if k >= min(ENOUGH_MIXED, batch_size)]
    wanted = [(8 * vain, enough), (4 * vain, enough), (vain, divisors)]
    wanted += [(length - 1, divisors), (1, divisors)]
    for least, mixed in ((least, k) for least, several in wanted for k in several):
        per_lane = batch_size // mixed
        fitting = steps // (2 * mixed) - per_lane * (length - 1)
        spare = min(chunk - 1, max(fitting, 0) // 16)  # of the last chunk, for the next strip
        block = min(16 * vain, fitting - spare) // per_lane * per_lane
        if block >= max(least, per_lane):
            return block, mixed
    needed = 4 * batch + min(RESERVE, 4 * batch // 3)
    raise DataError(
        f"A memory of {format_size(memory)} does not hold two batches of {format_size(batch)} "
        f"and the steps that they come from; {format_size(needed)} are "
        "needed. Increase data.memory, or reduce training.batch_size, horizon or the number of "
        "channels."
    )


def plan_windows(
    times: NDArray[np.datetime64],
    *,
    period: tuple[pd.Timestamp, pd.Timestamp],
    history: int,
    horizon: int,
    step: np.timedelta64,
    unusable: Iterable[np.datetime64] = (),
) -> Starts:
    """Where the windows of a period begin; none crosses a gap or the period's edge.

    times: of the cube, strictly increasing.
    period: first and last moment, both included.
    Raises DataError where the period holds no window.
    """
    inside = (times >= period[0].to_datetime64()) & (times <= period[1].to_datetime64())
    position = np.flatnonzero(inside)
    starts = valid_starts(times[inside], length=history + horizon, step=step, unusable=unusable)
    if starts.size == 0:
        first, last = pd.Timestamp(times[0]), pd.Timestamp(times[-1])
        interval = format_duration(pd.Timedelta(step).to_pytimedelta())
        raise DataError(
            f"The period {period[0]:{MINUTES}} to {period[1]:{MINUTES}} holds no window of "
            f"{history} + {horizon} steps of {interval}: of the {times.size} times from "
            f"{first:{MINUTES}} to {last:{MINUTES}}, {position.size} lie in it. Change the period, "
            "or shorten history or horizon."
        )
    return position[starts]


def evenly_spaced(starts: Starts, number: int) -> Starts:
    """At most so many of the starts, in order of time, as evenly spaced as they can be."""
    if number >= starts.size:
        return starts
    return starts[np.linspace(0, starts.size - 1, number).round().astype("int64")]


def share(groups: Sequence[Starts], *, rank: int, world: int) -> list[Starts]:
    """The consecutive part of each batch (batch, window) of each group that a worker takes.

    Parts differ by one window at most. With weights len(part) / len(batch), the sum over workers
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


def _skip(groups: list[Starts], batches: int) -> list[Starts]:
    """The groups without their first batches."""
    ends = np.cumsum([len(group) for group in groups])
    kept = [
        group[max(len(group) - (end - batches), 0) :]
        for group, end in zip(groups, ends, strict=True)
    ]
    return [group for group in kept if len(group)]


def _cut(run: Starts, size: int, first: int) -> list[Starts]:
    """A run of consecutive starts in strips of some size, and a shorter one at either end."""
    edges = np.arange(first, run.size, size)
    return [strip for strip in np.split(run, edges) if strip.size]


def _chained(number: int, length: int, draw: "_Draw") -> NDArray[np.int64]:
    """The numbers below `number` in chains of so many consecutive ones, these in random order."""
    chains = np.array_split(np.arange(number), math.ceil(number / length))
    return np.concatenate([chains[i] for i in draw.permutation(len(chains))])


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
