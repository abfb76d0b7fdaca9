"""The cost of reading: bytes decoded for each byte used, speed, and which layout would help."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from climlstm.audit.findings import Finding
from climlstm.data.store.memory import reserve
from climlstm.data.store.parts import LazyPart, PlannedPart, Steps
from climlstm.data.windows.plan import WindowPlan
from climlstm.data.windows.stream import WindowStream

SAMPLE_BYTES = 1 << 26
"""Decoded bytes, about, that are read to measure the speed."""

MEASURED_SECONDS = 0.3
"""Time for which a sample is read again and again, so that a busy moment counts for little."""

MAX_READ_AMPLIFICATION = 1.5
"""Bytes decoded for each one used, from which another layout is advised."""

SMALL_OBJECT = 1 << 19
"""Decoded bytes of a remote object, below which latency and not bandwidth sets the speed."""


@dataclass(frozen=True)
class ReadingCost:
    """Cost of an epoch of training in one process."""

    decoded_bytes: int
    """Size of the chunks, counted as often as they are decoded; in the first epoch, if kept."""
    used_bytes: int
    """Size of the steps that windows hold, each counted once, in float32."""
    kept: bool
    """Whether everything fits into memory, so that later epochs read nothing."""
    chunks: int
    """Number of chunks decoded."""
    groups: int
    """Number of batch groups, each read at once; the first batch waits for the first group."""
    windows_per_second: float
    """Windows that the stream can supply, measured on a sample; training comes on top."""
    how: str
    """Description of the readers that decode the channels."""
    advice: str | None
    """The one change that would help most, if any would help much."""

    @property
    def ratio(self) -> float:
        """Bytes decoded over bytes used."""
        return self.decoded_bytes / max(self.used_bytes, 1)

    def finding(self, batch_size: int, seconds_per_batch: float | None) -> Finding:
        """The finding that compares reading with the time of a batch in training, if known."""
        rate = self.windows_per_second
        said = f"{self.ratio:.2f} bytes decoded for each one used, "
        if self.kept:
            said += f"{self.chunks:,} chunks, in the first epoch only, since all fits into memory; "
        else:
            said += f"{self.chunks / self.groups:,.0f} chunks a block, {self.groups:,} blocks; "
        said += f"reading supplies {rate:,.0f} samples/s"
        slow = False
        if seconds_per_batch is not None:
            wanted = batch_size / seconds_per_batch
            slow = rate < wanted
            said += f", one worker uses {wanted:,.3g} (steps of {seconds_per_batch:.2g} s here)"
        elif self.advice:
            slow = True
        fix = self.advice or "No other layout would help much."
        if not slow and seconds_per_batch is not None:
            fix = "Reading keeps up with training."
        return Finding(
            "reading-slow" if slow else "reading",
            "warning" if slow else "note",
            "Reading will be slower than training" if slow else "What reading will cost",
            self.how,
            said,
            fix,
        )


def reading_cost(stream: WindowStream, plan: WindowPlan, *, epoch: int = 0) -> ReadingCost:
    """The cost of an epoch, computed from its windows and measured on a sample of them."""
    groups = plan.groups(epoch)
    kept = stream.keeps(groups)
    reads = list(stream.reads(groups))
    used = np.unique(np.concatenate(reads))
    reads = [used] if kept else reads
    decoded = sum(part.decoded(steps)[0] for part in stream.reader.parts for steps in reads)
    chunks = sum(part.decoded(steps)[1] for part in stream.reader.parts for steps in reads)
    windows = sum(group.size for group in groups)
    copied = 0 if not kept else windows * stream.length
    cells = int(np.prod(stream.reader.shape[1:])) * len(stream.reader.channels)
    cost = ReadingCost(
        decoded_bytes=decoded,
        used_bytes=int(used.size) * cells * 4,
        kept=kept,
        chunks=chunks,
        groups=len(groups),
        windows_per_second=windows / _seconds(stream, reads[0], decoded, copied),
        how=stream.reader.describe(),
        advice=None,
    )
    return replace(cost, advice=_advice(cost, stream))


def _seconds(stream: WindowStream, steps: Steps, decoded: int, copied: int) -> float:
    """Seconds for decoding bytes and for copying steps into batches, from chunks of a first group.

    decoded: bytes of chunks. copied: steps that are copied out of what is kept in memory.
    """
    reader = stream.reader
    whole = sum(part.decoded(steps)[0] for part in reader.parts)
    some = steps[: max(1, int(steps.size * min(1.0, SAMPLE_BYTES / whole)))]
    anything = np.zeros(reader.times.size, dtype=bool)
    out = np.zeros((some.size, *reader.shape), dtype="float32")
    reader.read(some, out, wanted=anything)  # compiles, opens, allocates
    goal = reserve(out.shape) if copied else out  # what is kept is written to fresh memory
    taken = _median_seconds(lambda: reader.read(some, goal, wanted=anything), once=goal is not out)
    seconds = decoded / sum(part.decoded(some)[0] for part in reader.parts) * taken
    if copied:
        rows = np.arange(some.size)
        seconds += copied / some.size * _median_seconds(lambda: reader.copy(goal, rows, out))
    return max(seconds, 1e-9)


def _median_seconds(work: Callable[[], object], *, once: bool = False) -> float:
    """Median time of a call, which is repeated for MEASURED_SECONDS unless it is to run once."""
    taken: list[float] = []
    while not taken or (not once and sum(taken) < MEASURED_SECONDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def _advice(cost: ReadingCost, stream: WindowStream) -> str | None:
    remote = any("fetched" in part.how for part in stream.reader.parts)
    if cost.kept and not remote:
        return None  # decoded once, whatever the layout
    if any(isinstance(part, LazyPart | PlannedPart) for part in stream.reader.parts):
        return (
            "The source is not plain Zarr, so that its values are computed anew whenever they are "
            "read. 'climlstm prepare' writes them once as Zarr that streams."
        )
    if cost.ratio >= MAX_READ_AMPLIFICATION:
        return (
            f"{cost.ratio:.1f} times as much is decoded as used. 'climlstm prepare' writes a store "
            "of just these cells, channels and steps, in chunks that suit the windows; or increase "
            "data.memory, so that segments of consecutive windows become longer."
        )
    object_bytes = cost.decoded_bytes / cost.chunks
    if remote and object_bytes < SMALL_OBJECT:
        return (
            f"Objects of the remote store hold {object_bytes / 2**10:.0f} KiB each, so that "
            "requests set the speed. Give a folder for a cache on disk, or write a local store "
            "with 'climlstm prepare'."
        )
    return None
