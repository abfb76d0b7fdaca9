"""Mean, variance, changes and gaps of a channel, piece by piece in time, merged exactly.

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
        """Of values (time, H, W); only finite ones count."""
        return cls.of_both(values)[0]

    @classmethod
    def of_both(cls, values: NDArray[np.float32]) -> tuple["Moments", "Moments"]:
        """Of values (time, H, W) and of their changes from each time to the next; only finite ones
        count."""
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
        """Of `count` values in each row, whose deviations from `shift` have these sums."""
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
    gaps = np.flatnonzero(moments[1:] - moments[:-1] != step) + 1
    first, *further_pieces = np.split(training, gaps) if gaps.size else [training]
    of_values, of_changes = Moments.of_both(first)
    for piece in further_pieces:
        further = Moments.of_both(piece)
        of_values, of_changes = of_values.merge(further[0]), of_changes.merge(further[1])
    whole = bool(chosen.all() and np.all(of_values.count == values[:, 0].size))
    ends = [(moments[i], training[i].copy()) for i in (0, -1)] if moments.size else []
    return Account(of_values, of_changes, {} if whole else _lacking(values, positions), tuple(ends))


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
