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
from climlstm.grid import EARTH_RADIUS_KM, has_pole_row, is_periodic, reaches_pole

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
    """function(values..., grid) of arrays (…, latitude, longitude), for Dask block by block."""
    grid = Grid(fields[0]["latitude"].values, fields[0]["longitude"].values)
    whole = [f.chunk(dict.fromkeys(PLANE, -1)) if f.chunks else f for f in fields]
    return xr.apply_ufunc(
        lambda *values: function(*values, grid),
        *whole,
        input_core_dims=[PLANE] * len(fields),
        output_core_dims=[PLANE],
        dask="parallelized",
        output_dtypes=[np.result_type(*(f.dtype for f in fields), np.float32)],
    )


class Grid:
    """Differences on one grid; arrays are (…, latitude, longitude)."""

    def __init__(self, latitude: Array, longitude: Array) -> None:
        """Raises DataError for a grid on which no derivative can be taken."""
        if latitude.size < 3 or longitude.size < 3:
            raise DataError(
                f"Derivatives need 3 rows and 3 columns at least, but the grid has {latitude.size} "
                f"rows and {longitude.size} columns. Choose a larger region."
            )
        self.downward = latitude[0] > latitude[-1]
        south_up = latitude[::-1] if self.downward else latitude
        self.westward = longitude[0] > longitude[1]
        eastward = longitude[::-1] if self.westward else longitude
        self.periodic = is_periodic(np.unwrap(eastward, period=360))
        self.half_turn = longitude.size // 2
        even = longitude.size % 2 == 0
        self.poles = [
            self.periodic and even and reaches_pole(south_up, pole) for pole in (-90.0, 90.0)
        ]
        self.on_pole = [self.periodic and has_pole_row(south_up, pole) for pole in (-90.0, 90.0)]
        if not self.periodic and any(has_pole_row(south_up, pole) for pole in (-90.0, 90.0)):
            raise DataError(
                f"A row from {longitude[0]:g} to {longitude[-1]:g} degrees east lies on a pole, "
                "where there is no east, and the longitudes do not close the circle. Choose a "
                "region that stops short of the pole, or the whole circle."
            )
        self.phi = np.deg2rad(south_up.astype("float64"))
        self.lam = np.deg2rad(np.unwrap(eastward.astype("float64"), period=360))
        parallel = np.cos(self.phi)
        for row, on_pole in zip((0, -1), self.on_pole, strict=True):
            if on_pole:
                parallel[row] = np.inf  # these rows are dealt with apart
        self.parallel = parallel[:, None]

    def gradient(self, field: Array) -> tuple[Array, Array]:
        """Eastward and northward derivative of a scalar, per m."""
        f = self._oriented(field)
        east = self._along_longitude(f) / (RADIUS_M * self.parallel)
        north = self._along_latitude(f, sign=1.0) / RADIUS_M
        for row, on_pole in zip((0, -1), self.on_pole, strict=True):
            if on_pole:
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
        for row, on_pole in zip((0, -1), self.on_pole, strict=True):
            if on_pole:
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
        """Of fourth order, since near a pole it is divided by cos φ; of second beside an edge."""
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
        if self.poles[0]:
            inner = 1 if self.on_pole[0] else 0
            rows.insert(0, sign * self._opposite(f[..., inner, :]))
            phi.insert(0, np.array([-np.pi - self.phi[inner]]))
        if self.poles[1]:
            inner = -2 if self.on_pole[1] else -1
            rows.append(sign * self._opposite(f[..., inner, :]))
            phi.append(np.array([np.pi - self.phi[inner]]))
        slope = np.gradient(
            np.concatenate(rows, axis=-2), np.concatenate(phi), axis=-2, edge_order=2
        )
        return slope[..., int(self.poles[0]) : slope.shape[-2] - int(self.poles[1]), :]

    def _opposite(self, row: Array) -> Array:
        """A row on the other side of the pole, with a dimension for latitude."""
        return np.roll(row, self.half_turn, axis=-1)[..., None, :]

    def _oriented(self, field: Array) -> Array:
        """South to north and eastward, in float64: differences of close numbers are wanted."""
        field = field[..., ::-1, :] if self.downward else field
        return (field[..., ::-1] if self.westward else field).astype("float64")

    def _back(self, field: Array, like: Array) -> Array:
        field = field[..., ::-1, :] if self.downward else field
        return (field[..., ::-1] if self.westward else field).astype(
            np.result_type(like.dtype, np.float32)
        )
