"""Memory budgets within control groups, and buffers that are never taken from under anybody."""

import numpy as np
import psutil
import pytest
import torch

from climlstm.data.store.memory import (
    SHARE,
    BufferPool,
    _left_in_groups,
    free_memory,
    memory_budget,
    reserve,
)


def test_processes_share_what_is_free():
    assert memory_budget(None, part=0.25) == pytest.approx(SHARE * free_memory() / 4, rel=0.1)
    assert 0 < free_memory() <= psutil.virtual_memory().total
    assert memory_budget(10**9, part=0.25) == 25 * 10**7


def write(root, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_tightest_control_group_counts(tmp_path):
    """Version 2: a job of 3 GB, of which 1 GB is used, half of that as cache, in a free slice."""
    stat = "anon 500000000\ninactive_file 500000000\nactive_file 1\n"
    folder = "sys/fs/cgroup/slurm/job"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job\n",
            f"{folder}/memory.max": "3000000000\n",
            f"{folder}/memory.current": "1000000000\n",
            f"{folder}/memory.stat": stat,
            "sys/fs/cgroup/slurm/memory.max": "max\n",
            "sys/fs/cgroup/slurm/memory.current": "9000000000\n",
            "sys/fs/cgroup/slurm/memory.stat": stat,
        },
    )
    assert list(_left_in_groups(tmp_path)) == [2_500_000_000]


def test_control_groups_of_version_1(tmp_path):
    folder = "sys/fs/cgroup/memory/docker/abc"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            f"{folder}/memory.limit_in_bytes": "2000\n",
            f"{folder}/memory.usage_in_bytes": "1500\n",
            f"{folder}/memory.stat": "inactive_file 7\ntotal_inactive_file 100\n",
        },
    )
    assert list(_left_in_groups(tmp_path)) == [600]


def test_without_control_groups_nothing_is_assumed(tmp_path):
    assert list(_left_in_groups(tmp_path)) == []


def test_buffers_come_back_when_nobody_holds_them():
    buffers = BufferPool()
    first = buffers.take((3, 4))
    place = first.ctypes.data
    view = torch.from_numpy(first)[1:]
    del first
    second = buffers.take((3, 4))
    assert second.ctypes.data != place
    far = view.as_strided((2,), (1,))
    del view
    assert buffers.take((3, 4)).ctypes.data != place  # a view of a view still holds it
    del far
    assert buffers.take((4, 3)).ctypes.data == place


def test_buffers_do_not_pile_up():
    buffers = BufferPool()
    for size in (10_000, 200_000, 1_000_000, 50_000, 3_000_000):
        buffers.take((size,))[:] = 1
    assert buffers.nbytes <= 4 * 3_100_000


def test_what_is_held_keeps_its_values():
    buffers = BufferPool()
    held = []
    for value in range(5):
        array = buffers.take((100,))
        array[:] = value
        held.append(torch.from_numpy(array))
        del array
    assert [int(tensor.unique()) for tensor in held] == list(range(5))
    assert np.unique([tensor.data_ptr() for tensor in held]).size == 5


def test_room_takes_memory_only_where_it_is_written():
    before = psutil.Process().memory_info().rss
    room = reserve((100_000, 100_000))  # 40 GB
    room[5, :10] = 1.0
    assert room[5, :10].sum() == 10
    assert psutil.Process().memory_info().rss - before < 100e6
