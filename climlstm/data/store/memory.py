"""How much memory there is for data, and memory that is used again."""

import mmap
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

SHARE = 0.4
"""Share of the free memory that the data of a stream may fill."""


def memory_budget(wanted: int | None, *, part: float = 1.0) -> int:
    """Bytes that the data of one process may fill.

    wanted: `data.memory` of a run file; None: `SHARE` of what is free, within the limits of the
    control groups.
    part: share of this process, where several processes of a machine stream.
    """
    return int(part * (SHARE * free_memory() if wanted is None else wanted))


def free_memory() -> int:
    """Bytes that this process may still use: free on the machine, and within its control groups."""
    return min([psutil.virtual_memory().available, *_left_in_groups(Path("/"))])


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left below each limit of the control groups (version 2, and 1) of this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").split()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = mount / "memory" if controllers else mount
        files = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield from _left(folder, *files)


def _left(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        most = (folder / limit).read_text(encoding="ascii").strip()
        now = int((folder / used).read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except OSError:
        return
    if most != "max":
        reclaimable = re.search(rf"^{cache} (\d+)$", stat, re.MULTILINE)
        yield max(int(most) - now + (int(reclaimable[1]) if reclaimable else 0), 0)


MAP_NORESERVE = 0x4000
"""Flag of mmap(2) on Linux, which Python names from 3.12 on."""


class BufferPool:
    """float32 memory that is handed out again as soon as nobody holds an array of it.

    Fresh memory costs more than the copy that fills it, since the system clears every page
    (3.4 times for a batch of 90 MB). References are counted, so nothing has to be given back, and
    an array, or a tensor made from it, keeps its values for as long as it is held.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.float32]] = []

    def take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array whose values are undefined."""
        size = int(np.prod(shape))
        free = [i for i in range(len(self._buffers)) if _holders(self._buffers, i) == NOBODY]
        for i in reversed(free):
            if self._buffers[i].size < size:
                del self._buffers[i]
                free = [j - (j > i) for j in free if j != i]
        if not free:
            self._buffers.append(np.empty(size, dtype="float32"))
            return self._buffers[-1].reshape(shape)
        tightest = min(free, key=lambda i: self._buffers[i].size)
        return self._buffers[tightest][:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Size of all buffers, whether in use or not."""
        return sum(buffer.nbytes for buffer in self._buffers)


def _holders(objects: list[Any], index: int) -> int:
    """References to an object in a list, those of this call included."""
    return sys.getrefcount(objects[index])


NOBODY = _holders([object()], 0)
"""The count of `_holders` where nothing but the list holds an object."""


def reserve(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Room for an array, of which only what is written takes memory.

    Most of a great archive is never read, yet each step of it has its place.
    """
    nbytes = 4 * int(np.prod(shape))
    if sys.platform != "linux" or nbytes == 0:
        return np.empty(shape, dtype="float32")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    memory = mmap.mmap(-1, nbytes, flags=flags)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype="float32").reshape(shape)


class Scratch(threading.local):
    """Memory of each thread that its next read overwrites, in numbered slots."""

    def __init__(self) -> None:
        self._slots: dict[int, NDArray[np.uint8]] = {}

    def take(self, slot: int, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        """An array whose values are undefined."""
        size = int(np.prod(shape)) * dtype.itemsize
        if slot not in self._slots or self._slots[slot].size < size:
            self._slots[slot] = np.empty(size, dtype="uint8")
        return self._slots[slot][:size].view(dtype).reshape(shape)
