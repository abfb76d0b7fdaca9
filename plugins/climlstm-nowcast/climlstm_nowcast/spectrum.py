"""Radially averaged spectra: what scales of rain a forecast has lost, in all directions.

Two-dimensional cosine transforms (Denis et al. 2002, Mon. Weather Rev. 130, 1812-1829), since a
radar's picture does not go on at its rim; power in rings of equal wavelength.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from scipy.fft import dct, dctn

from climlstm.evaluation.bootstrap import Real
from climlstm.evaluation.statistic import members_of
from climlstm.grid import grid_of

BANDS_PER_OCTAVE = 2


@dataclass(frozen=True)
class RadialSpectrum:
    """Power by wavelength of forecast and truth, over all directions; a table of its own.

    Columns as of `power_spectrum`: `wavelength_km`, `power`, `true_power` (variance in each band,
    in squares of `units`), by lead time. Cells that are missing in either count as zero in both.
    Of an ensemble, the mean of the members' power.
    """

    requires: ClassVar[tuple[str, ...]] = ()

    def score(self, forecast: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
        """Power of one forecast, lead by lead."""
        grid = grid_of(truth)
        bands = partial(band_power, spacing=grid.cell_km, periodic=grid.continuation.wraps)
        tables = []
        for channel, members, observed in members_of(forecast, truth):
            known = np.isfinite(observed) & np.isfinite(members).all(axis=0)
            true = bands(np.where(known, observed, 0.0))
            own = [bands(np.where(known, member, 0.0)) for member in members]
            for lead, time in enumerate(forecast.lead_time.values):
                table = pd.DataFrame(
                    {
                        "wavelength_km": true[0],
                        "power": np.mean([power[lead] for _, power in own], axis=0),
                        "true_power": true[1][lead],
                    }
                )
                units = truth[channel].attrs.get("units", "")
                tables.append(table.assign(variable=channel, lead_time=time, units=units))
        return pd.concat(tables, ignore_index=True)

    def summarise(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The mean over all initialisations."""
        keys = ["variable", "lead_time", "wavelength_km", "units"]
        groups = scores.groupby(keys, sort=False, observed=True)
        return groups[["power", "true_power"]].mean().assign(n=groups.size()).reset_index()


def band_power(
    fields: Real, spacing: tuple[float, float], *, periodic: bool = False
) -> tuple[Real, Real]:
    """Mean wavelength (km) of each band, and power (L, band) of fields (L, H, W).

    The sum over bands is the variance of the field. spacing: km between rows and columns.
    periodic: whether rows go on at their ends, as round the Earth; they are then Fourier's.
    """
    rows, columns = fields.shape[1:]
    precise = fields.astype("float64")
    if periodic:
        waves = np.fft.fft(precise, axis=2, norm="forward")
        parts = (dct(part, axis=1, norm="ortho") for part in (waves.real, waves.imag))
        power, along = sum(part**2 for part in parts) / rows, np.abs(np.fft.fftfreq(columns))
    else:
        power = dctn(precise, axes=(1, 2), norm="ortho") ** 2 / (rows * columns)
        along = np.arange(columns) / (2 * columns)
    down = np.arange(rows) / (2 * rows)
    number = np.hypot(down[:, None] / spacing[0], along / spacing[1]).ravel()[1:]  # per km
    band = np.floor(BANDS_PER_OCTAVE * np.log2(number / number.min()) + 1e-9).astype("int64")
    _, band = np.unique(band, return_inverse=True)
    wavelength = np.exp(-np.bincount(band, weights=np.log(number)) / np.bincount(band))
    flat = power.reshape(len(fields), -1)[:, 1:]
    return wavelength, np.stack([np.bincount(band, weights=each) for each in flat])
