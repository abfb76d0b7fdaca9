"""How a prepared store is laid out, and what it takes to write it."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta

import numcodecs
import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.config import format_size
from climlstm.data.cube.cube import CubePlan
from climlstm.data.store.prefetch import jobs_of, read_jobs
from climlstm.data.store.stored_part import make_parts
from climlstm.steps import format_duration

CHUNK_BYTES = 1 << 19
"""Decoded bytes of a chunk, about: large against the cost of a call, small against a segment."""

SHARD_BYTES = 1 << 25
"""Decoded bytes of a shard, one file: few files, and what one task holds of each channel."""


@dataclass(frozen=True)
class Layout:
    """Steps in a chunk and in a shard; both span the whole plane."""

    chunk: int
    shard: int


@dataclass(frozen=True)
class Estimate:
    """Bytes, files and time that a preparation takes, reckoned from a sample of it."""

    decoded: int
    """Bytes of the cube in memory."""
    stored: int
    """Bytes on disk."""
    files: int
    seconds: float
    """Time in this process, on all its processors."""

    def __str__(self) -> str:
        taken = timedelta(seconds=max(1, round(self.seconds)))
        return (
            f"{format_size(self.decoded)} in memory, about {format_size(self.stored)} on disk in "
            f"{self.files} files; about {format_duration(taken)} on the {CPU_COUNT} processors of "
            "this machine"
        )


def choose_layout(plane: tuple[int, int], steps: int) -> Layout:
    """Chunks for a plane of (H, W) cells in float32, and at most so many steps."""
    plane_bytes = 4 * plane[0] * plane[1]
    chunk = min(max(1, CHUNK_BYTES // plane_bytes), steps)
    return Layout(chunk, max(1, min(SHARD_BYTES // plane_bytes, steps) // chunk) * chunk)


def estimate(plan: CubePlan) -> Estimate:
    """The cost of preparing a cube, from a few chunks at its beginning, middle and end."""
    cube, layout = plan.cube, layout_of(plan)
    steps = cube.sizes["time"]
    channels = channels_of(plan)
    seconds, stored, sampled = 0.0, 0, 0
    for part in make_parts(plan, channels):
        for first in {0, steps // 2 // layout.chunk * layout.chunk, max(steps - layout.chunk, 0)}:
            begun = time.perf_counter()
            jobs = jobs_of(part, np.arange(first, min(first + layout.chunk, steps)))
            sizes = read_jobs(jobs, _encoded_sizes, None)
            stored += sum(encoded for encoded, _ in sizes)
            sampled += sum(plain for _, plain in sizes)
            seconds += time.perf_counter() - begun
    decoded = 4 * steps * len(channels) * math.prod(plane_of(plan))
    return Estimate(
        decoded=decoded,
        stored=int(stored / sampled * decoded),
        files=len(channels) * -(-steps // layout.shard),
        seconds=seconds / sampled * decoded / CPU_COUNT,
    )


def _encoded_sizes(_: int, read: list[NDArray]) -> tuple[int, int]:
    """Bytes of values in the store, and in memory."""
    codec = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
    blocks = [np.ascontiguousarray(values, dtype="float32") for values in read]
    return sum(len(codec.encode(b)) for b in blocks), sum(b.nbytes for b in blocks)


def channels_of(plan: CubePlan) -> tuple[str, ...]:
    """The channels of a cube that change in time."""
    return tuple(r.channel.name for r in plan.recipes if not r.channel.variable.static)


def plane_of(plan: CubePlan) -> tuple[int, int]:
    """Rows and columns of a cube."""
    return plan.grid.shape


def layout_of(plan: CubePlan) -> Layout:
    """Chunks and shards of a plan's prepared store."""
    return choose_layout(plane_of(plan), plan.times.indices.size)
