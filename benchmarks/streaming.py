"""How fast do windows of a Zarr cube reach the network? Our stream beside what people use today.

Makes cubes of synthetic weather, then runs each way of cutting windows of 12 + 12 steps in random
order into normalised, batched tensors, in turn and several times. The limit is the slower of
decoding every chunk once on all cores with nothing else, and one copy of the block.

    python benchmarks/streaming.py [--quick] [--json FILE] [--folder DIR]
        [--grid 240x121 ...] [--layout t24-lz4 ...] [--part windows ...] [--rounds 3]

Without options all of it: hours on two cores. With --folder cubes are kept for the next run. Parts:
windows (all ways beside the limit), graph (what Dask costs), first (time to the first batch),
beginning (the first epochs, and what check foretells of them),
memory (ten passes), whole (statistics, prepare), remote (an S3 server with 50 ms of latency).
Needs xbatcher and tensorstore for the ways it compares with (`pip install xbatcher tensorstore`).
"""

import argparse
import gc
import json
import shutil
import statistics as stats
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import torch
import xarray as xr
import zarr
from dask.system import CPU_COUNT
from obstore.store import S3Store
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import FsspecStore, ObjectStore

from climlstm.audit.cost import reading_cost
from climlstm.config import DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.prepare import prepare
from climlstm.data.sources.origin import open_zarr
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.store.prefetch import jobs_of, read_jobs
from climlstm.data.store.remote import Cache
from climlstm.data.store.stored import write_object
from climlstm.data.windows.plan import WindowPlan, choose_segments
from climlstm.data.windows.stream import WindowStream

OURS = "climlstm"
HISTORY, HORIZON = 12, 12
LENGTH = HISTORY + HORIZON
UNITS = {"t2m": "K", "msl": "Pa", "u10": "m s-1", "v10": "m s-1", "z500": "m2 s-2", "t850": "K"}
MEAN, STD = np.float32(280), np.float32(12)
"""All channels hold the same kind of numbers."""
CODECS = {
    "lz4": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4),
    "zstd": ZstdCodec(level=0),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A cube, how it is stored, and how it is used."""

    rows: int
    columns: int
    channels: int
    steps: int
    chunk: int
    shard: int | None
    codec: str
    batch_size: int
    share: float = 1 / 3
    """Of the cube, that is the memory budget of the stream: too little to keep it."""

    @property
    def name(self) -> str:
        layout = f"t{self.chunk}" + (f" in shards of {self.shard}" if self.shard else "")
        return f"{self.columns}x{self.rows} {layout} {self.codec}"

    @property
    def step_bytes(self) -> int:
        return 4 * self.channels * self.rows * self.columns

    @property
    def memory(self) -> int:
        """Budget of the stream."""
        return int(self.share * self.steps * self.step_bytes)


GRIDS = {"64x32": (32, 64, 6, 32), "240x121": (121, 240, 4, 8), "1440x721": (721, 1440, 4, 1)}
"""Rows, columns, channels and windows in a batch."""

STEPS = {"64x32": 35_040, "240x121": 13_872, "1440x721": 432}
"""Cubes of 24 and 9.5 years and of 108 days, of 1.7, 6.4 and 7.2 GB. The stream may fill a third of
them, of the finest grid two thirds, whose windows are of 0.4 GB. At 240x121 that is 2 GiB: what
the order of windows reckons with where a run file names no memory."""

LAYOUTS = {
    f"t{chunk}{f's{shard}' if shard else ''}-{codec}": (chunk, shard, codec)
    for codec in ("lz4", "zstd")
    for chunk, shard in ((24, None), (1, None), (1, 24))
}
"""Steps in a chunk and in a shard, and codec."""


def cases(grids: list[str], layouts: list[str], *, quick: bool) -> Iterator[Case]:
    for grid in grids:
        rows, columns, channels, batch_size = GRIDS[grid]
        for layout in layouts:
            case = Case(rows, columns, channels, STEPS[grid], *LAYOUTS[layout], batch_size)
            case = replace(case, share=2 * case.share) if batch_size == 1 else case
            yield replace(case, steps=case.steps // 8, share=0.9) if quick else case


def make_cube(folder: Path, case: Case) -> Path:
    """Waves that travel, seasons, and noise with a memory, rounded as GRIB packing does."""
    place = folder / f"{case.name.replace(' ', '-')}-{case.steps}"
    if place.exists():
        return place
    partial = place.with_name(f".{place.name}")
    random = np.random.default_rng(0)
    latitude = np.linspace(90, -90, case.rows)
    longitude = np.arange(case.columns) * 360 / case.columns
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None]
    noise = random.standard_normal((16, case.rows, case.columns), dtype="float32")
    mean = (250 + 40 * np.cos(phi)).astype("float32")
    group = zarr.open_group(partial, mode="w", zarr_format=3)
    for channel in list(UNITS)[: case.channels]:
        array = group.create_array(
            channel,
            shape=(case.steps, case.rows, case.columns),
            chunks=(case.chunk, case.rows, case.columns),
            shards=None if case.shard is None else (case.shard, case.rows, case.columns),
            compressors=[CODECS[case.codec]],
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("time", "latitude", "longitude"),
            attributes={"units": UNITS[channel]},
        )
        block = np.empty((24, case.rows, case.columns), dtype="float32")
        for first in range(0, case.steps, 24):
            for step in range(24):
                wave = np.sin(6 * lam - 0.2 * (first + step) + 3 * phi) * np.cos(phi) ** 2
                shift = int(random.integers(case.columns))
                field = mean + 12 * wave + 0.5 * np.roll(noise[random.integers(16)], shift, axis=1)
                block[step] = np.round(field * 512) / 512
            array[first : first + 24] = block[: case.steps - first]
    times = np.arange(case.steps) * 6
    axes = {"time": (times, "hours since 2000-01-01"), "latitude": (latitude, "degrees_north")}
    axes |= {"longitude": (longitude, "degrees_east")}
    for name, (values, units) in axes.items():
        attributes = {"units": units, "standard_name": name}
        axis = group.create_array(name, data=values, dimension_names=(name,), attributes=attributes)
        assert axis.shape == values.shape
    zarr.consolidate_metadata(partial)
    return partial.rename(place)


def open_plan(store: Any) -> CubePlan:
    """The cube as climlstm sees it."""
    source = open_zarr(store)
    channels = tuple(name for name in UNITS if name in source)
    day = {"valid": ("2100-01-01", "2100-01-01"), "test": ("2101-01-01", "2101-01-01")}
    periods = {"train": ("2000-01-01", "2050-01-01"), **day}
    return plan_cube(
        source,
        DataConfig(catalog="-", source="-", state=channels, step="6h", periods=periods),
    )


def open_stream(plan: CubePlan, memory: int, **options: Any) -> WindowStream:
    channels = tuple(recipe.channel.name for recipe in plan.recipes)
    return WindowStream(
        plan,
        channels=channels,
        **{"history": HISTORY, "horizon": HORIZON} | options,
        mean=np.full(len(channels), MEAN),
        std=np.full(len(channels), STD),
        memory=memory,
    )


def order(case: Case, stream: WindowStream) -> WindowPlan:
    windows = case.steps - stream.length + 1
    segment, mixed = choose_segments(
        windows,
        length=stream.length,
        batch_size=case.batch_size,
        step_bytes=case.step_bytes,
        memory=stream.memory,
        chunk=stream.reader.chunk_steps,
    )
    return WindowPlan(
        np.arange(windows), batch_size=case.batch_size, seed=0, segment=segment, mixed=mixed
    )


# Each way takes (store, case, seconds) and gives windows a second, after one batch to warm up.


def ours(store: Path, case: Case, seconds: float) -> float:
    """Whole epochs, so that what is read ahead at the end counts for nothing; the first one, in
    which the system gives and clears memory, warms up."""
    with open_stream(open_plan(store), case.memory) as stream:
        plan = order(case, stream)
        for _ in stream.windows(plan.groups(0)):
            pass
        windows, epoch, begun = 0, 1, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            windows += sum(len(w.init_time) for w in stream.windows(plan.groups(epoch)))
            epoch += 1
        return windows / (time.perf_counter() - begun)


def timed(batches: Iterator[torch.Tensor], seconds: float) -> float:
    next(batches)
    windows, begun = 0, time.perf_counter()
    for batch in batches:
        windows += len(batch)
        if time.perf_counter() - begun > seconds:
            break
    return windows / (time.perf_counter() - begun)


def loader(dataset: Any, case: Case, workers: int = 0) -> Iterator[torch.Tensor]:
    options: dict[str, Any] = {}
    if workers:
        options = {"num_workers": workers, "multiprocessing_context": "forkserver"}
    batch_size = case.batch_size
    return iter(torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, **options))


class Windows(torch.utils.data.Dataset):
    """One window at a time, by a function of its start; normalised."""

    def __init__(self, read: Callable[[int], np.ndarray], windows: int):
        self.read = read
        self.windows = windows

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, start: int) -> torch.Tensor:
        return torch.from_numpy((self.read(start) - MEAN) / STD)


def by_xarray(store: Path, case: Case, seconds: float) -> float:
    source = xr.open_zarr(store, chunks={})[list(UNITS)[: case.channels]]

    def read(start: int) -> np.ndarray:
        return source.isel(time=slice(start, start + LENGTH)).to_array().values.swapaxes(0, 1)

    return timed(loader(Windows(read, case.steps - LENGTH), case), seconds)


def by_xbatcher(store: Path, case: Case, seconds: float, workers: int = 0) -> float:
    return timed(loader(XbatcherWindows(store, case), case, workers), seconds)


class XbatcherWindows(Windows):
    """As Earthmover's and xbatcher's examples feed a DataLoader."""

    def __init__(self, store: Path, case: Case):
        import xbatcher

        source = xr.open_zarr(store, chunks={})[list(UNITS)[: case.channels]]
        generator = xbatcher.BatchGenerator(
            source,
            input_dims={"time": LENGTH, "latitude": case.rows, "longitude": case.columns},
            input_overlap={"time": LENGTH - 1},
            preload_batch=False,
        )
        super().__init__(
            lambda i: generator[i].load().to_array().values.swapaxes(0, 1), len(generator)
        )
        self.store, self.case = store, case

    def __reduce__(self) -> tuple[Any, ...]:
        return XbatcherWindows, (self.store, self.case)


def by_zarr(store: Path, case: Case, seconds: float) -> float:
    group = zarr.open_group(store, mode="r")
    arrays: list[Any] = [group[name] for name in list(UNITS)[: case.channels]]

    def read(start: int) -> np.ndarray:
        return np.stack([array[start : start + LENGTH] for array in arrays], axis=1)

    return timed(loader(Windows(read, case.steps - LENGTH), case), seconds)


def by_tensorstore(store: Path, case: Case, seconds: float) -> float:
    import tensorstore

    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 300_000_000}})
    arrays = [
        tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / name}/"}},
            context=context,
        ).result()
        for name in list(UNITS)[: case.channels]
    ]

    def read(start: int) -> np.ndarray:
        futures = [array[start : start + LENGTH].read() for array in arrays]
        return np.stack([future.result() for future in futures], axis=1)

    return timed(loader(Windows(read, case.steps - LENGTH), case), seconds)


WAYS: dict[str, Callable[[Path, Case, float], float]] = {
    OURS: ours,
    "xbatcher + DataLoader": by_xbatcher,
    "xbatcher + DataLoader, 2 workers": partial(by_xbatcher, workers=2),
    "xarray + Dask per window": by_xarray,
    "zarr-python per window": by_zarr,
    "tensorstore, cached, per window": by_tensorstore,
}


def decode_seconds(plan: CubePlan) -> float:
    """Every chunk decoded once on all cores into memory that is used again, and nothing else."""
    with open_stream(plan, 10**9) as stream:
        steps = np.arange(stream.reader.times.size)
        jobs = [job for part in stream.reader.parts for job in jobs_of(part, steps)]
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            begun = time.perf_counter()
            list(pool.map(lambda job: job[0].read(job[1]), jobs))
            return time.perf_counter() - begun


def copy_seconds(case: Case) -> float:
    """One copy of as many bytes as the cube has, on all cores, to memory that is used again."""
    size = min(case.steps * case.step_bytes, 1 << 28) // 4 // CPU_COUNT
    source, target = (np.ones((CPU_COUNT, size), dtype="float32") for _ in range(2))
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        begun = time.perf_counter()
        list(pool.map(np.copyto, target, source))
        taken = time.perf_counter() - begun
    return taken * case.steps * case.step_bytes / source.nbytes


def measure_windows(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """All ways in turn, so that a slow hour of the machine strikes them alike."""
    seconds = 1.0 if options.quick else 4.0
    left_out = ("2 workers", "tensorstore") if options.quick else ()
    ways = {name: way for name, way in WAYS.items() if not any(w in name for w in left_out)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    decoding, copying = [], []
    for _ in range(options.rounds):
        plan = open_plan(store)
        for name, way in ways.items():
            if name == OURS:  # beside what it is compared with most closely
                decoding.append(case.steps / decode_seconds(plan))
                copying.append(case.steps / copy_seconds(case))
            rates[name].append(way(store, case, seconds))
            gc.collect()
    limit = min(stats.median(decoding), stats.median(copying))
    median = {name: stats.median(rate) for name, rate in rates.items()}
    rows = [
        row(case.name, name, rate, "windows/s", OURS, median[OURS] / rate)
        for name, rate in median.items()
    ]
    for name, found in (("decoding alone", decoding), ("copying alone", copying)):
        rate = stats.median(found)
        rows.append(row(case.name, name, rate, "steps/s", OURS, median[OURS] / rate))
    return [*rows, row(case.name, "limit", limit, "windows/s", OURS, median[OURS] / limit)]


def measure_graph(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """The same units decoded as tasks of a Dask graph, and by a pool of threads alone."""
    by_dask, by_pool = [], []
    with open_stream(open_plan(store), 10**9) as stream, ThreadPoolExecutor(CPU_COUNT) as pool:
        parts = stream.reader.parts
        jobs = [job for part in parts for job in jobs_of(part, np.arange(case.steps))]
        for _ in range(2 * options.rounds):
            begun = time.perf_counter()
            read_jobs(jobs, lambda *_: None, pool)
            by_dask.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            list(pool.map(lambda job: len(job[0].read(job[1])), jobs))
            by_pool.append(time.perf_counter() - begun)
    dask_, plain = stats.median(by_dask), stats.median(by_pool)
    return [
        row(case.name, "Dask graph", 1e3 * dask_ / len(jobs), "ms a task", "threads", dask_ / plain)
    ]


def first_batch(store: Path, case: Case, _: argparse.Namespace) -> list[Row]:
    begun = time.perf_counter()
    with open_stream(open_plan(store), case.memory) as stream:
        next(stream.windows(order(case, stream).groups(0)))
        return [row(case.name, OURS, time.perf_counter() - begun, "s to the first batch")]


BUDGETS = {"64x32": (50e6,), "240x121": (2e8, 2e9), "1440x721": (2**31,)}
"""Bytes of memory that a stream begins with: of 240x121, 10 years do not fit, 2 years do."""


def beginning(store: Path, case: Case, memory: int) -> dict[str, float]:
    """Windows of 4 + 4 steps a second in the first epochs of a process, and what `check` foretells.

    Memory is that which the process takes from the system.
    """
    process, plan = psutil.Process(), open_plan(store)
    with open_stream(plan, memory, history=4, horizon=4) as stream:
        foretold = reading_cost(stream, order(case, stream))
    found = {"foretold": foretold.windows_per_second, "ratio": foretold.ratio}
    found |= {"decoding": case.steps / decode_seconds(plan)}
    gc.collect()
    time.sleep(SETTLED)
    with open_stream(plan, memory, history=4, horizon=4) as stream:
        windows, before = order(case, stream), process.memory_info().rss
        for epoch in ("first", "second"):
            begun = time.perf_counter()
            number = sum(len(w.init_time) for w in stream.windows(windows.groups(epoch != "first")))
            found[epoch] = number / (time.perf_counter() - begun)
        found["bytes"] = process.memory_info().rss - before
    return found


SETTLED = 4
"""Seconds in which a virtual machine gives memory that was freed back to its host."""


def touch_seconds(size: int) -> float:
    """Memory that is fresh from the system written to once on all cores, and nothing else."""
    time.sleep(SETTLED)
    begun = time.perf_counter()
    fresh = np.empty((64 * CPU_COUNT, size // (64 * CPU_COUNT)), dtype="uint8")
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        list(pool.map(lambda row: row.fill(1), fresh))
    return time.perf_counter() - begun


def measure_beginning(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """Each in a process of its own; the first epoch is all that a long archive ever sees."""
    rows = []
    for memory in map(int, BUDGETS[f"{case.columns}x{case.rows}"]):
        found, touched = [], []
        for _ in range(options.rounds):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found.append(pool.submit(beginning, store, case, memory).result())
                touched.append(pool.submit(touch_seconds, int(found[-1]["bytes"])).result())
        rate = {name: stats.median(each[name] for each in found) for name in found[0]}
        decode, name = rate["decoding"], f"{OURS}, {memory / 1e6:,.0f} MB"
        floor = case.steps / (case.steps / decode + stats.median(touched))
        rows += [
            row(case.name, f"{name}, first epoch", rate["first"], "windows/s", "decoding alone",
                rate["first"] / decode),
            row(case.name, "same", rate["first"], "windows/s", "decoding, touching its memory",
                rate["first"] / floor),
            row(case.name, f"{name}, second epoch", rate["second"], "windows/s", "decoding alone",
                rate["second"] / decode),
            row(case.name, f"{name}, check foretells", rate["foretold"], "windows/s",
                "the first epoch", rate["foretold"] / rate["first"]),
            row(case.name, f"{name}, memory touched", rate["bytes"] / 1e6, "MB", "budget",
                rate["bytes"] / memory),
            row(case.name, f"{name}, decoded for one used", rate["ratio"], "bytes"),
        ]  # fmt: skip
    return rows


def passes(store: Path, case: Case, epochs: int) -> tuple[float, float]:
    """Peak of the memory that a stream adds to its process, over its budget; and that budget."""
    process = psutil.Process()
    plan = open_plan(store)
    budget = case.steps * case.step_bytes // 5
    with open_stream(plan, budget) as stream:
        windows = order(case, stream)
        before, peak, done = process.memory_info().rss, 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, process.memory_info().rss - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for epoch in range(epochs):
            for window in stream.windows(windows.groups(epoch)):
                window.target.sum()
        done.set()
        watcher.join()
    return peak, float(budget)


def measure_memory(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """In a process of its own, whose memory nothing else has touched; two windows in a batch."""
    case = replace(case, batch_size=1 if options.quick else min(case.batch_size, 2))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak, budget = pool.submit(passes, store, case, 2 if options.quick else 10).result()
    return [row(case.name, OURS, peak / 2**20, "MiB at peak", "budget", peak / budget)]


def measure_whole(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """Statistics beside decoding alone; preparation beside decoding, encoding and writing."""
    plan = open_plan(store)
    channels = tuple(recipe.channel.name for recipe in plan.recipes)
    period = (pd.Timestamp("2000-01-01"), pd.Timestamp("2050-01-01"))
    decode, taken, both, least = [], [], [], []
    for number in range(options.rounds):
        decode.append(decode_seconds(plan))
        begun = time.perf_counter()
        compute_statistics(plan, channels=channels, train=period)
        taken.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        place = prepare(plan, store.with_name(f"{store.name}-prepared-{number}"))
        both.append(time.perf_counter() - begun)
        least.append(decode[-1] + encode_seconds(place))
        shutil.rmtree(place)
    source = xr.open_zarr(store, chunks={})[list(channels)]
    begun = time.perf_counter()
    dask.compute(source.mean(), source.std())
    by_dask = time.perf_counter() - begun
    gigabytes = case.steps * case.step_bytes / 1e9
    limit, ours_, prepared, needed = map(stats.median, (decode, taken, both, least))
    return [
        row(case.name, "decoding alone", gigabytes / limit, "GB/s"),
        row(case.name, "statistics", gigabytes / ours_, "GB/s", "decoding alone", limit / ours_),
        row(case.name, "xarray mean and std", gigabytes / by_dask, "GB/s", "statistics",
            by_dask / ours_),
        row(case.name, "prepare", gigabytes / prepared, "GB/s", "decoding, encoding and writing",
            needed / prepared),
        row(case.name, "prepare", gigabytes / prepared, "GB/s", "decoding alone",
            limit / prepared),
    ]  # fmt: skip


def encode_seconds(store: Path) -> float:
    """All shards of a prepared store encoded and written once on all cores, and nothing else."""
    arrays = [zarr.open_array(store / name, mode="r") for name in UNITS if (store / name).exists()]
    values = [np.ascontiguousarray(array[: array.shards[0]]) for array in arrays]
    number = -(-arrays[0].shape[0] // arrays[0].shards[0])
    jobs = [(i, shard) for i in range(len(arrays)) for shard in range(number)]

    def write(job: tuple[int, int]) -> None:
        which, shard = job
        write_object(arrays[which], values[which], store / f"again-{which}-{shard}")

    with ThreadPoolExecutor(CPU_COUNT) as pool:
        begun = time.perf_counter()
        list(pool.map(write, jobs))
        seconds = time.perf_counter() - begun
    return seconds * arrays[0].shape[0] / (number * arrays[0].shards[0])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an S3 server of a folder, with 50 ms before each answer."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def remote_store(library: str, address: str, bucket: str, name: str) -> Any:
    if library == "obstore":
        return ObjectStore(
            S3Store(
                bucket,
                prefix=name,
                endpoint=address,
                region="none",
                skip_signature=True,
                client_options={"allow_http": True},
            ),
            read_only=True,
        )
    options = {"anon": True, "client_kwargs": {"endpoint_url": address}, "asynchronous": True}
    return FsspecStore.from_url(f"s3://{bucket}/{name}", storage_options=options, read_only=True)


def rates(store: Any, case: Case, epochs: int, cache: Cache | None = None) -> list[float]:
    """Seconds to the first batch, then windows a second in each epoch, after the first group."""
    found = []
    with open_stream(open_plan(store), case.memory, remote_cache=cache) as stream:
        plan = order(case, stream)
        for epoch in range(epochs):
            groups = plan.groups(epoch)
            skipped = len(groups[0])
            opened = begun = time.perf_counter()
            windows = 0
            for number, window in enumerate(stream.windows(groups)):
                if number == 0 and epoch == 0:
                    found.append(time.perf_counter() - opened)
                if number == skipped:
                    windows, begun = 0, time.perf_counter()
                windows += len(window.init_time)
            found.append(windows / (time.perf_counter() - begun))
    return found


def measure_remote(store: Path, case: Case, options: argparse.Namespace) -> list[Row]:
    """Beside the same cube on the local disk, in turn: the second epoch of each way."""
    names = ("local", "obstore", "s3fs, as in a catalog", "obstore, cached")
    epochs: dict[str, list[float]] = {name: [] for name in names}
    first = []
    with served(store.parent.parent) as address:
        for _ in range(options.rounds):
            for name in names:
                cached = "cached" in name
                place: Any = store
                if name != "local":
                    library = name.partition(",")[0]
                    place = remote_store(library, address, store.parent.name, store.name)
                with tempfile.TemporaryDirectory(dir=store.parent) as folder:
                    cache = Cache(Path(folder), 10**11) if cached else None
                    waited, *found = rates(place, case, 2, cache)
                epochs[name].append(found[-1])
                if name == "obstore":
                    first.append(waited)
    local = stats.median(epochs["local"])
    rows = [
        row(case.name, name, stats.median(found), "windows/s", "local", stats.median(found) / local)
        for name, found in epochs.items()
    ]
    return [*rows, row(case.name, "obstore", stats.median(first), "s to the first batch")]


PARTS: dict[str, Callable[[Path, Case, argparse.Namespace], list[Row]]] = {
    "windows": measure_windows,
    "graph": measure_graph,
    "first": first_batch,
    "beginning": measure_beginning,
    "memory": measure_memory,
    "whole": measure_whole,
    "remote": measure_remote,
}


def row(
    case: str,
    subject: str,
    value: float,
    unit: str,
    against: str | None = None,
    ratio: float | None = None,
) -> Row:
    rounded = None if ratio is None else float(f"{ratio:.3g}")
    return {"case": case, "subject": subject, "value": float(f"{value:.4g}"), "unit": unit,
            "against": against, "ratio": rounded}  # fmt: skip


def show(rows: list[Row]) -> None:
    for each in rows:
        ratio = "" if each["ratio"] is None else f"{each['ratio']:8.3g} x {each['against']}"
        print(
            f"{each['case']:32}{each['subject']:34}{each['value']:12,.5g} {each['unit']:22}{ratio}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one grid, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--grid", nargs="+", choices=GRIDS)
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS)
    parser.add_argument("--part", nargs="+", choices=PARTS)
    parser.add_argument("--rounds", type=int, help="of each measurement; their median counts")
    parser.add_argument("--folder", type=Path, help="for the cubes, which take a few GB")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    grids = options.grid or (["240x121"] if options.quick else list(GRIDS))
    layouts = options.layout or list(LAYOUTS)[: 1 if options.quick else None]
    parts = options.part or [part for part in PARTS if not (options.quick and part == "remote")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = (options.folder or Path(name)) / "cubes"
        for case in cases(grids, layouts, quick=options.quick):
            store = make_cube(folder, case)
            for part in parts:
                found = PARTS[part](store, case, options)
                show(found)
                rows += found
            if options.folder is None:
                shutil.rmtree(store)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
