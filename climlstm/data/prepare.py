"""Lays a cube out for training: plain CF Zarr v3 in the chunks that stream best.

The store opens like any other source. It is written beside its final place, shard by shard, by
any Dask scheduler, and takes its name when it is whole; an interrupted preparation goes on.
"""

import hashlib
import json
import logging
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.base
import numpy as np
import xarray as xr
import zarr
from dask import threaded
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from climlstm.calendars import within
from climlstm.config import DataConfig, format_size
from climlstm.data.cube.cube import DIMS, CubePlan, plan_cube
from climlstm.data.estimate import Estimate, Layout, channels_of, estimate, layout_of, plane_of
from climlstm.data.sources.origin import open_zarr
from climlstm.data.statistics.compute import STATISTICS, compute_statistics
from climlstm.data.statistics.statistics import Statistics
from climlstm.data.store.memory import Scratch
from climlstm.data.store.parts import Part
from climlstm.data.store.prefetch import jobs_of, read_jobs
from climlstm.data.store.stored import write_object
from climlstm.data.store.stored_part import make_parts
from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.grid.axes import AxisPoints

logger = logging.getLogger(__name__)

CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)
"""Codec of the chunks: it decodes two to three times faster than any setting of Zstandard, for a
sixth more bytes."""

MARGIN = 1.1
"""Free space that the disk must have, over the bytes that are expected to be written."""

NOTE = ".preparing.json"
"""File in an unfinished store that says what it will be."""

SECONDS_BETWEEN_REPORTS = 1.0

Progress = Callable[[int, int], None]
"""Called with the number of tasks that are done, and of all."""


def restrict(plan: CubePlan, data: DataConfig) -> CubePlan:
    """The plan with the times from the first period's start to the last one's end."""
    spans = data.periods.spans.values()
    whole = min(first for first, _ in spans), max(last for _, last in spans)
    inside = within(plan.times.values, whole)
    if not inside.any():
        raise DataError(
            f"The source has no time within the periods ({whole[0]} to {whole[1]}); its times "
            f"go from {plan.times.values[0]} to {plan.times.values[-1]}. Change data.periods."
        )
    times = AxisPoints(plan.times.indices[inside], plan.times.values[inside])
    return replace(plan, times=times)


def prepare(
    plan: CubePlan,
    out: Path,
    *,
    data: DataConfig | None = None,
    expected: Estimate | None = None,
    scheduler: Any = "threads",
    progress: Progress | None = None,
) -> Path:
    """Write a cube as Zarr v3, chunks by the block and sharded, or go on with writing it.

    out: a folder that does not exist; on a file system that all workers of the scheduler see.
    data: with it, the statistics of the training period are put into the store.
    expected: the result of `estimate`, if it is known.
    scheduler: one of Dask, by its name or as a function ('threads', a dask.distributed Client's
    get); or an executor, such as one of processes or of Ray, which computes the statistics, too.

    Raises DataError where the folder exists, the disk is too small, or an unfinished store beside
    it holds something else.
    """
    check_free(out)
    unfinished = out.with_name(out.name + ".unfinished")
    layout = layout_of(plan)
    writer = _Writer(plan, unfinished.resolve(), layout, _digest(plan, layout))
    _start(writer, expected)
    with _reported(writer, progress):
        _write_all(writer, scheduler)
    _finish(unfinished, data, scheduler if isinstance(scheduler, Executor) else None)
    unfinished.replace(out)
    return out


def check_free(out: Path) -> None:
    """Raises DataError where there is something already."""
    if out.exists():
        raise DataError(
            f"There is something at '{out}' already. Delete it, or choose another place."
        )


@dataclass(frozen=True)
class _Writer:
    """Writes shards. Workers receive it by pickling, and open source and store for themselves."""

    plan: CubePlan
    folder: Path
    layout: Layout
    digest: str

    def jobs(self) -> list[tuple[int, int]]:
        """Part and shard of each task."""
        shards = -(-self.plan.times.indices.size // self.layout.shard)
        return [(p, s) for s in range(shards) for p in range(len(_parts(self)))]

    def missing(self) -> list[tuple[int, int]]:
        """Jobs whose shards are not all there yet."""
        return [
            (part, shard)
            for part, shard in self.jobs()
            if not all(self._shard_file(c, shard).exists() for c in _parts(self)[part].channels)
        ]

    def write(self, part: int, shard: int) -> None:
        """Read a shard's steps of a part's channels, and write each, whole or not at all."""
        first = shard * self.layout.shard
        last = min(first + self.layout.shard, self.plan.times.indices.size)
        source = _parts(self)[part]
        shape = (len(source.channels), self.layout.shard, *plane_of(self.plan))
        values = _shards.take(0, shape, np.dtype("float32"))
        values[:, last - first :] = np.nan
        jobs = jobs_of(source, np.arange(first, last))

        def fill(number: int, read: list[NDArray]) -> None:
            steps = jobs[number][1]
            for channel, block in enumerate(read):
                values[channel, steps[0] - first : steps[-1] + 1 - first] = block

        read_jobs(jobs, fill, None)
        for channel, block in zip(source.channels, values, strict=True):
            array = zarr.open_array(self.folder / channels_of(self.plan)[channel], mode="r")
            with (
                writing(self.folder),
                write_whole(self._shard_file(channel, shard)) as written,
            ):
                write_object(array, block, written)

    def _shard_file(self, channel: int, shard: int) -> Path:
        return self.folder / channels_of(self.plan)[channel] / "c" / str(shard) / "0" / "0"


def _write_all(writer: _Writer, scheduler: Any) -> None:
    """Write the missing shards, by Dask or an executor."""
    jobs = writer.missing()
    if isinstance(scheduler, Executor):
        futures = [scheduler.submit(writer.write, *job) for job in jobs]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
    else:
        shared = dask.delayed(writer, pure=False, traverse=False)  # sent to each worker once
        tasks = [dask.delayed(_Writer.write)(shared, *job) for job in jobs]
        dask.compute(*tasks, scheduler=scheduler)


_shards = Scratch()
"""Memory for one shard of each channel of a part, in each thread that writes."""

_known_parts: dict[str, tuple[Part, ...]] = {}
_known_parts_lock = threading.Lock()


def _parts(writer: _Writer) -> tuple[Part, ...]:
    """The parts of the cube, found once in each process."""
    with _known_parts_lock:
        if writer.digest not in _known_parts:
            _known_parts.clear()
            _known_parts[writer.digest] = make_parts(writer.plan, channels_of(writer.plan))
        return _known_parts[writer.digest]


def _start(writer: _Writer, expected: Estimate | None) -> None:
    """Write everything but the channels' values, unless that was done before."""
    folder = writer.folder
    if folder.exists():
        note = folder / NOTE
        found = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        if found.get("digest") != writer.digest:
            raise DataError(
                f"'{folder}' holds an unfinished store of other data, or of another layout. "
                "Delete it, or finish it with the run file that it was begun with."
            )
        return
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(folder.parent, expected or estimate(writer.plan))
    plane = plane_of(writer.plan)
    encoding: dict[str, dict[str, Any]] = {
        name: {
            "chunks": (writer.layout.chunk, *plane),
            "shards": (writer.layout.shard, *plane),
            "compressors": [CODEC],
        }
        for name in channels_of(writer.plan)
    }
    template = _template(writer.plan)
    with writing(folder), write_whole(folder) as begun:
        template.to_zarr(begun, compute=False, encoding=encoding, zarr_format=3, consolidated=False)
        (begun / NOTE).write_text(json.dumps({"digest": writer.digest}), encoding="utf-8")


def _check_disk(folder: Path, expected: Estimate) -> None:
    free = shutil.disk_usage(folder).free
    if expected.stored * MARGIN > free:
        raise DataError(
            f"About {format_size(expected.stored)} are to be written, but '{folder}' has only "
            f"{format_size(free)} free. Choose another place, a shorter period, a smaller region "
            "or fewer channels."
        )


def _template(plan: CubePlan) -> xr.Dataset:
    """The cube with static variables read, and channels that have a shape and no values."""
    cube = plan.cube
    channels = channels_of(plan)
    static = cube.drop_vars(channels).compute(scheduler=threaded.get)
    empty = {
        name: cube[name].copy(data=da.zeros(cube[name].shape, dtype="float32", chunks=-1))
        for name in channels
    }
    return static.assign(empty)


def _finish(folder: Path, data: DataConfig | None, executor: Executor | None) -> None:
    """Put the statistics in, and the metadata of all arrays into one place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", module="zarr")
        warnings.filterwarnings("ignore", message="Object at", module="zarr")  # the note
        zarr.consolidate_metadata(folder)
        if data is not None:
            statistics = _statistics(folder.resolve(), data, executor)
            zarr.open_group(folder, mode="r+").attrs[STATISTICS] = statistics.to_dict()
            zarr.consolidate_metadata(folder)
    (folder / NOTE).unlink()


def _statistics(folder: Path, data: DataConfig, executor: Executor | None) -> Statistics:
    """Statistics of the training period, with the gaps of all periods, of a written store."""
    plain = data.model_copy(update={"region": None, "coarsen": 1, "static": ()})
    plan = plan_cube(open_zarr(folder), plain)
    train, *others = data.periods.spans.values()
    return compute_statistics(
        plan,
        channels=data.from_source,
        train=train,
        others=others,
        executor=executor,
    )


@contextmanager
def _reported(writer: _Writer, progress: Progress | None) -> Iterator[None]:
    """Report how many jobs are done, every second or more and at the end, whoever runs them."""
    if progress is None:
        yield
        return
    done = threading.Event()
    total = len(writer.jobs())

    def watch() -> None:
        pause = SECONDS_BETWEEN_REPORTS
        while not done.wait(pause):
            begun = time.perf_counter()
            progress(total - len(writer.missing()), total)
            pause = max(SECONDS_BETWEEN_REPORTS, 20 * (time.perf_counter() - begun))

    thread = threading.Thread(target=watch, name="climlstm-prepare", daemon=True)
    thread.start()
    try:
        yield
        progress(total, total)
    finally:
        done.set()
        thread.join()


def _digest(plan: CubePlan, layout: Layout) -> str:
    """Digest of all that is written: lazy computations by Dask's names, grid, times, layout."""
    cube = plan.cube
    names = {str(name): dask.base.tokenize(cube[name].data) for name in cube.data_vars}
    axes = [dask.base.tokenize(cube[dim].values) for dim in DIMS]
    content = json.dumps([names, axes, layout.chunk, layout.shard], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
