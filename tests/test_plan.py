"""Window plan: no gap crossed, every window once, the same order for any number of workers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climlstm.data.plan import WindowPlan, evenly_spaced, plan_windows, share, valid_starts
from climlstm.errors import DataError

SIX_HOURS = np.timedelta64(6, "h")


def hours(*values: int) -> np.ndarray:
    return np.datetime64("2020-01-01T00", "h") + np.array(values).astype("timedelta64[h]")


def test_window_never_crosses_a_gap():
    times = hours(0, 6, 12, 48)
    assert list(valid_starts(times, length=3, step=SIX_HOURS)) == [0]


def test_window_never_contains_an_unusable_time():
    times = hours(0, 6, 12, 18, 24, 30)
    assert list(valid_starts(times, length=2, step=SIX_HOURS, unusable=hours(12))) == [0, 3, 4]


def test_period_is_not_left():
    times = hours(*range(0, 240, 6))
    period = (pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-02T23:59"))
    starts = plan_windows(times, period=period, history=1, horizon=2, step=SIX_HOURS)
    assert list(starts) == [4, 5]  # 00, 06 | 12 would need 00 of the next day


def test_period_without_windows_is_an_error():
    period = (pd.Timestamp("2021-01-01"), pd.Timestamp("2021-12-31"))
    with pytest.raises(DataError, match="holds no window of 1 \\+ 1 steps"):
        plan_windows(hours(0, 6), period=period, history=1, horizon=1, step=SIX_HOURS)


@given(
    gaps=st.sets(st.integers(0, 119), max_size=12),
    batch=st.sampled_from([(1, 1), (4, 4), (6, 3), (8, 2), (8, 8)]),
    block=st.sampled_from([4, 8, 12, 64]),
    epoch=st.integers(0, 3),
)
def test_each_window_comes_once(gaps, batch, block, epoch):
    batch_size, mixed = batch
    starts = np.array([i for i in range(120) if i not in gaps])
    plan = WindowPlan(starts, batch_size=batch_size, seed=7, block=block, mixed=mixed)
    batches = plan.batches(epoch)
    assert batches.shape == (starts.size // batch_size, batch_size)
    assert np.unique(batches).size == batches.size
    assert np.isin(batches, starts).all()


def test_order_depends_on_seed_and_epoch_alone():
    starts = np.arange(200)
    plan = WindowPlan(starts, batch_size=8, seed=1, block=16)
    again = WindowPlan(starts, batch_size=8, seed=1, block=16)
    other = WindowPlan(starts, batch_size=8, seed=2, block=16)
    np.testing.assert_array_equal(plan.batches(5), again.batches(5))
    assert not np.array_equal(plan.batches(5), plan.batches(6))
    assert not np.array_equal(plan.batches(5), other.batches(5))


def test_order_is_the_same_in_every_release():
    """Numbers written down once: resuming under a newer NumPy must find the same order."""
    plan = WindowPlan(np.arange(12), batch_size=4, seed=0, block=3)
    assert plan.batches(0).tolist() == [[1, 2, 4, 6], [7, 8, 9, 10], [0, 3, 5, 11]]


def test_workers_divide_each_batch():
    batches = WindowPlan(np.arange(100), batch_size=10, seed=0, block=5).batches(0)
    parts = [share(batches, rank=rank, world=4) for rank in range(4)]
    assert [part.shape[1] for part in parts] == [3, 3, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), batches)


def test_workers_read_different_strips():
    plan = WindowPlan(np.arange(4 * 8 * 16), batch_size=8, seed=0, block=16)
    batches = plan.batches(0)
    parts = [share(batches, rank=rank, world=2) for rank in range(2)]
    common = np.intersect1d(parts[0], parts[1])
    assert common.size == 0
    shared = [
        len(np.intersect1d(*((part.ravel() + phase) // 16 for part in parts)))
        for phase in range(16)
    ]
    assert min(shared) <= 9  # of 33 strips: 2 cut short by the phase, 7 too few for a group


def test_too_many_workers_are_refused():
    with pytest.raises(DataError, match="3 workers cannot divide batches of 2"):
        share(np.zeros((5, 2), dtype="int64"), rank=0, world=3)


def test_too_few_windows_are_refused():
    with pytest.raises(DataError, match="fewer than one batch of 16"):
        WindowPlan(np.arange(3), batch_size=16, seed=0)


def test_evenly_spaced_windows_reach_both_ends():
    assert list(evenly_spaced(np.arange(10, 110), 4)) == [10, 43, 76, 109]
    assert list(evenly_spaced(np.arange(3), 10)) == [0, 1, 2]
