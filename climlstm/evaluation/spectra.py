"""Power spectra of forecasts beside those of the truth: which scales a forecast has lost.

A forecast that is trained on squared errors becomes smooth where it is unsure: its power at short
waves falls below that of the truth, although its error is small.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.fft import dct

from climlstm.grid import EARTH_RADIUS_KM, LatLon, field_dims, grid_of, is_periodic
from climlstm.steps import Leads, Step

Real = NDArray[np.float64]

SINGLE_WAVES = 12
"""Wavenumbers up to this are kept one by one; beyond, in bands of a sixth of an octave."""

KEYS = ["variable", "lead_time", "band"]


@dataclass(frozen=True)
class PowerSpectrum:
    """Power along latitude circles by wavelength, of the forecast and of the truth; along all rows
    of a grid that follows no latitudes.

    A table of its own: `wavelength_km`, and `power` and `true_power`, the variance for each
    wavenumber, in squares of `units`. Of an ensemble, the mean of the members' power.
    """

    requires: ClassVar[tuple[str, ...]] = ()

    latitudes: tuple[float, float] = (30.0, 60.0)
    """Distance of the rows from the equator, degrees, on both hemispheres; a region that has no
    such rows is looked at whole."""
    lead_times: tuple[str, ...] = ("6h", "1d", "3d", "5d", "10d")
    """Lead times to look at; the first one, where the forecast has none of these."""

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        """Mean power over the rows of one forecast, in bands of wavenumbers."""
        grid, leads = grid_of(forecast), self._leads(forecast.lead_time.values)
        if isinstance(grid, LatLon):
            rows = self._rows(grid.rows)
            length = np.cos(np.deg2rad(grid.rows[rows]))
            periodic = is_periodic(grid.columns)
            wavelength = wavelengths_km(grid.rows[rows], grid.columns)
        else:
            rows, length = np.arange(grid.shape[0]), grid.row_area
            periodic = grid.continuation.wraps
            wavelength = _waves(grid.shape[1] * grid.cell_km[1], grid.shape[1], periodic=periodic)
        bands = _bands(wavelength.size)
        centres = np.exp(_in_bands(np.log(wavelength), bands))
        tables = []
        for name in forecast.data_vars:
            own, true = (
                _in_bands(_mean_power(data[name], leads, rows, length, periodic=periodic), bands)
                for data in (forecast, truth)
            )
            kept = np.isfinite(own) & np.isfinite(true)
            lead, band = np.nonzero(kept)
            tables.append(
                pd.DataFrame(
                    {
                        "variable": str(name),
                        "lead_time": forecast.lead_time.values[leads][lead],
                        "band": band,
                        "wavelength_km": centres[band],
                        "power": own[kept],
                        "true_power": true[kept],
                        "units": truth[name].attrs.get("units", ""),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The mean over all initialisations."""
        grouped = scores.groupby([*KEYS, "wavelength_km", "units"], sort=False, observed=True)
        means = grouped[["power", "true_power"]].mean()
        return means.assign(n=grouped.size()).reset_index()

    def _rows(self, latitude: Real) -> NDArray[np.int64]:
        nearest, farthest = self.latitudes
        inside = (np.abs(latitude) >= nearest) & (np.abs(latitude) <= farthest)
        return np.flatnonzero(inside if inside.any() else np.abs(latitude) < 90 - 1e-3)

    def _leads(self, lead_time: Leads) -> NDArray[np.int64]:
        months = lead_time.dtype.kind in "iu"
        named = [Step.parse(text) for text in self.lead_times]
        wanted = [s.months or s.duration for s in named if (s.duration is None) == months]
        known = pd.Index(lead_time) if months else pd.to_timedelta(lead_time)  # of any resolution
        there = known.isin(wanted)
        return np.flatnonzero(there) if there.any() else np.arange(1)


def wavelengths_km(latitude: Real, longitude: Real) -> Real:
    """Length of the waves 1, 2, … along the rows, at their mean circumference.

    On a periodic grid, wave k goes k times round the Earth; on a region, half a wave more fits in
    with each number, since waves need not end where they begin.
    """
    circle = 2 * np.pi * EARTH_RADIUS_KM * np.cos(np.deg2rad(latitude)).mean()
    if is_periodic(longitude):
        return _waves(circle, longitude.size, periodic=True)
    spacing = (longitude[-1] - longitude[0]) / (longitude.size - 1)
    return _waves(circle * longitude.size * spacing / 360, longitude.size, periodic=False)


def _waves(length: float, columns: int, *, periodic: bool) -> Real:
    """Wavelengths of the waves 1, 2, … along a row of some length, in its unit."""
    if periodic:
        return np.asarray(length / np.arange(1, columns // 2 + 1))
    return np.asarray(2 * length / np.arange(1, columns))


def power(values: Real, *, periodic: bool) -> Real:
    """Variance of rows (…, W) for each wavenumber from 1; its sum is the variance of the row.

    Periodic rows by Fourier transform. Others by cosine transform, which sees no jump between the
    two ends (Denis et al. 2002, Mon. Weather Rev. 130, 1812-1829).
    """
    columns = values.shape[-1]
    if not periodic:
        return np.asarray(dct(values, norm="ortho")[..., 1:] ** 2 / columns)
    waves = np.abs(np.fft.rfft(values, norm="forward")[..., 1:]) ** 2
    sides = np.full(waves.shape[-1], 2.0)
    if columns % 2 == 0:
        sides[-1] = 1.0  # the shortest wave stands for itself alone
    return np.asarray(sides * waves)


def _mean_power(
    field: xr.DataArray,
    leads: NDArray[np.int64],
    rows: NDArray[np.int64],
    length: Real,
    *,
    periodic: bool,
) -> Real:
    """Power (L, wavenumber), averaged over members and, by their length, over rows.

    Rows with a missing value have none; all NaN where there is no other.
    """
    row, column = field_dims(field)
    chosen = field.isel({"lead_time": leads, row: rows}).transpose(..., "lead_time", row, column)
    values = chosen.values.astype("float64").reshape(-1, *chosen.shape[-3:])
    found = power(values, periodic=periodic).mean(axis=0)
    whole = np.isfinite(found[..., 0])
    share = np.where(whole, length, 0.0)
    total = share.sum(axis=1)
    summed = np.einsum("lhk,lh->lk", np.nan_to_num(found), share)
    nothing = np.full_like(summed, np.nan)
    return np.divide(summed, total[:, None], out=nothing, where=total[:, None] > 0)


def _bands(waves: int) -> NDArray[np.int64]:
    """Index of the band of each wavenumber from 1."""
    number = np.arange(1, waves + 1)
    beyond = np.floor(6 * np.log2(np.maximum(number, SINGLE_WAVES) / SINGLE_WAVES) + 1e-9)
    _, band = np.unique(
        np.where(number <= SINGLE_WAVES, number, SINGLE_WAVES + 1 + beyond), return_inverse=True
    )
    return np.asarray(band, dtype="int64")


def _in_bands(values: Real, bands: NDArray[np.int64]) -> Real:
    """Means (…, band) of values (…, wavenumber)."""
    starts = np.flatnonzero(np.diff(bands, prepend=-1))
    counts = np.diff([*starts, bands.size])
    return np.asarray(np.add.reduceat(values, starts, axis=-1) / counts)
