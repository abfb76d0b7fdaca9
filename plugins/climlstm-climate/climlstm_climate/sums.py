"""Climate of a long series in one pass: sums in memory, whatever its length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.grid import field_dims, grid_of
from climlstm_climate.series import DAYS_OF_A_YEAR, days_of

Real = NDArray[np.float64]

BLOCK_BYTES = 1 << 26
"""Bytes of fields that are read together."""


@dataclass(eq=False)
class ClimateSums:
    """Sums over time of one variable, in float64, of deviations from its first field."""

    area: Real
    """(H, W), with mean 1 over the cells that have values; 0 elsewhere."""
    first: Real
    steps: int
    total: Real
    squares: Real
    times: Real
    """Σ t x (H, W), with t in years since the first step."""
    clock: Real
    """Σ t and Σ t²."""
    power: Real
    """Sum of the power by wavenumber along rows, weighted by area."""
    means: list[float]
    """Area mean of each step: a number a step is all that grows."""
    eddies: list[float]
    """Area mean of the squared deviation from the mean of the row, of each step."""
    years: list[float]
    """Time of each step in years since the first."""

    @classmethod
    def begin(cls, field: Real, area: Real) -> "ClimateSums":
        """Sums of nothing yet, for fields like this one."""
        there = np.isfinite(field)
        weights = np.where(there, area, 0.0)
        weights = weights / max(weights.mean(), 1e-12)
        zeros = (np.zeros(field.shape) for _ in range(3))
        power = np.zeros(field.shape[1] // 2 + 1)
        return cls(weights, np.nan_to_num(field), 0, *zeros, np.zeros(2), power, [], [], [])

    def update(self, fields: Real, years: Real) -> None:
        """Add steps (N, H, W) at times (N) in years."""
        x = np.where(self.area > 0, fields - self.first, 0.0)
        self.total += x.sum(axis=0)
        self.squares += (x**2).sum(axis=0)
        self.times += np.einsum("n,nhw->hw", years, x)
        self.clock += [years.sum(), (years**2).sum()]
        self.steps += len(fields)
        whole = x + self.first
        row = _row_mean(whole, self.area)
        eddy = np.where(self.area > 0, whole - row, 0.0)
        self.power += _power(eddy, self.area)
        self.means += (whole * self.area).mean(axis=(1, 2)).tolist()
        self.eddies += ((eddy**2) * self.area).mean(axis=(1, 2)).tolist()
        self.years += years.tolist()

    @property
    def mean(self) -> Real:
        """Mean over time (H, W)."""
        return self.first + self.total / self.steps

    @property
    def variance(self) -> Real:
        """Variance over time (H, W)."""
        return np.maximum(self.squares / self.steps - (self.total / self.steps) ** 2, 0.0)

    @property
    def trend(self) -> Real:
        """Slope over time (H, W) per year, by least squares."""
        t, tt = self.clock
        spread = tt - t**2 / self.steps
        if spread <= 0:
            return np.zeros(self.total.shape)
        return (self.times - t * self.total / self.steps) / spread

    @property
    def spectrum(self) -> Real:
        """Mean power by wavenumber along rows, from wavenumber 0."""
        return self.power / self.steps

    def over_area(self, field: Real) -> float:
        """Area mean of a field (H, W)."""
        return float((field * self.area).mean())

    def drift(self) -> float:
        """Mean of the last year less that of the first; of halves where there is but one year."""
        years, means = np.array(self.years), np.array(self.means)
        length = min(1.0, (years[-1] - years[0]) / 2)
        early, late = years <= years[0] + length, years >= years[-1] - length
        return float(means[late].mean() - means[early].mean())


def summed(
    array: xr.DataArray, dim: str, *, eddy_limit: float | None = None
) -> tuple[ClimateSums, int | None]:
    """Sums of a lazy array along time, and the step, from 1, at which it blew up and they end.

    dim: the dimension of time, `lead_time` or `time`.
    eddy_limit: mean squared deviation from the rows' means that no sound state has; None: none.
    """
    area = grid_of(array).area
    sums: ClimateSums | None = None
    for number, fields, years in _blocks(array, dim):
        if sums is None:
            sums = ClimateSums.begin(fields[0], area)
        for place, field in enumerate(fields):
            if not _is_sound(field, sums.area, eddy_limit):
                sums.update(fields[:place], years[:place])
                return sums, number + place + 1
        sums.update(fields, years)
    assert sums is not None
    return sums, None


def _blocks(array: xr.DataArray, dim: str) -> Iterator[tuple[int, Real, Real]]:
    """Yield the number of the first step, fields (N, H, W) and times in years, block by block."""
    rows, columns = field_dims(array)
    ordered = array.transpose(dim, rows, columns)
    times = ordered["valid_time"] if "valid_time" in ordered.coords else ordered[dim]
    years = days_of(times.values) / DAYS_OF_A_YEAR
    size = max(1, BLOCK_BYTES // (4 * ordered.sizes[rows] * ordered.sizes[columns]))
    for first in range(0, ordered.sizes[dim], size):
        part = slice(first, first + size)
        yield first, ordered[{dim: part}].values.astype("float64"), years[part]


def _is_sound(field: Real, area: Real, limit: float | None) -> bool:
    """Whether a state can be one of this climate: finite, with waves along the rows in bounds."""
    seen = np.where(area > 0, field, 0.0)
    if not np.isfinite(seen).all() or limit is None:
        return bool(np.isfinite(seen).all())
    eddy = np.where(area > 0, seen - _row_mean(seen[None], area)[0], 0.0)
    return float(((eddy**2) * area).mean()) <= limit


def _row_mean(fields: Real, area: Real) -> Real:
    """Mean of each row (N, H, 1) over the cells that have values."""
    there = (area > 0).sum(axis=1)[:, None]
    sums = np.where(area > 0, fields, 0.0).sum(axis=2, keepdims=True)
    return np.divide(sums, there, out=np.zeros(sums.shape), where=there > 0)


def _power(eddy: Real, area: Real) -> Real:
    """Power by wavenumber of fields (N, H, W), summed over N, a mean over rows by area."""
    if not area.any():
        return np.zeros(eddy.shape[2] // 2 + 1)
    columns = eddy.shape[2]
    waves = np.abs(np.fft.rfft(eddy, axis=2)) ** 2 / columns**2
    waves[:, :, 1 : (columns + 1) // 2] *= 2  # the conjugate half
    rows = area.mean(axis=1)
    return np.einsum("nhk,h->k", waves, rows / rows.sum())
