"""Window plan: no gap crossed, every window once, the same order for any number of workers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climlstm.data.windows.layout import lay_out
from climlstm.data.windows.plan import (
    ORDER_MEMORY,
    WindowPlan,
    choose_segments,
    share,
)
from climlstm.data.windows.starts import (
    evenly_spaced,
    plan_windows,
    valid_starts,
)
from climlstm.errors import DataError
from climlstm.steps import Step

SIX_HOURS = Step.parse("6h")


def hours(*values: int) -> np.ndarray:
    return np.datetime64("2020-01-01T00", "h") + np.array(values).astype("timedelta64[h]")


def order(plan: WindowPlan, epoch: int) -> np.ndarray:
    return np.concatenate(plan.groups(epoch))


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


def test_a_period_whose_steps_lack_values_says_so():
    """The dates are right then, and other dates are no remedy."""
    times = hours(0, 6, 12, 18)
    period = (pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01T12:00"))
    with pytest.raises(
        DataError, match=r"3 lie in it, 2 of them \(67%\) without all values\. Compl"
    ):
        plan_windows(times, period=period, history=1, horizon=1, step=SIX_HOURS,
                     unusable=hours(0, 12))  # fmt: skip


@given(
    gaps=st.sets(st.integers(0, 119), max_size=12),
    batch=st.sampled_from([(1, 1), (4, 4), (6, 3), (8, 2), (8, 8)]),
    segment=st.sampled_from([4, 8, 12, 64]),
    epoch=st.integers(0, 3),
)
def test_each_window_comes_once(gaps, batch, segment, epoch):
    batch_size, mixed = batch
    starts = np.array([i for i in range(120) if i not in gaps])
    plan = WindowPlan(starts, batch_size=batch_size, seed=7, segment=segment, mixed=mixed)
    batches = np.concatenate(plan.groups(epoch))
    assert batches.shape == (starts.size // batch_size, batch_size)
    assert np.unique(batches).size == batches.size
    assert np.isin(batches, starts).all()


def test_order_depends_on_seed_and_epoch_alone():
    starts = np.arange(200)
    plan = WindowPlan(starts, batch_size=8, seed=1, segment=16)
    again = WindowPlan(starts, batch_size=8, seed=1, segment=16)
    other = WindowPlan(starts, batch_size=8, seed=2, segment=16)
    np.testing.assert_array_equal(order(plan, 5), order(again, 5))
    assert not np.array_equal(order(plan, 5), order(plan, 6))
    assert not np.array_equal(order(plan, 5), order(other, 5))


def test_a_resume_leaves_out_what_is_done():
    plan = WindowPlan(np.arange(200), batch_size=8, seed=1, segment=16)
    whole = order(plan, 2)
    for first in range(25):
        np.testing.assert_array_equal(np.concatenate(plan.groups(2, first)), whole[first:])
    assert plan.groups(2, 25) == []


def test_order_is_the_same_in_every_release():
    """Numbers written down once: resuming under a newer NumPy must find the same order."""
    plan = WindowPlan(np.arange(31), batch_size=2, seed=0, segment=7)
    mixed = [3, 18, 5, 20, 2, 17, 4, 19, 1, 16, 7, 22, 10, 25, 9]  # fmt: skip
    mixed += [24, 6, 21, 8, 23, 12, 27, 13, 28, 11, 26, 15, 30, 14, 29]  # fmt: skip
    assert order(plan, 0).ravel().tolist() == mixed
    plan = WindowPlan(np.arange(13), batch_size=3, seed=0)
    free = [0, 7, 8, 3, 4, 10, 1, 6, 11, 2, 5, 12]
    assert order(plan, 0).ravel().tolist() == free


def test_segments_of_a_stratum_follow_one_another_in_runs():
    """13 windows a segment, 8 segments in each of 2 strata: two runs of four."""
    plan = WindowPlan(np.arange(2 * 8 * 13), batch_size=2, seed=3, segment=13)
    orders = [np.array([group.min(axis=0) for group in plan.groups(epoch)]) for epoch in range(6)]
    followed = np.stack([(np.diff(first, axis=0) == 13).sum(axis=0) for first in orders])
    assert followed.min() == 3 + 3
    assert len({tuple(first[:, 0]) for first in orders}) > 1


def test_workers_divide_each_batch():
    groups = WindowPlan(np.arange(100), batch_size=10, seed=0, segment=5).groups(0)
    parts = [np.concatenate(share(groups, rank=rank, world=4)) for rank in range(4)]
    assert [part.shape[1] for part in parts] == [3, 3, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.concatenate(groups))


def test_workers_read_different_segments():
    plan = WindowPlan(np.arange(4 * 8 * 13), batch_size=8, seed=0, segment=13)
    parts = [np.concatenate(share(plan.groups(0), rank=rank, world=2)) for rank in range(2)]
    segments = [np.unique(part // 13) for part in parts]
    assert segments[0].size == segments[1].size == 16
    assert np.intersect1d(*segments).size == 0


@pytest.mark.parametrize(("segment", "mixed"), [(1, None), (13, 8), (26, 4)])
def test_each_worker_has_its_own_part_of_the_period_in_all_epochs(segment, mixed):
    """So nothing is read twice on a machine, and what a worker keeps serves it again."""
    plan = WindowPlan(np.arange(4 * 8 * 13), batch_size=8, seed=0, segment=segment, mixed=mixed)
    seen = [
        np.unique(
            [np.concatenate(share(plan.groups(epoch), rank=rank, world=2)) for epoch in (0, 1)]
        )
        for rank in range(2)
    ]
    assert seen[0].max() < seen[1].min()
    assert seen[0].size == seen[1].size == 2 * 8 * 13


@pytest.mark.parametrize("segment", [1, 13])
def test_each_batch_is_spread_over_the_whole_period(segment):
    plan = WindowPlan(np.arange(4 * 8 * 13), batch_size=8, seed=0, segment=segment)
    for batch in order(plan, 0):
        np.testing.assert_array_equal(np.sort(batch) // (4 * 13), np.arange(8))


@pytest.mark.parametrize(("memory", "mixed"), [(2 * 10**9, 16), (10**9, 8), (6 * 10**8, 4)])
def test_windows_of_a_batch_begin_at_all_hours(memory, mixed):
    """Segments of 24 hours would begin at the same hour, and so would all windows of a batch."""
    segment, chosen = choose_segments(
        40_000, length=4, batch_size=16, step_bytes=10**6, memory=memory, chunk=1
    )
    assert chosen == mixed
    groups = WindowPlan(
        np.arange(40_000), batch_size=16, seed=0, segment=segment, mixed=mixed
    ).groups(0)
    hours = np.concatenate(groups) % 24
    assert np.mean([np.unique(batch).size for batch in hours]) > 8


@pytest.mark.parametrize("memory", [9 * 10**8, 10**9, 3 * 10**9, 10**10, None])
def test_two_groups_fit_into_memory(memory):
    length, batch_size, step_bytes = 8, 24, 10**6
    segment, mixed = choose_segments(
        20_000, length=length, batch_size=batch_size, step_bytes=step_bytes, memory=memory, chunk=5
    )
    batch = batch_size * length
    parts = batch_size // mixed
    needed = 2 * (mixed * (segment + parts * (length - 1)) + batch) * step_bytes
    assert needed <= (memory or ORDER_MEMORY)
    plan = WindowPlan(
        np.arange(20_000), batch_size=batch_size, seed=0, segment=segment, mixed=mixed
    )
    assert np.unique(np.concatenate(plan.groups(0))).size == 20_000 // 24 * 24


def test_a_cube_that_fits_is_shuffled_freely():
    settings = {"length": 6, "batch_size": 32, "step_bytes": 10_000}
    assert choose_segments(4000, memory=10**8, **settings) == (1, 32)
    segment, mixed = choose_segments(4000, memory=5 * 10**7, **settings)
    assert segment > 1
    assert mixed == 32


def test_without_a_budget_large_grids_are_not_refused():
    """At 0.25 degrees a batch alone is larger than what is usual."""
    segment, mixed = choose_segments(10_000, length=8, batch_size=16, step_bytes=25 * 10**6)
    assert segment >= 4 * 7
    assert mixed == 4


def test_too_little_memory_is_refused():
    with pytest.raises(DataError, match=r"data\.memory"):
        choose_segments(1000, length=8, batch_size=4, step_bytes=10**9, memory=2 * 10**9)


def test_too_many_workers_are_refused():
    with pytest.raises(DataError, match="3 workers cannot divide batches of 2"):
        share([np.zeros((5, 2), dtype="int64")], rank=0, world=3)


def test_too_few_windows_are_refused():
    with pytest.raises(DataError, match="fewer than one batch of 16"):
        WindowPlan(np.arange(3), batch_size=16, seed=0)


def test_evenly_spaced_windows_reach_both_ends():
    assert list(evenly_spaced(np.arange(10, 110), 4)) == [10, 43, 76, 109]
    assert list(evenly_spaced(np.arange(3), 10)) == [0, 1, 2]


def test_one_segment_needs_no_further_steps_for_each_of_its_windows():
    """A budget of a seventh of the cube: a segment of 70 windows on 77 steps, not of 10 on 80."""
    step = 4 * 4 * 121 * 240
    segment, mixed = choose_segments(
        2168, length=8, batch_size=10, step_bytes=step, memory=200_000_000, chunk=24
    )
    assert (segment, mixed) == (70, 1)
    group = max(WindowPlan(np.arange(2168), batch_size=10, seed=0, segment=70, mixed=1).groups(0),
                key=len)  # fmt: skip
    layout = lay_out(group, 8)
    assert layout.steps.size == group.size + 7
    assert None not in layout.apart  # so that batches are views
    assert 2 * 77 * step + 2 * 10 * 8 * step <= 200_000_000
