"""Power of two fields, and what they share, by wavenumber: zonal ones, and those of the sphere."""

import functools
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights
from climlstm.simulation.spherical import legendre


class Spectra(NamedTuple):
    """Power of forecast and of truth, and their cospectrum, (B, L, C, wavenumber) each."""

    own: Tensor
    true: Tensor
    cross: Tensor


def zonal_spectra(prediction: Tensor, target: Tensor, weight: Tensor) -> Spectra:
    """Spectra by zonal wavenumber 0 … W // 2, as weighted means over rows.

    They sum up over wavenumbers to the weighted mean squares and mean product of the fields. On a
    region, a wave of number 1 spans the region.

    prediction, target: (B, L, C, H, W), without NaN; weight: (C, H, W).
    """
    root = weight.sqrt()
    waves = [torch.fft.rfft(root * f, dim=-1, norm="forward") for f in (prediction, target)]
    sides = _sides(target.shape[-1] // 2 + 1, target)
    return Spectra(*((sides * power).mean(dim=-2) for power in _products(*waves)))


def total_spectra(prediction: Tensor, target: Tensor, weight: Tensor) -> Spectra:
    """Spectra by total wavenumber 0 … N of spherical harmonics, scaled to the mean over the sphere.

    A field of the first N + 1 degrees is taken apart exactly; N is what the rows and columns of the
    grid can tell apart. Each channel counts by its weight relative to area.

    prediction, target: (B, L, C, H, W), without NaN; weight: (C, H, W), proportional to area
    wherever it is not zero. Raises DataError where that is not the weight of a global grid.
    """
    columns = target.shape[-1]
    latitude, factor = _grid_of(weight)
    analysis = torch.from_numpy(_analysis(latitude, columns)).to(target)
    orders = analysis.shape[0]
    sides = _sides(orders, target)[:, None]
    coefficients = []
    for field in (prediction, target):
        waves = torch.fft.rfft(field, dim=-1, norm="forward")[..., :orders]
        parts = torch.view_as_real(waves)
        found = torch.einsum("mnh,blchmp->blcmnp", analysis, parts)
        coefficients.append(torch.view_as_complex(found.contiguous()))
    powers = ((sides * power).sum(dim=-2) for power in _products(*coefficients))
    return Spectra(*(factor[:, None] * power for power in powers))


def _products(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    squares = (wave.real.square() + wave.imag.square() for wave in (first, second))
    return (*squares, first.real * second.real + first.imag * second.imag)


def _sides(waves: int, like: Tensor) -> Tensor:
    """Number of times that a wave of a real field counts: at negative wavenumbers, too."""
    sides = torch.full((waves,), 2.0, device=like.device, dtype=like.dtype)
    sides[0] = 1  # the mean, and below the shortest wave, stand for themselves alone
    if like.shape[-1] % 2 == 0:
        sides[like.shape[-1] // 2 :] = 1
    return sides


def _grid_of(weight: Tensor) -> tuple[tuple[float, ...], Tensor]:
    """Latitudes of the global grid whose areas a weight (C, H, W) has, and each channel's factor.

    The factor is the mean weight of observed cells of mean area.
    """
    there = weight > 0
    for latitude in _global_latitudes(weight.shape[-2]):
        area = xr.DataArray(np.array(latitude), dims="latitude")
        row = torch.from_numpy(cell_area_weights(area).values).to(weight)[:, None]
        ratio = torch.where(there, weight / row, 0.0)
        factor = ratio.amax(dim=(-2, -1))
        even = torch.where(there, (ratio - factor[:, None, None]).abs(), 0.0)
        if bool((even <= 1e-3 * factor[:, None, None]).all()):
            return latitude, factor
    raise DataError(
        f"The weights of these {weight.shape[-2]} rows are not the areas of a global grid: with "
        "rows at equal distances, with or without the poles, or Gaussian ones. Set the loss's "
        "option 'waves' to 'zonal'."
    )


def _global_latitudes(rows: int) -> list[tuple[float, ...]]:
    half = 90 / rows
    regular = np.linspace(90 - half, -90 + half, rows)
    gaussian = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0][::-1]))
    with_poles = [np.linspace(90, -90, rows)] if rows > 3 else []
    return [tuple(each.tolist()) for each in (regular, *with_poles, gaussian)]


@functools.lru_cache(maxsize=4)
def _analysis(latitude: tuple[float, ...], columns: int) -> np.ndarray:
    """(m, n, row): from Fourier coefficients of the rows to those of spherical harmonics.

    By least squares over the rows, each weighted by its area: unlike a quadrature of such rows it
    is exact up to the highest degree, two below the number of rows between the poles.
    """
    phi = np.deg2rad(np.array(latitude))
    between = int((np.abs(phi) < np.pi / 2 - 1e-6).sum())
    degree = max(between - 2, 1)
    orders = min(degree, columns // 2) + 1
    values, _ = legendre(degree, np.sin(phi))
    root = np.sqrt(cell_area_weights(xr.DataArray(np.array(latitude), dims="latitude")).values)
    found = np.zeros((orders, degree + 1, phi.size), dtype="float64")
    for m in range(orders):
        found[m, m:] = np.linalg.pinv((values[m, m:] * root).T) * root
    return found
