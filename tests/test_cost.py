"""What reading costs, by numbers that one can count."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.audit.cost import reading_cost
from climlstm.config import DataConfig
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources.origin import open_zarr
from climlstm.data.windows.plan import WindowPlan
from climlstm.data.windows.stream import WindowStream

PERIODS = {
    "train": ("2020-01-01", "2020-02-10"),
    "valid": ("2020-02-11", "2020-02-12"),
    "test": ("2020-02-13", "2020-02-14"),
}
PLANE = 6 * 8 * 4
"""Bytes of a field."""


@pytest.fixture
def stream_of(tmp_path):
    """Opens a stream over a store of one channel (100, 6, 8), stored in some chunks."""
    opened = []

    def open_stream(chunks, *, memory, chunked=True, **cells) -> WindowStream:
        times = pd.date_range("2020-01-01", periods=100, freq="6h").to_numpy()
        coords = {"time": times, "latitude": np.arange(60.0, 0, -10), "longitude": np.arange(8.0)}
        values = np.random.default_rng(0).standard_normal((100, 6, 8)).astype("float32")
        source = xr.Dataset(coords=coords)
        source["t2m"] = (("time", "latitude", "longitude"), values, {"units": "K"})
        if chunked:
            source.to_zarr(
                tmp_path / "a.zarr", encoding={"t2m": {"chunks": chunks}}, consolidated=False
            )
            source = open_zarr(tmp_path / "a.zarr", consolidated=False)
        given = {"catalog": "-", "source": "-", "state": ("t2m",), "step": "6h"}
        plan = plan_cube(source, DataConfig(**given, periods=PERIODS, **cells))
        stream = WindowStream(
            plan,
            channels=("t2m",),
            history=2,
            horizon=2,
            mean=np.zeros(1),
            std=np.ones(1),
            memory=memory,
        )
        opened.append(stream)
        return stream

    yield open_stream
    for stream in opened:
        stream.close()


def test_a_cube_that_fits_is_decoded_once(stream_of):
    stream = stream_of((10, 6, 8), memory=10**8)
    cost = reading_cost(stream, WindowPlan(np.arange(96), batch_size=4, seed=0))
    assert cost.kept
    assert cost.chunks == 10
    assert cost.decoded_bytes == 100 * PLANE
    assert cost.used_bytes == 99 * PLANE  # no window begins at the last possible step
    assert cost.windows_per_second > 0
    assert cost.advice is None


def test_runs_of_segments_decode_their_halo_and_the_rest_of_chunks(stream_of):
    """Four segments of 6 windows in a row are 27 steps long, and touch 3 or 4 chunks of 10."""
    stream = stream_of((10, 6, 8), memory=4 * 10 * PLANE)
    plan = WindowPlan(np.arange(97), batch_size=1, seed=0, segment=7)
    cost = reading_cost(stream, plan)
    assert not cost.kept
    assert plan.full_segment == 6
    assert cost.groups == 17
    assert 5 * 3 <= cost.chunks <= 5 * 4
    assert cost.ratio == pytest.approx(cost.chunks * 10 / 100)
    assert cost.advice is not None
    assert "prepare" in cost.advice


def test_cells_outside_the_region_are_decoded_in_vain(stream_of):
    region = {"region": {"latitude": (40, 60), "longitude": (0, 3)}}
    cost = reading_cost(
        stream_of((1, 6, 8), memory=4 * 10 * PLANE, **region),
        WindowPlan(np.arange(97), batch_size=1, seed=0, segment=97),
    )
    assert cost.ratio == pytest.approx(48 / 12, rel=0.05)


def test_smaller_chunks_are_left_out_beyond_the_region(stream_of):
    region = {"region": {"latitude": (40, 60), "longitude": (0, 3)}}
    cost = reading_cost(
        stream_of((1, 3, 4), memory=4 * 10 * PLANE, **region),
        WindowPlan(np.arange(97), batch_size=1, seed=0, segment=97),
    )
    assert cost.ratio == pytest.approx(1, rel=0.05)
    assert cost.advice is None


def test_what_is_not_zarr_should_be_prepared(stream_of):
    stream = stream_of(None, memory=4 * 10 * PLANE, chunked=False)
    cost = reading_cost(stream, WindowPlan(np.arange(97), batch_size=1, seed=0, segment=7))
    assert cost.advice is not None
    assert "not plain Zarr" in cost.advice


def test_the_audit_warns_where_reading_is_slower_than_training(stream_of):
    stream = stream_of((10, 6, 8), memory=4 * 10 * PLANE)
    cost = reading_cost(stream, WindowPlan(np.arange(97), batch_size=1, seed=0, segment=7))
    cost = replace(cost, windows_per_second=100.0)
    slow = cost.finding(8, seconds_per_batch=0.04)
    assert (slow.severity, slow.rule) == ("warning", "reading-slow")
    assert (
        "reading supplies 100 samples/s, one worker uses 200 (steps of 0.04 s here)" in slow.value
    )
    assert f"{cost.ratio:.2f} bytes decoded for each one used" in slow.value
    assert "1 chunks a block, 17 blocks" in slow.value
    assert "'climlstm prepare' writes" in slow.fix
    assert slow.where == "chunks decoded by zarrs"
    fast = cost.finding(8, seconds_per_batch=0.16)
    assert (fast.severity, fast.fix) == ("note", "Reading keeps up with training.")
    unknown = cost.finding(8, seconds_per_batch=None)
    assert (unknown.severity, unknown.fix) == ("warning", cost.advice)
