"""Derivatives on the latitude-longitude grid by finite differences, of second order everywhere.

Where the longitudes close the circle and rows reach a pole, rows continue beyond it on the meridian
half a turn away, where eastward and northward have turned round: components of vectors change
sign there, scalars do not. At the edge of a region differences are one-sided, of second order too.

A row on a pole has no east. There divergence and curl follow from Gauss's and Stokes' theorems on
the cap that the next row encloses, and a scalar's gradient from differences along all meridians.

All take DataArrays with dimensions latitude and longitude (degrees, monotonic), lazy in, lazy out.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.grid import EARTH_RADIUS_KM, LatLon

RADIUS_M = 1000 * EARTH_RADIUS_KM

Array = np.ndarray
PLANE = ["latitude", "longitude"]


def gradient(field: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Eastward and northward derivative of a scalar, per m."""
    east = _apply(lambda f, grid: grid.gradient(f)[0], field)
    north = _apply(lambda f, grid: grid.gradient(f)[1], field)
    return east, north


def divergence(east: xr.DataArray, north: xr.DataArray) -> xr.DataArray:
    """(∂u/∂λ + ∂(v cos φ)/∂φ) / (a cos φ) of a vector field, per m (Holton 2004, eq. 4.10)."""
    return _apply(lambda u, v, grid: grid.divergence(u, v), east, north)


def curl(east: xr.DataArray, north: xr.DataArray) -> xr.DataArray:
    """(∂v/∂λ - ∂(u cos φ)/∂φ) / (a cos φ) of a vector field, per m; of wind: its vorticity."""
    return _apply(lambda u, v, grid: grid.divergence(v, -u), east, north)


def advection(east: xr.DataArray, north: xr.DataArray, field: xr.DataArray) -> xr.DataArray:
    """(u, v) · ∇ field, per m, of a scalar."""
    along, across = gradient(field)
    return east * along + north * across


def _apply(function: Callable[..., Array], *fields: xr.DataArray) -> xr.DataArray:
    """function(values..., differences) of arrays (…, latitude, longitude), for Dask by blocks."""
    grid = Differences(fields[0]["latitude"].values, fields[0]["longitude"].values)
    whole = [f.chunk(dict.fromkeys(PLANE, -1)) if f.chunks else f for f in fields]
    return xr.apply_ufunc(
        lambda *values: function(*values, grid),
        *whole,
        input_core_dims=[PLANE] * len(fields),
        output_core_dims=[PLANE],
        dask="parallelized",
        output_dtypes=[np.result_type(*(f.dtype for f in fields), np.float32)],
    )


class Differences:
    """Finite differences on one grid; arrays are (…, latitude, longitude)."""

    def __init__(self, latitude: Array, longitude: Array) -> None:
        """Raises DataError for a grid on which no derivative can be taken."""
        if latitude.size < 3 or longitude.size < 3:
            raise DataError(
                f"Derivatives need 3 rows and 3 columns at least, but the grid has {latitude.size} "
                f"rows and {longitude.size} columns. Choose a larger region."
            )
        rows = slice(None, None, -1 if latitude[0] > latitude[-1] else 1)
        columns = slice(None, None, -1 if longitude[0] > longitude[1] else 1)
        self.order = (..., rows, columns)
        latitude = latitude[rows].astype("float64")
        longitude = np.unwrap(longitude[columns].astype("float64"), period=360)
        beyond = LatLon(latitude, longitude).continuation
        self.periodic = beyond.wraps
        even = longitude.size % 2 == 0
        self.goes_on = [even and pole != "ends" for pole in (beyond.south, beyond.north)]
        ends = zip((0, -1), (beyond.south, beyond.north), strict=True)
        self.pole_rows = [row for row, pole in ends if pole == "point"]
        if not self.periodic and np.isclose(np.abs(latitude), 90, atol=1e-3).any():
            raise DataError(
                f"A row from {longitude[0]:g} to {longitude[-1]:g} degrees east lies on a pole, "
                "where there is no east, and the longitudes do not close the circle. Choose a "
                "region that stops short of the pole, or the whole circle."
            )
        self.phi, self.lam = np.deg2rad(latitude), np.deg2rad(longitude)
        self.parallel = np.cos(self.phi)[:, None]
        self.parallel[self.pole_rows] = np.inf  # rows on a pole are dealt with apart

    def gradient(self, field: Array) -> tuple[Array, Array]:
        """Eastward and northward derivative of a scalar, per m."""
        f = self._oriented(field)
        east = self._along_longitude(f) / (RADIUS_M * self.parallel)
        north = self._along_latitude(f, sign=1.0) / RADIUS_M
        for row in self.pole_rows:
            along, across = self._at_pole(north[..., row, :], south=row == 0)
            east[..., row, :], north[..., row, :] = along, across
        return self._back(east, field), self._back(north, field)

    def divergence(self, east: Array, north: Array) -> Array:
        """(∂u/∂λ + ∂(v cos φ)/∂φ) / (a cos φ), per m."""
        u, v = self._oriented(east), self._oriented(north)
        # not as the flux v cos φ: its difference, divided by cos φ, is of first order near a pole
        spreading = self._along_latitude(v, sign=-1.0)
        sines = np.sin(self.phi)[:, None]
        total = (spreading + (self._along_longitude(u) - v * sines) / self.parallel) / RADIUS_M
        for row in self.pole_rows:
            total[..., row, :] = self._cap(v, south=row == 0)[..., None]
        return self._back(total, east)

    def _cap(self, v: Array, *, south: bool) -> Array:
        """Mean divergence of the cap between a pole and the next row: outflow over area.

        The circumference 2π a cos φ over the area 2π a² (1 - |sin φ|). To second order the flow
        through the rim is linear in the distance from the pole.
        """
        row = 1 if south else -2
        outflow = v[..., row, :].mean(axis=-1) * (1 if south else -1)
        return outflow * np.cos(self.phi[row]) / (RADIUS_M * (1 - abs(np.sin(self.phi[row]))))

    def _at_pole(self, north: Array, *, south: bool) -> tuple[Array, Array]:
        """Gradient of a scalar at a pole, in the frame of each meridian.

        One vector seen from all meridians is a wave of zonal number 1, so no other wave of the
        differences along the meridians is kept. East is where the next meridian leads a quarter of
        a turn further: away from the pole in the south, towards it in the north.
        """
        wave = np.fft.rfft(north, axis=-1)
        wave[..., 0] = 0
        wave[..., 2:] = 0
        turned = wave * (1j if south else -1j)
        return tuple(np.fft.irfft(w, n=north.shape[-1], axis=-1) for w in (turned, wave))

    def _along_longitude(self, f: Array) -> Array:
        """Derivative by longitude, of fourth order; of second beside an edge.

        The fourth order is needed near a pole, where it is divided by cos φ.
        """
        if self.periodic:
            spacing = 2 * np.pi / f.shape[-1]
            near, far = (np.roll(f, -n, axis=-1) - np.roll(f, n, axis=-1) for n in (1, 2))
            return (8 * near - far) / (12 * spacing)
        slope = np.gradient(f, self.lam, axis=-1, edge_order=2)
        steps = np.diff(self.lam)
        if self.lam.size >= 5 and np.allclose(steps, steps[0]):
            near = f[..., 3:-1] - f[..., 1:-3]
            far = f[..., 4:] - f[..., :-4]
            slope[..., 2:-2] = (8 * near - far) / (12 * steps[0])
        return slope

    def _along_latitude(self, f: Array, *, sign: float) -> Array:
        """Derivative by latitude; sign: of the field as it is continued beyond a pole."""
        rows, phi = [f], [self.phi]
        for end, step in ((0, 1), (-1, -1)):
            if self.goes_on[end]:
                inner = end + step if end in self.pole_rows else end
                opposite = np.roll(f[..., [inner], :], f.shape[-1] // 2, axis=-1)
                place = len(rows) * -end  # before the first row, after the last one
                rows.insert(place, sign * opposite)
                phi.insert(place, np.array([-step * np.pi - self.phi[inner]]))
        slope = np.gradient(
            np.concatenate(rows, axis=-2), np.concatenate(phi), axis=-2, edge_order=2
        )
        return slope[..., int(self.goes_on[0]) :, :][..., : f.shape[-2], :]

    def _oriented(self, field: Array) -> Array:
        """South to north and eastward, in float64: differences of close numbers are wanted."""
        return field[self.order].astype("float64")

    def _back(self, field: Array, like: Array) -> Array:
        return field[self.order].astype(np.result_type(like.dtype, np.float32))
