"""Reads steps of parts of a cube through Dask, unit by unit; remote objects are fetched ahead."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, reduce
from typing import TypeVar

import dask
import dask.threaded
import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from climlstm.data.cube.cube import explain_read_errors
from climlstm.data.store.parts import Part, Steps
from climlstm.data.store.remote import REQUESTS
from climlstm.data.store.stored import Fetched

T = TypeVar("T")

TASKS_PER_THREAD = 4
"""A task takes 1/4 of a thread's share of what is left to read: a thread idles while Dask gives it
the next task, so tasks begin long, and end short, so that no thread waits for another."""

MAX_REMOTE_UNITS = 2
"""Largest number of units that a task reads of a remote store, whose objects come in order."""

Job = tuple[Part, Steps]
"""Steps of one unit of a part."""


def jobs_of(part: Part, steps: Steps) -> list[Job]:
    """A job for each unit in which some steps (increasing) lie."""
    cuts = np.flatnonzero(np.diff(part.units_of(steps))) + 1
    return [(part, piece) for piece in np.split(steps, cuts) if piece.size]


def read_jobs(
    jobs: Sequence[Job],
    use: Callable[[int, list[NDArray]], T],
    pool: ThreadPoolExecutor | None,
    *,
    merge: Callable[[T, T], T] | None = None,
) -> list[T]:
    """The results of `use` for each job's number and values, in order.

    pool: None reads in the calling thread, which may be one of several that Dask runs.
    merge: makes one of two neighbouring results; then there is one result for each task.
    The values hold during the call only. Whatever a task raises ends the reading; a DataError
    names the channels whose stored values cannot be read.
    """
    prefetch = _Prefetch(jobs)

    def one(number: int) -> T:
        part, steps = jobs[number]
        with prefetch.fetched(number):
            with explain_read_errors(f"Channel {', '.join(map(repr, part.names))}"):
                values = part.read(steps)
            return use(number, values)

    def several(numbers: range) -> list[T]:
        found = map(one, numbers)
        return list(found) if merge is None else [reduce(merge, found)]

    longest = MAX_REMOTE_UNITS if any(part.is_remote for part, _ in jobs) else len(jobs)
    get = dask.get if pool is None else partial(dask.threaded.get, pool=pool)
    tasks = list(_tasks(len(jobs), longest))
    graph = {("read", at): (partial(several, numbers),) for at, numbers in enumerate(tasks)}
    try:
        results: list[list[T]] = get(graph, list(graph))
    finally:
        prefetch.release_all()
    return [each for some in results for each in some]


def _tasks(jobs: int, longest: int) -> Iterator[range]:
    """The numbers of jobs, in ranges that become shorter."""
    first = 0
    while first < jobs:
        size = min(max(1, (jobs - first) // (TASKS_PER_THREAD * CPU_COUNT)), longest)
        yield range(first, first + size)
        first += size


class _Prefetch:
    """Requests remote objects for the jobs to come, enough to hide their latency."""

    def __init__(self, jobs: Sequence[Job]):
        self._jobs = jobs
        self._held: dict[int, list[Fetched]] = {}
        self._begun = 0
        self._objects = 0
        self._lock = threading.Lock()

    @contextmanager
    def fetched(self, number: int) -> Iterator[None]:
        """A context in which the objects of a job are here."""
        with self._lock:
            while self._begun < len(self._jobs) and (
                self._begun <= number or self._objects < 2 * REQUESTS
            ):
                part, steps = self._jobs[self._begun]
                self._held[self._begun] = part.fetch(steps)
                self._objects += sum(len(f.keys) for f in self._held[self._begun])
                self._begun += 1
            needed = self._held[number]
        try:
            for each in needed:
                each.wait()
            yield
        finally:
            self._release(number)

    def _release(self, number: int) -> None:
        with self._lock:
            for each in self._held.pop(number, ()):
                self._objects -= len(each.keys)
                each.release()

    def release_all(self) -> None:
        """Let go of objects that no job came for."""
        for number in list(self._held):
            self._release(number)
