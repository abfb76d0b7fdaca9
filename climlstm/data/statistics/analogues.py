"""Analogues: what came after the days of the past that were most like today (Lorenz 1969)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.statistics.linear import LinearModel, Real, anomaly_series, fit_linear
from climlstm.steps import Step


@dataclass(frozen=True)
class Analogues:
    """The mean of what followed the nearest states of the training period, by their EOFs.

    Lorenz 1969, J. Atmos. Sci. 26, 636-646. Distance is that of the principal components, which is
    the root of the mean squared difference of the anomalies, each channel in units of its standard
    deviation, as far as the EOFs hold it.
    """

    space: LinearModel
    """EOFs; its propagator is not used."""
    components: Real
    """Principal components (N, K) of the training period."""
    numbers: NDArray[np.int64]
    """Number of each of those steps: neighbours in time differ by 1."""
    neighbours: int

    def propagate(self, anomaly: Real, steps: Sequence[int]) -> Real:
        """Anomalies (L, C, H, W) a number of steps after the anomaly (C, H, W)."""
        std = self.space.std[:, None, None]
        own = self.space.project((anomaly / std)[None])
        distance = ((self.components - own) ** 2).sum(axis=1)
        followed = [self._mean_after(distance, number) for number in steps]
        return self.space.compose(np.stack(followed)) * std

    def _mean_after(self, distance: Real, steps: int) -> Real:
        """Mean components (K) that number of steps after the nearest states that have a later."""
        later = np.searchsorted(self.numbers, self.numbers + steps)
        inside = later < self.numbers.size
        inside[inside] &= self.numbers[later[inside]] == (self.numbers + steps)[inside]
        known = np.flatnonzero(inside)
        nearest = known[np.argsort(distance[known], kind="stable")[: self.neighbours]]
        return np.asarray(self.components[later[nearest]].mean(axis=0))


def fit_analogues(
    cube: xr.Dataset,
    climatology: xr.Dataset,
    *,
    step: Step,
    eofs: int,
    neighbours: int,
    cache: Path | None = None,
) -> Analogues:
    """Analogues among the usable steps of the training period; arguments as of `fit_linear`."""
    space = fit_linear(cube, climatology, step=step, eofs=eofs, cache=cache)
    series = anomaly_series(cube, climatology, step)
    scale = space.std[:, None, None].astype("float32")
    parts = [space.project(anomalies / scale) for _, anomalies in series.blocks()]
    return Analogues(space, np.concatenate(parts), series.numbers, neighbours)
