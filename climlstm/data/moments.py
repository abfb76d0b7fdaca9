"""Mean, variance, changes and gaps of a channel, piece by piece in time, merged exactly.

Moments are summed within a row in float32, around a value of that row, and across rows and steps in
float64. Pieces are merged by the pairwise update of Chan, Golub & LeVeque (1983, Am. Stat. 37,
242-247, eqs 2.1), so they may be computed in parallel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLAB_BYTES = 1 << 19
"""Values treated at a time, so that they stay in the processor's cache between the passes."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of each row (H,), in float64."""

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(
        cls, values: NDArray[np.float32], *, minus: NDArray[np.float32] | None = None
    ) -> "Moments":
        """Of values (time, H, W), or of their differences from others; only finite ones count."""
        steps, rows, columns = values.shape
        if steps == 0:
            return cls(*np.zeros((3, rows)))
        shift = np.float32(0 if minus is not None else np.nan_to_num(values[0].mean()))
        size = max(1, SLAB_BYTES // (4 * rows * columns))
        work = np.empty((min(size, steps), rows, columns), dtype="float32")
        ones = np.ones(columns, dtype="float32")
        total, squares = np.zeros((2, rows))
        with np.errstate(invalid="ignore", over="ignore"):
            for first in range(0, steps, size):
                slab = values[first : first + size]
                other = shift if minus is None else minus[first : first + size]
                deviation = np.subtract(slab, other, out=work[: len(slab)])
                total += np.vecdot(deviation, ones).sum(axis=0, dtype="float64")
                squares += np.vecdot(deviation, deviation).sum(axis=0, dtype="float64")
        if not np.isfinite(squares).all():
            return cls._of_finite(values if minus is None else values - minus)
        mean = total / (steps * columns)
        count = np.full(rows, float(steps * columns))
        return cls(count, shift + mean, squares - total * mean)

    @classmethod
    def _of_finite(cls, values: NDArray[np.float32]) -> "Moments":
        finite = np.isfinite(values)
        count = finite.sum(axis=(0, 2)).astype("float64")
        wide = np.where(finite, values, 0).astype("float64")
        mean = wide.sum(axis=(0, 2)) / np.maximum(count, 1)
        deviation = np.where(finite, wide - mean[:, None], 0)
        return cls(count, mean, np.square(deviation).sum(axis=(0, 2)))

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets of values together."""
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


@dataclass(frozen=True, eq=False)
class Account:
    """What one look at some steps of a channel tells."""

    values: Moments
    """Of the training period."""
    changes: Moments
    """Over one step, both ends in the training period."""
    lacking: dict[bytes, NDArray[np.int64]]
    """Patterns of missing cells (packed bits), and the positions in time that have them."""
    ends: tuple[tuple[np.datetime64, NDArray[np.float32]], ...]
    """First and last time in the training period and their fields, for changes across pieces."""

    def never(self, inside: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells (H, W) missing at all times of the training period.

        inside: whether each time of the cube belongs to that.
        """
        patterns = [p for p, positions in self.lacking.items() if inside[positions].any()]
        covered = sum(int(inside[self.lacking[p]].sum()) for p in patterns)
        if covered < int(inside.sum()):
            return np.zeros(shape, dtype=bool)
        return np.logical_and.reduce([unpack(p, shape) for p in patterns])

    def merge(self, later: "Account", step: np.timedelta64) -> "Account":
        """Of these steps and later ones together."""
        changes = self.changes.merge(later.changes)
        if self.ends and later.ends and later.ends[0][0] - self.ends[1][0] == step:
            across = later.ends[0][1] - self.ends[1][1]
            changes = changes.merge(Moments.of(across[None]))
        lacking = dict(self.lacking)
        for pattern, positions in later.lacking.items():
            before = lacking.get(pattern, np.empty(0, dtype="int64"))
            lacking[pattern] = np.concatenate([before, positions])
        both = (*self.ends[:1], *later.ends[1:]) if self.ends and later.ends else ()
        return Account(
            self.values.merge(later.values), changes, lacking, both or self.ends or later.ends
        )


def look(
    values: NDArray[np.float32],
    positions: NDArray[np.int64],
    *,
    times: NDArray[np.datetime64],
    inside: NDArray[np.bool_],
    step: np.timedelta64,
) -> Account:
    """Account of some steps (time, H, W), which lie at `positions` on the cube's time axis.

    times, inside: of the whole cube; inside: whether a time belongs to the training period.
    """
    chosen = inside[positions]
    training = values if chosen.all() else values[chosen]
    moments = times[positions[chosen]]
    follows = np.diff(moments) == step
    before, after = training[:-1], training[1:]
    if not follows.all():
        before, after = before[follows], after[follows]
    of_values = Moments.of(training)
    whole = bool(chosen.all() and np.all(of_values.count == values[:, 0].size))
    ends = [(moments[i], training[i].copy()) for i in (0, -1)] if moments.size else []
    return Account(
        of_values,
        Moments.of(after, minus=before),
        {} if whole else _lacking(values, positions),
        tuple(ends),
    )


def _lacking(
    values: NDArray[np.float32], positions: NDArray[np.int64]
) -> dict[bytes, NDArray[np.int64]]:
    found: dict[bytes, list[int]] = {}
    for position, field in zip(positions.tolist(), values, strict=True):
        finite = np.isfinite(field)
        if not finite.all():
            found.setdefault(np.packbits(~finite).tobytes(), []).append(position)
    return {pattern: np.array(where) for pattern, where in found.items()}


def unpack(pattern: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Cells from packed bits."""
    bits = np.frombuffer(pattern, dtype="uint8")
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
