"""Sums of fields by hour and day of the year, and means over a window of days taken from them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from climlstm.data.store.parts import Part
from climlstm.data.store.prefetch import jobs_of, read_jobs

LOCKS = 64
"""Locks of sums: each serves every 64th of them."""


def window_weights(counts: NDArray[np.int64], *, width: int) -> NDArray[np.float32]:
    """(hour, day, other day): the weight of another day's sum in the mean of a day.

    width: days at which a triangle around each day falls to 0; 1: each day by itself.
    """
    days = counts.shape[-1]
    apart = np.abs(np.arange(days)[:, None] - np.arange(days))
    apart = np.minimum(apart, days - apart)
    triangle = np.maximum(1 - apart / width, 0)
    total = np.einsum("de,he->hd", triangle, counts)
    near = triangle / np.maximum(total, 1e-9)[:, :, None]
    whole = np.broadcast_to(1 / np.maximum(counts.sum(axis=1), 1)[:, None, None], near.shape)
    return np.where(total[:, :, None] > 0, near, whole).astype("float32")


def sum_groups(
    part: Part, positions: NDArray[np.int64], places: NDArray[np.int64], size: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The first field (H, W) of each channel of a part, and sums (place, H, W) of the deviations
    from it, in one pass; so float32 loses nothing that matters.

    places: of each time of the cube, below `size`.
    """
    with ThreadPoolExecutor(1) as pool:
        first = read_jobs(
            [(part, positions[:1])], lambda _, read: [values[0].copy() for values in read], pool
        )[0]
    plane = first[0].shape
    sums = np.zeros((len(first), size, *plane), dtype="float32")
    locks = [threading.Lock() for _ in range(LOCKS)]

    jobs = jobs_of(part, positions)

    def add(number: int, read: list[NDArray]) -> None:
        work = np.empty(plane, dtype="float32")
        for channel, values in enumerate(read):
            for field, at in zip(values, places[jobs[number][1]].tolist(), strict=True):
                np.subtract(field, first[channel], out=work)
                with locks[at % LOCKS]:
                    sums[channel, at] += work

    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="climlstm-climatology") as pool:
        read_jobs(jobs, add, pool)
    return list(zip(first, sums, strict=True))


def window_means(
    first: NDArray[np.float32], sums: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(hour, day, H, W) from sums of all hours and days, whose memory is used: the window."""
    by_day = sums.reshape(len(weights), weights.shape[-1], -1)
    for weight, hour in zip(weights, by_day, strict=True):
        hour[:] = weight @ hour
    return by_day.reshape(*by_day.shape[:2], *first.shape) + first


@dataclass(frozen=True, eq=False)
class WindowedDays(BackendArray):
    """(hour, day, H, W): means over the window, taken from sums of days when they are read."""

    sums: NDArray[np.float32]
    """(hour and day of the record, H, W), of deviations from the last entry."""
    rows: NDArray[np.int64]
    """(hour, day): where its sum is; -1: the record has none."""
    weights: NDArray[np.float32]
    """See `window_weights`."""
    empty: NDArray[np.bool_]
    """(hour,): those without data, which have the mean of the others."""
    dtype = np.dtype("float32")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.rows.shape, *self.sums.shape[1:])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        if not isinstance(key, indexing.VectorizedIndexer):
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, support, self._outer)
        hours, days, rows, columns = key.tuple
        hours, days = np.broadcast_arrays(hours, days)
        asked = hours * self.rows.shape[1] + days
        unique, where = np.unique(asked, return_inverse=True)
        return self._fields(unique)[where.reshape(asked.shape), rows, columns]

    def _outer(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        hours, days, rows, columns = key
        asked = np.arange(self.rows.size).reshape(self.rows.shape)[hours][..., days]
        fields = self._fields(asked.ravel()).reshape(*asked.shape, *self.shape[2:])
        return fields[..., rows, :][..., columns]

    def _fields(self, asked: NDArray[np.int64]) -> NDArray[np.float32]:
        """Means (asked, H, W) by their number hour * days + day."""
        hours, days = np.divmod(asked, self.rows.shape[1])
        known = np.flatnonzero(~self.empty)
        out = np.zeros((asked.size, *self.shape[2:]), dtype="float32")
        for hour in np.unique(hours).tolist():
            mine = np.flatnonzero(hours == hour)
            for other in known if self.empty[hour] else [hour]:
                weights = self.weights[other][days[mine]] * (self.rows[other] >= 0)
                used = np.flatnonzero(weights.any(axis=0))
                sums = self.sums[self.rows[other][used]]
                out[mine] += np.tensordot(weights[:, used], sums, 1) + self.sums[-1]
            out[mine] /= known.size if self.empty[hour] else 1
        return out
