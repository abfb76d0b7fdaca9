"""Mean and variance of the rows of a channel, piece by piece in time, merged exactly.

Moments are summed within a row in float32, around a typical value, and across rows and steps in
float64. Pieces are merged by the pairwise update of Chan, Golub & LeVeque (1983, Am. Stat. 37,
242-247, eqs 2.1), so they may be computed in parallel.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.data.store.passes import sums


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of each row (H,), in float64."""

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Moments":
        """Moments of values (time, H, W); only finite ones count."""
        return cls.of_both(values)[0]

    @classmethod
    def of_both(cls, values: NDArray[np.float32]) -> tuple["Moments", "Moments"]:
        """Moments of values (time, H, W), and of their changes from each time to the next; only
        finite ones count."""
        steps, rows, columns = values.shape
        if steps == 0:
            return cls(*np.zeros((3, rows))), cls(*np.zeros((3, rows)))
        typical = float(values[0, ::4, ::4].mean())
        shift = typical if math.isfinite(typical) else 0.0
        found = sums(values, np.float32(shift))
        if not np.isfinite(found).all():
            return cls._of_finite(values), cls._of_finite(np.diff(values, axis=0))
        return (
            cls._of_sums(*found[:2], count=steps * columns, shift=float(np.float32(shift))),
            cls._of_sums(*found[2:], count=(steps - 1) * columns, shift=0),
        )

    @classmethod
    def _of_sums(
        cls, total: NDArray[np.float64], squares: NDArray[np.float64], *, count: int, shift: float
    ) -> "Moments":
        """Moments of `count` values in each row, whose deviations from `shift` have these sums."""
        mean = total / max(count, 1)
        return cls(np.full(len(total), float(count)), shift + mean, squares - total * mean)

    @classmethod
    def _of_finite(cls, values: NDArray[np.float32]) -> "Moments":
        finite = np.isfinite(values)
        count = finite.sum(axis=(0, 2)).astype("float64")
        wide = np.where(finite, values, 0).astype("float64")
        mean = wide.sum(axis=(0, 2)) / np.maximum(count, 1)
        deviation = np.where(finite, wide - mean[:, None], 0)
        return cls(count, mean, np.square(deviation).sum(axis=(0, 2)))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of values together."""
        count = self.count + other.count
        weight = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * weight
        return Moments(count, self.mean + apart * weight, squares)

    def over_rows(self, area: NDArray[np.float64]) -> tuple[float, float]:
        """Mean and standard deviation over all rows, weighted by the area of a cell (H,)."""
        weight = area * self.count
        if not weight.any():
            return np.nan, np.nan
        mean = float(weight @ self.mean / weight.sum())
        squares = area @ (self.squares + self.count * (self.mean - mean) ** 2)
        return mean, float(np.sqrt(max(squares, 0.0) / weight.sum()))
