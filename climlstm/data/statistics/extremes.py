"""The least and greatest value of a channel with their places, and steps that hold one value."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ValuePlace:
    """A value, how often it comes, and where it comes first."""

    value: float
    count: int
    position: int
    """Position in time."""
    row: int
    column: int


@dataclass(frozen=True)
class Extremes:
    """Extremes of one channel over some steps; None where it has no value."""

    least: ValuePlace | None = None
    greatest: ValuePlace | None = None
    constant: int = 0
    """Steps with the same value in all cells that have one."""
    first_constant: int | None = None
    """Position in time of the first of them."""

    @classmethod
    def of(
        cls, values: NDArray[np.float32], positions: NDArray[np.int64], *, finite: bool
    ) -> "Extremes":
        """Extremes of steps (time, H, W), which lie at `positions` on the cube's time axis.

        finite: whether all values are; those that are not do not count.
        """
        reduce_low: Any = np.minimum.reduce if finite else np.fmin.reduce
        reduce_high: Any = np.maximum.reduce if finite else np.fmax.reduce
        known = values if finite else np.where(np.isfinite(values), values, np.nan)
        low, high = reduce_low(known, axis=(1, 2)), reduce_high(known, axis=(1, 2))
        some = np.flatnonzero(~np.isnan(low))
        if some.size == 0:
            return cls()
        same = np.flatnonzero(low == high) if values[0].size > 1 else some[:0]
        return cls(
            _place(known, low, np.nanmin(low), positions),
            _place(known, high, np.nanmax(high), positions),
            same.size,
            int(positions[same[0]]) if same.size else None,
        )

    def merge(self, later: "Extremes") -> "Extremes":
        """Extremes of these steps and later ones together."""
        return Extremes(
            _outer(self.least, later.least, sign=-1),
            _outer(self.greatest, later.greatest, sign=1),
            self.constant + later.constant,
            later.first_constant if self.first_constant is None else self.first_constant,
        )


def _place(
    values: NDArray[np.float32],
    by_step: NDArray[np.float32],
    value: np.float32,
    positions: NDArray[np.int64],
) -> ValuePlace:
    steps = np.flatnonzero(by_step == value)
    row, column = np.argwhere(values[steps[0]] == value)[0]
    count = int((values[steps] == value).sum())
    return ValuePlace(float(value), count, int(positions[steps[0]]), int(row), int(column))


def _outer(first: ValuePlace | None, later: ValuePlace | None, *, sign: int) -> ValuePlace | None:
    """The further one of two extremes; both together where they are equal."""
    if first is None or later is None:
        return first or later
    if first.value == later.value:
        return ValuePlace(
            first.value, first.count + later.count, first.position, first.row, first.column
        )
    return first if sign * first.value > sign * later.value else later
