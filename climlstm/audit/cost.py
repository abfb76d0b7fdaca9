"""What reading will cost: how much is decoded for what is used, how fast, and what would help."""

import time
from dataclasses import dataclass, replace

import numpy as np

from climlstm.audit.findings import Finding
from climlstm.data.store.stored_part import Steps
from climlstm.data.windows.plan import WindowPlan
from climlstm.data.windows.stream import WindowStream

SAMPLE_BYTES = 1 << 26
"""Decoded bytes that are read to measure the speed, about."""

TOO_MUCH = 1.5
"""Times as much decoded as used from which another layout is advised."""

SMALL_OBJECT = 1 << 19
"""Decoded bytes of a remote object below which latency, not the line, sets the speed."""


@dataclass(frozen=True)
class ReadingCost:
    """Of an epoch of training, by one process."""

    decoded_bytes: int
    """Of chunks, each as often as it is decoded; of the first epoch, if the cube is kept."""
    used_bytes: int
    """Of the steps that windows hold, each once, in float32."""
    kept: bool
    """Whether everything fits into memory, so that later epochs read nothing."""
    chunks: int
    """That are decoded."""
    groups: int
    """Of batches that are read together; the first batch waits for the first group."""
    windows_per_second: float
    """That reading can supply, as measured on a sample; copying and training come on top."""
    how: str
    """What decodes the channels."""
    advice: str | None
    """The one change that would help most, if any would help much."""

    @property
    def ratio(self) -> float:
        """Bytes decoded over bytes used."""
        return self.decoded_bytes / max(self.used_bytes, 1)

    def finding(self, batch_size: int, seconds_per_batch: float | None) -> Finding:
        """What the audit says of it, beside the time that training takes for a batch if known."""
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
    """What an epoch will cost, reckoned from its windows and measured on a sample of them."""
    groups = plan.groups(epoch)
    kept = stream.keeps(groups)
    reads = list(stream.reads(groups))
    used = np.unique(np.concatenate(reads))
    reads = [used] if kept else reads
    decoded = sum(part.decoded(steps)[0] for part in stream.reader.parts for steps in reads)
    chunks = sum(part.decoded(steps)[1] for part in stream.reader.parts for steps in reads)
    windows = sum(group.size for group in groups)
    cells = int(np.prod(stream.reader.shape[1:])) * len(stream.reader.channels)
    cost = ReadingCost(
        decoded_bytes=decoded,
        used_bytes=int(used.size) * cells * 4,
        kept=kept,
        chunks=chunks,
        groups=len(groups),
        windows_per_second=windows * _speed(stream, reads[0]) / max(decoded, 1),
        how=stream.reader.describe(),
        advice=None,
    )
    return replace(cost, advice=_advice(cost, stream))


def _speed(stream: WindowStream, steps: Steps) -> float:
    """Decoded bytes a second, from chunks of the first group."""
    whole = sum(part.decoded(steps)[0] for part in stream.reader.parts)
    some = steps[: max(1, int(steps.size * min(1.0, SAMPLE_BYTES / whole)))]
    out = np.empty((some.size, *stream.reader.shape), dtype="float32")
    out.fill(0)
    begun = time.perf_counter()
    stream.reader.read(some, out, wanted=np.zeros(stream.reader.times.size, dtype=bool))
    seconds = time.perf_counter() - begun
    return sum(part.decoded(some)[0] for part in stream.reader.parts) / seconds


def _advice(cost: ReadingCost, stream: WindowStream) -> str | None:
    remote = any("fetched" in part.how for part in stream.reader.parts)
    if cost.kept and not remote:
        return None  # decoded once, whatever the layout
    if any(part.how == "computed by Dask" for part in stream.reader.parts):
        return (
            "The source is not plain Zarr, so that its values are computed anew whenever they are "
            "read. 'climlstm prepare' writes them once as Zarr that streams."
        )
    if cost.ratio >= TOO_MUCH:
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
