"""Streamed windows are those that one cuts naively with xarray, whatever the way of reading."""

import threading
import time

import numpy as np
import pytest
import torch
import xarray as xr

from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.sources.origin import open_zarr
from climlstm.data.store.stored_part import StoredPart
from climlstm.data.windows.layout import lay_out
from climlstm.data.windows.plan import (
    WindowPlan,
    share,
)
from climlstm.data.windows.stream import WindowStream
from climlstm.errors import DataError
from tests.windows import CHANNELS, assert_naive, make_cube, naive, open_stream, plan_of

FORCING = ("cos_zenith", "season")


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
        decoded.append((part.channels, *np.unique(part.chunks.holding(part.places[steps]))))
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
            lambda steps, *a, **k: (read.append(steps), whole(steps, *a, **k))[1],
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
            lambda steps, *a, **k: (read.extend(steps), original(steps, *a, **k))[1],
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
