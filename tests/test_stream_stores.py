"""Streamed windows are those of xarray, however the source is stored."""

import shutil
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

from climlstm.data.sources.origin import follow, open_zarr
from climlstm.data.store import stored_part
from climlstm.data.windows.plan import (
    WindowPlan,
    in_order,
    share,
)
from climlstm.data.windows.starts import (
    plan_windows,
)
from climlstm.steps import Step
from tests.windows import (
    CHANNELS,
    MEAN,
    STD,
    assert_naive,
    make_cube,
    open_stream,
    plan_of,
)

"""Mean and standard deviation of the weather, in units that sources have."""


CODECS = {
    "zstd": (numcodecs.Zstd(level=1), zarr.codecs.ZstdCodec(level=1)),
    "lz4": (
        numcodecs.Blosc(cname="lz4", shuffle=numcodecs.Blosc.SHUFFLE),
        zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"),
    ),
    "gzip": (numcodecs.GZip(level=1), zarr.codecs.GzipCodec(level=1)),
    "none": (None, None),
}
"""Mean and standard deviation of the weather, in units that sources have."""


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
        cube.time.values, period=period, history=2, horizon=2, step=Step.parse("6h")
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
        how = "read by xarray" if cut in ("computed", "by others") else "chunks decoded by zarrs"
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
