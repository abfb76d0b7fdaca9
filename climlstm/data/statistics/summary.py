"""Summary of a channel over some steps: moments, extremes, and where values lack."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from climlstm.data.statistics.extremes import Extremes
from climlstm.data.statistics.moments import Moments


@dataclass(frozen=True, eq=False)
class ChannelSummary:
    """Moments, extremes and missing cells of one channel over some steps."""

    values: Moments
    """Moments of the values in the training period."""
    changes: Moments
    """Moments of changes over one step, both ends in the training period."""
    lacking: dict[bytes, NDArray[np.int64]]
    """Patterns of missing cells (packed bits), and the positions in time that have them."""
    ends: tuple[tuple[int, NDArray[np.float32]], ...]
    """First and last step in the training period and their fields, for changes across pieces."""
    extremes: Extremes
    """Extremes of all values, in the training period or not."""

    @classmethod
    def of(
        cls,
        values: NDArray[np.float32],
        positions: NDArray[np.int64],
        *,
        numbers: NDArray[np.int64],
        inside: NDArray[np.bool_],
    ) -> "ChannelSummary":
        """Summary of steps (time, H, W), which lie at `positions` on the cube's time axis.

        numbers, inside: of the whole cube: the number of each step, which grows by one where there
            is no gap, and whether the step belongs to the training period.
        """
        chosen = inside[positions]
        training = values if chosen.all() else values[chosen]
        steps = numbers[positions[chosen]]
        gaps = np.flatnonzero(np.diff(steps) != 1) + 1
        first, *further = np.split(training, gaps) if gaps.size else [training]
        of_values, of_changes = Moments.of_both(first)
        for piece in further:
            more_values, more_changes = Moments.of_both(piece)
            of_values, of_changes = of_values.merge(more_values), of_changes.merge(more_changes)
        whole = bool(chosen.all() and np.all(of_values.count == values[:, 0].size))
        ends = [(int(steps[i]), training[i].copy()) for i in (0, -1)] if steps.size else []
        lacking = {} if whole else _lacking(values, positions)
        extremes = Extremes.of(values, positions, finite=not lacking)
        return cls(of_values, of_changes, lacking, tuple(ends), extremes)

    def update(self, later: "ChannelSummary") -> "ChannelSummary":
        """Summary of these steps and later ones together."""
        changes = self.changes.merge(later.changes)
        if self.ends and later.ends and later.ends[0][0] - self.ends[1][0] == 1:
            across = later.ends[0][1] - self.ends[1][1]
            changes = changes.merge(Moments.of(across[None]))
        lacking = dict(self.lacking)
        for pattern, positions in later.lacking.items():
            before = lacking.get(pattern, np.empty(0, dtype="int64"))
            lacking[pattern] = np.concatenate([before, positions])
        both = (*self.ends[:1], *later.ends[1:]) if self.ends and later.ends else ()
        ends = both or self.ends or later.ends
        return ChannelSummary(
            self.values.merge(later.values),
            changes,
            lacking,
            ends,
            self.extremes.merge(later.extremes),
        )

    def never(self, inside: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells (H, W) missing at all times of the training period.

        inside: whether each time of the cube belongs to that.
        """
        patterns = [p for p, positions in self.lacking.items() if inside[positions].any()]
        covered = sum(int(inside[self.lacking[p]].sum()) for p in patterns)
        if covered < int(inside.sum()):
            return np.zeros(shape, dtype=bool)
        return np.logical_and.reduce([unpack(p, shape) for p in patterns])


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
