"""Streamed windows are those that one cuts naively with xarray, whatever the way of reading."""

import shutil
import threading
import time
from pathlib import Path

import numcodecs
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climlstm.config import DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.sources.origin import follow, open_zarr
from climlstm.data.store import stored_part
from climlstm.data.store.stored_part import StoredPart
from climlstm.data.windows.layout import lay_out
from climlstm.data.windows.plan import (
    WindowPlan,
    in_order,
    share,
)
from climlstm.data.windows.starts import (
    plan_windows,
)
from climlstm.data.windows.stream import WindowStream
from climlstm.errors import DataError

FORCING = ("cos_zenith", "season")
CHANNELS = ("t850", "msl")
MEAN = np.array([280.0, 101325.0])
STD = np.array([10.0, 900.0])
WIND = {"ws10": 12.0}
"""Mean, and standard deviation, of the channel that is derived from u10 and v10."""


def make_cube(steps: int = 60, *, rows: int = 4, columns: int = 5, chunk: int = 7) -> xr.Dataset:
    """A cube of random weather, chunked in time."""
    random = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=steps, freq="6h").to_numpy()
    coords = {
        "time": times,
        "latitude": np.linspace(60, 30, rows),
        "longitude": np.linspace(0, 40, columns),
    }
    shape = (steps, rows, columns)
    return xr.Dataset(
        {
            name: (
                ("time", "latitude", "longitude"),
                (mean + std * random.standard_normal(shape)).astype("float32"),
            )
            for name, mean, std in zip(CHANNELS, MEAN, STD, strict=True)
        },
        coords=coords,
    ).chunk(time=chunk)


def naive(cube: xr.Dataset, starts: np.ndarray, length: int, channels=CHANNELS) -> np.ndarray:
    """(B, T + L, C, H, W) cut with xarray, one window at a time, and normalised in float32."""
    mean, std = (
        np.array([scale[name] for name in channels], "float32")[:, None, None]
        for scale in (dict(zip(CHANNELS, each, strict=True)) | WIND for each in (MEAN, STD))
    )
    windows = [cube[list(channels)].isel(time=slice(s, s + length)) for s in starts]
    arrays = [w.to_array().transpose("time", "variable", ...).values for w in windows]
    return np.stack([(a - mean) / std for a in arrays])


def open_stream(cube: CubePlan | xr.Dataset, **options) -> WindowStream:
    given = {"history": 2, "horizon": 3, "mean": MEAN, "std": STD, "channels": CHANNELS}
    return WindowStream(cube, **given | options)


def assert_naive(
    stream: WindowStream, cube: xr.Dataset, groups: list[np.ndarray], *, atol: float = 0.0
) -> None:
    """All windows of the stream are those cut with xarray: bit for bit, unless atol is given."""
    history, length = stream.history, stream.history + stream.horizon
    batches = [starts for group in groups for starts in group]
    for starts, window in zip(batches, stream.windows(groups), strict=True):
        expected = naive(cube, starts, length, stream.reader.channels)
        streamed = torch.cat([window.history, window.target], dim=1).numpy()
        np.testing.assert_allclose(streamed, expected, rtol=0, atol=atol)
        np.testing.assert_array_equal(window.init_time, cube.time.values[starts + history - 1])


@pytest.mark.parametrize("memory", [10**9, 12_000])
@pytest.mark.parametrize("segment", [1, 8])
def test_windows_equal_naive_ones(memory, segment):
    cube = make_cube()
    groups = WindowPlan(np.arange(56), batch_size=4, seed=0, segment=segment).groups(0)
    with open_stream(cube, memory=memory) as stream:
        assert_naive(stream, cube, groups)


@pytest.mark.parametrize("memory", [10**9, 12_000])
def test_forcings_are_those_of_the_steps_led_to(memory):
    cube = make_cube()
    groups = WindowPlan(np.arange(56), batch_size=4, seed=0, segment=8).groups(0)
    with open_stream(cube, memory=memory, forcing=FORCING) as stream:
        for starts, window in zip(np.concatenate(groups), stream.windows(groups), strict=True):
            led_to = cube.time.values[starts[:, None] + np.arange(1, 5)].ravel()
            fields = forcing_fields(FORCING, led_to, cube.latitude, cube.longitude)
            np.testing.assert_array_equal(window.forcing, fields.reshape(4, 4, 3, 4, 5))


CODECS = {
    "zstd": (numcodecs.Zstd(level=1), zarr.codecs.ZstdCodec(level=1)),
    "lz4": (
        numcodecs.Blosc(cname="lz4", shuffle=numcodecs.Blosc.SHUFFLE),
        zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"),
    ),
    "gzip": (numcodecs.GZip(level=1), zarr.codecs.GzipCodec(level=1)),
    "none": (None, None),
}
"""Each as Zarr v2 and v3 know it."""


@st.composite
def stores(draw) -> dict:
    """Ways to lay out the same weather in a Zarr store."""
    inner = (draw(st.sampled_from([1, 3, 7, 40])), draw(st.sampled_from([2, 6])), 8)
    return {
        "version": draw(st.sampled_from([2, 3])),
        "codec": draw(st.sampled_from(list(CODECS))),
        "chunks": inner,
        "shards": draw(st.sampled_from([None, 2, 5])),
        "order": draw(st.permutations(["time", "latitude", "longitude"])),
        "upwards": draw(st.booleans()),
        "hours": draw(st.sampled_from([3, 6])),
        "packed": draw(st.booleans()),
        "levels": draw(st.booleans()),
        "gap": draw(st.sampled_from([None, 11, 30])),
        "units": draw(st.sampled_from([("K", "Pa"), ("degC", "hPa")])),
        "wind": draw(st.booleans()),
    }


IN_UNITS = {
    "K": (280.0, 10.0),
    "degC": (6.85, 10.0),
    "Pa": (101325.0, 900.0),
    "hPa": (1013.25, 9.0),
}
"""Mean and standard deviation of the weather, in units that sources have."""


def write_store(folder: Path, layout: dict, steps: int = 60) -> xr.Dataset:
    """The weather as a store of that layout, opened again."""
    random = np.random.default_rng(1)
    times = pd.date_range("2020-01-01", periods=steps, freq=f"{layout['hours']}h").to_numpy()
    if layout["gap"] is not None:
        times = np.delete(times, slice(layout["gap"], layout["gap"] + 4))
    latitude = np.linspace(60, 10, 6)
    if layout["upwards"]:
        latitude = latitude[::-1]
    coords = {"time": times, "latitude": latitude, "longitude": np.arange(0, 40, 5.0)}
    dims = ("time", "latitude", "longitude")
    source = xr.Dataset(coords=coords)
    encoding = {}
    t, msl = layout.get("units", ("K", "Pa"))
    weather = [("t", *IN_UNITS[t], t), ("msl", *IN_UNITS[msl], msl)]
    if layout.get("wind"):
        weather += [("u10", 5.0, 9.0, "m s-1"), ("v10", 0.0, 9.0, "m s-1")]
    for name, mean, std, units in weather:
        values = (mean + std * random.standard_normal((times.size, 6, 8))).astype("float32")
        variable = xr.DataArray(values, dims=dims, coords=coords, attrs={"units": units})
        sizes = dict(zip(dims, layout["chunks"], strict=True))
        if name == "t" and layout["levels"]:
            variable = xr.concat([variable - 9, variable, variable + 9], dim="level")
            variable = variable.assign_coords(level=[500, 850, 1000])
            sizes["level"] = 2
        elif name == "t":
            name = "t850"
        variable = variable.transpose(*layout["order"], ...)
        chunks = tuple(min(sizes[d], variable.sizes[d]) for d in variable.dims)
        source[name] = variable
        codec = CODECS[layout["codec"]][layout["version"] - 2]
        encoding[name] = {"chunks": chunks, "compressors": codec}
        if layout["packed"]:
            packing = {"scale_factor": std / 4000, "add_offset": mean, "_FillValue": -32768}
            encoding[name] |= {"dtype": "int16"} | packing
        if layout["version"] == 3 and layout["shards"]:
            along = variable.dims.index("time")
            shards = [c * (layout["shards"] if i == along else 1) for i, c in enumerate(chunks)]
            encoding[name]["shards"] = tuple(shards)
    place = folder / f"{time.monotonic_ns()}.zarr"
    source.to_zarr(place, encoding=encoding, zarr_format=layout["version"], consolidated=False)
    return open_zarr(place, consolidated=False)


def plan_of(source: xr.Dataset, **options) -> CubePlan:
    periods = {
        "train": ("2020-01-01", "2020-01-20"),
        "valid": ("2021-01-01", "2021-01-02"),
        "test": ("2022-01-01", "2022-01-02"),
    }
    given = {"catalog": "-", "source": "-", "state": ("t850", "msl"), "step": "6h"}
    return plan_cube(source, DataConfig(**given | options, periods=periods))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stores")


CASES = {
    "layout": stores(),
    "cells": st.sampled_from(
        [{}, {"coarsen": 2}, {"region": {"latitude": (15, 45), "longitude": (3, 22)}}]
    ),
    "straight": st.booleans(),
    "decoded": st.booleans(),
    "memory": st.sampled_from([10**9, 60_000]),
    "batches": st.sampled_from([(1, 2, 2), (1, 6, 6), (5, 4, 4), (6, 4, 2), (6, 3, 1)]),
    "workers": st.integers(1, 2),
    "resumed": st.integers(0, 4),
}
RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=10, **RELAXED)
@given(**CASES)
def test_windows_equal_naive_ones_however_stored(folder, **case):
    check_windows(folder, **case)


@pytest.mark.slow
@settings(max_examples=200, **RELAXED)
@given(**CASES)
def test_windows_equal_naive_ones_in_many_cases(folder, **case):
    check_windows(folder, **case)


def check_windows(
    folder, *, layout, cells, straight, decoded, memory, batches, workers, resumed
) -> None:
    """Stream the store with so many workers, from the middle of an epoch on, beside xarray."""
    source = write_store(folder, layout)
    if not decoded:
        place = source.encoding["source"]
        source = open_zarr(place, consolidated=False, mask_and_scale=False)
    channels = (*CHANNELS, "ws10") if layout["wind"] else CHANNELS
    plan = plan_of(source, state=channels, **cells)
    cube = plan.cube
    scales = {"channels": channels} | {
        name: np.append(scale, 12.0)[: len(channels)]
        for name, scale in (("mean", MEAN), ("std", STD))
    }
    period = (pd.Timestamp("2020-01-01T12"), pd.Timestamp("2020-01-14"))
    starts = plan_windows(
        cube.time.values, period=period, history=2, horizon=2, step=np.timedelta64(6, "h")
    )
    segment, batch_size, mixed = batches
    order = WindowPlan(starts, batch_size=batch_size, seed=3, segment=segment, mixed=mixed)
    atol = 1e-4 if "coarsen" in cells else 0.0  # sums in the order in which values are stored
    with open_stream(
        plan if straight else cube, horizon=2, memory=memory, threads=2, **scales
    ) as stream:
        for rank in range(workers):
            mine = share(order.groups(1, resumed), rank=rank, world=workers)
            assert_naive(stream, cube, mine, atol=atol)
    shutil.rmtree(source.encoding["source"])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cut", ["nothing", "time", "level", "computed", "by others"])
def test_stored_chunks_are_decoded_by_zarrs(tmp_path, version, cut):
    """Should a release of xarray, zarr or zarrs close the short way, this is where one sees it."""
    layout = {"version": version, "codec": "lz4", "chunks": (7, 6, 8), "shards": None}
    layout |= {"order": ["time", "latitude", "longitude"], "upwards": False, "hours": 6}
    source = write_store(tmp_path, layout | {"packed": False, "levels": True, "gap": None})
    change = {
        "nothing": lambda s: s,
        "time": lambda s: s.isel(time=slice(10, 58)),
        "level": lambda s: s.sel(level=850).drop_vars("level").rename(t="t850"),
        "computed": lambda s: s.map(lambda values: values + 0, keep_attrs=True),
        "by others": lambda s: s.isel(time=slice(10, 58)),
    }[cut]
    source = change(source) if cut == "by others" else follow(source, change)
    plan = plan_of(source.assign_coords(level=850) if cut == "level" else source)
    cube = plan.cube
    with open_stream(plan) as stream:
        how = "computed by Dask" if cut in ("computed", "by others") else "chunks decoded by zarrs"
        assert [part.how for part in stream.reader.parts] == [how] * 2
        assert_naive(stream, cube, in_order(np.arange(40), batch_size=8))


@pytest.mark.parametrize(
    ("chunk", "shard", "plane", "steps"),
    [
        (1, 24, 116_160, 24),  # whole shards
        (4, 288, 116_160, 16),  # of large ones, chunks that divide them
        (24, 24, 116_160, 24),
        (24, 24, 8_192, 240),  # several small ones
        (1, 1, 4_000_000, 1),
        (100, 100, 4_000_000, 100),  # never less than a chunk
        (2, 14, 1_000_000, 2),
    ],
)
def test_units_are_whole_shards_unless_these_are_large(chunk, shard, plane, steps):
    assert stored_part._unit_steps(chunk, shard, plane) == steps


def test_derived_and_plain_channels_share_their_chunks(tmp_path):
    """ws10 is made of u10 and v10: one part, so that nothing is decoded twice."""
    cube = make_cube().rename(t850="u10", msl="v10")
    for name in ("u10", "v10"):
        cube[name].attrs["units"] = "m s-1"
    cube.to_zarr(tmp_path / "wind.zarr", consolidated=False)
    source = open_zarr(tmp_path / "wind.zarr", consolidated=False)
    plan = plan_of(source, state=("u10", "v10", "ws10"))
    groups = in_order(np.arange(30), batch_size=6)
    options = {"channels": ("u10", "v10", "ws10"), "mean": np.zeros(3), "std": np.ones(3)}
    with open_stream(plan, **options) as stream:
        assert [part.channels for part in stream.reader.parts] == [(0, 1, 2)]
        for window in stream.windows(groups):
            u, v, speed = window.history.unbind(2)
            torch.testing.assert_close(speed, torch.hypot(u, v))


@pytest.mark.parametrize(("segment", "mixed"), [(11, 4), (22, 2), (44, 1)])
def test_batches_of_mixed_segments_are_views(monkeypatch, segment, mixed):
    """No copy of the 5 steps of each window: all batches of a group share one block."""
    cube = make_cube(steps=200)
    plan = WindowPlan(np.arange(196), batch_size=4, seed=0, segment=segment, mixed=mixed)
    full = [group for group in plan.groups(0) if None not in lay_out(group, 5).apart]
    assert sum(len(group) for group in full) >= 33
    with open_stream(cube, memory=100_000) as stream:
        monkeypatch.setattr(stream, "_gather", lambda *_: pytest.fail("copied"))
        assert_naive(stream, cube, full)


@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_what_neighbouring_segments_share_is_decoded_once(tmp_path, monkeypatch, chunk):
    """Four segments in a row: windows reach into the next one, and so do chunks."""
    cube = make_cube(steps=100, chunk=chunk)
    for name, units in zip(CHANNELS, ("K", "Pa"), strict=True):
        cube[name].attrs["units"] = units
    cube.to_zarr(tmp_path / "cube.zarr", consolidated=False)
    plan = plan_of(open_zarr(tmp_path / "cube.zarr", consolidated=False))
    groups = WindowPlan(np.arange(4 * 24), batch_size=1, seed=0, segment=24).groups(0)
    decoded = []
    read = StoredPart.read

    def counted(part, steps):
        decoded.append((part.channels, *np.unique(part.chunks[steps])))
        return read(part, steps)

    monkeypatch.setattr(StoredPart, "read", counted)
    with open_stream(plan, memory=20_000) as stream:
        assert not stream.keeps(groups)
        assert_naive(stream, cube, groups)
        steps = np.concatenate(list(stream.reads(groups)))
    chunks = [(channels, each) for channels, *found in decoded for each in found]
    assert len(chunks) == len(set(chunks))
    np.testing.assert_array_equal(np.sort(steps), np.arange(100))


def test_the_first_batch_waits_for_its_own_steps_only(monkeypatch):
    """The rest of its group is read while it is used, and what it had is not read again."""
    cube = make_cube(steps=200)
    groups = WindowPlan(np.arange(196), batch_size=4, seed=0, segment=48, mixed=4).groups(0)
    groups.sort(key=len, reverse=True)
    read = []
    with open_stream(cube, memory=80_000) as stream:
        whole = stream.reader.read
        monkeypatch.setattr(
            stream.reader,
            "read",
            lambda steps, *a, **k: (read.append(steps), whole(steps, *a, **k)),
        )
        assert_naive(stream, cube, groups)
    assert read[0].size <= 4 * 2 * 7  # of the chunks that it lies in
    assert read[1].size > 3 * read[0].size


def test_windows_may_be_kept():
    """Memory is used again only when nobody holds a tensor of it."""
    cube = make_cube()
    groups = WindowPlan(np.arange(56), batch_size=4, seed=0, segment=8, mixed=2).groups(0)
    with open_stream(cube, memory=12_000) as stream:
        windows = [window.target for window in stream.windows(groups)]
    for starts, target in zip(np.concatenate(groups), windows, strict=True):
        np.testing.assert_array_equal(target.numpy(), naive(cube, starts, 5)[:, 2:])


def test_memory_is_used_again():
    cube = make_cube(steps=300)
    plan = WindowPlan(np.arange(296), batch_size=4, seed=0, segment=8)
    with open_stream(cube, memory=60_000) as stream:
        for epoch in range(5):
            for window in stream.windows(plan.groups(epoch)):
                assert window.history.isfinite().all()
        assert stream.buffer_bytes <= 60_000


def test_small_cube_is_read_once(monkeypatch):
    cube = make_cube()
    plan = WindowPlan(np.arange(56), batch_size=4, seed=0)
    read = []
    with open_stream(cube, memory=10**9) as stream:
        original = stream.reader.read
        monkeypatch.setattr(
            stream.reader,
            "read",
            lambda steps, *a, **k: (read.extend(steps), original(steps, *a, **k)),
        )
        for epoch in range(3):
            for _ in stream.windows(plan.groups(epoch)):
                pass
    assert sorted(read) == list(range(60))


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kept", [True, False])
def test_nothing_is_decoded_twice_on_a_node(tmp_path, monkeypatch, workers, kept):
    """Workers together decode what one alone does, but for the chunks in which two of them meet."""
    monkeypatch.setattr("climlstm.data.store.stored_part.UNIT_BYTES", 1)  # a task for each chunk
    make_cube(steps=604, chunk=4).rename(t850="u10", msl="v10").to_zarr(
        tmp_path / "a.zarr", consolidated=False
    )
    source = open_zarr(tmp_path / "a.zarr", consolidated=False)
    for name in ("u10", "v10"):
        source[name].attrs["units"] = "m s-1"
    plan = plan_of(source, state=("u10", "v10"))
    segment = 1 if kept else 25
    order = WindowPlan(np.arange(600), batch_size=6, seed=0, segment=segment)
    decoded = []
    read = StoredPart.read
    monkeypatch.setattr(
        StoredPart,
        "read",
        lambda part, steps: (decoded.extend(np.unique(steps // 4)), read(part, steps))[1],
    )

    def count(world: int, epoch: int) -> int:
        """Chunks that the workers of a node decode in an epoch."""
        decoded.clear()
        for rank in range(world):
            mine = share(order.groups(epoch), rank=rank, world=world)
            for _ in streams[rank].windows(mine):
                pass
        return len(decoded)

    for world in (1, workers):
        memory = (604 // world + 60) * 160 if kept else 4 * 35 * 6 * 160 // world
        streams = [open_stream(plan, memory=memory, channels=("u10", "v10")) for _ in range(world)]
        counts = [count(world, epoch) for epoch in range(2)]
        for stream in streams:
            stream.close()
        if kept:
            assert 2 * 151 <= counts[0] <= 2 * (151 + 2 * (world - 1))
            assert counts[1] <= 2 * 4 * world  # windows that were left out of the first epoch
        elif world == 1:
            alone = counts
        else:
            assert np.all(np.array(counts) <= 1.02 * np.array(alone))


def test_cells_never_observed_become_the_mean():
    cube = make_cube()
    observed = np.ones((2, 4, 5), dtype=bool)
    observed[1, 0, :2] = False
    cube["msl"] = cube["msl"].where(xr.DataArray(observed[1], dims=("latitude", "longitude")))
    with open_stream(cube, observed=observed) as stream:
        window = next(stream.windows([np.array([[3, 9]])]))
    assert window.history[:, :, 1, 0, :2].eq(0).all()
    assert window.history.isfinite().all()


def test_an_unexpected_gap_in_the_values_is_an_error():
    cube = make_cube().load()
    cube["msl"][17, 2, 3] = np.nan
    with (
        open_stream(cube.chunk(time=7)) as stream,
        pytest.raises(DataError, match=r"'msl' has 1 missing.*2020-01-05T06.*longitude 30"),
    ):
        list(stream.windows([np.array([[14]])]))


def test_closing_ends_the_threads_at_once():
    cube = make_cube(steps=2000, rows=60, columns=60)
    before = set(threading.enumerate())
    stream = open_stream(cube, memory=200 * 2**20)
    next(stream.windows(WindowPlan(np.arange(1900), batch_size=2, seed=0, segment=100).groups(0)))
    begun = time.perf_counter()
    stream.close()
    assert time.perf_counter() - begun < 1
    assert not [t for t in threading.enumerate() if t not in before and "climlstm" in t.name]


def test_a_step_with_a_hole_that_no_window_wants_is_no_obstacle_and_is_refused_when_wanted():
    """A chunk is kept whole, also the step in it that windows go round."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    values = np.arange(8 * 2 * 4, dtype="float32").reshape(8, 2, 4)
    values[5] = np.nan
    field = xr.DataArray(
        values,
        {"time": times, "latitude": [10.0, 0.0], "longitude": [0.0, 1.0, 2.0, 3.0]},
        ("time", "latitude", "longitude"),
    )
    cube = xr.Dataset({"msl": field}).chunk(time=8)
    with WindowStream(
        cube, channels=["msl"], history=1, horizon=1, mean=np.zeros(1), std=np.ones(1)
    ) as stream:
        [window] = stream.windows([np.array([[0, 3]])])
        assert torch.equal(window.history[1, 0, 0], torch.from_numpy(values[3]))
        with pytest.raises(DataError, match=r"8 missing or infinite values at 2020-01-02T06"):
            list(stream.windows([np.array([[4]])]))
