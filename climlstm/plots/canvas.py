"""Fields resampled onto the pixels of a map: one way of drawing that is right on every projection.

Each pixel of the map is taken back to its longitude and latitude, and the field is read there.
So no cell can be torn at the seam, dropped at a pole or folded over the edge of the globe, as
happens when cells or contours are carried forward onto the map; and it is fast, since the cost
is that of the pixels and not of the polygons.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from numpy.typing import NDArray
from scipy import ndimage

from climlstm.grid import Grid, grid_of
from climlstm.grid.sphere import unit_vectors
from climlstm.plots.locate import MARGIN, Cells, locate, widen

Shading = Literal["smooth", "cells"]
"""Interpolated between grid points, or every grid cell as it is."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Evenly spaced points on a map, x to the right and y upwards, and where on Earth they are."""

    x: Array
    """(X), in the units of the projection."""
    y: Array
    """(Y)"""
    longitude: Array
    """(Y, X), degrees east. Off the globe: that of the nearest point on it, so that the outline
    of the map cuts the picture and not a missing pixel."""
    latitude: Array
    """(Y, X), degrees north."""

    @property
    def width_deg(self) -> float:
        """Degrees of a great circle along the middle row, across what is seen of the Earth."""
        row = self.latitude.shape[0] // 2
        places = unit_vectors(self.latitude[row], self.longitude[row])
        steps = np.linalg.norm(np.diff(places, axis=0), axis=-1)
        return float(np.rad2deg(2 * np.arcsin(np.clip(steps / 2, 0, 1))).sum())

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of the outermost pixels."""
        dx, dy = (self.x[1] - self.x[0]) / 2, (self.y[1] - self.y[0]) / 2
        return self.x[0] - dx, self.x[-1] + dx, self.y[0] - dy, self.y[-1] + dy


def canvas_of(ax: GeoAxes, *, pixels: float = 1.0) -> Canvas:
    """The canvas of a map with one point for so many pixels of it, as large as it is now drawn."""
    ax.apply_aspect()
    box = ax.get_window_extent()
    width, height = (max(16, round(size / pixels)) for size in (box.width, box.height))
    return _canvas(ax.projection, (*ax.get_xlim(), *ax.get_ylim()), width, height)


@lru_cache(maxsize=16)
def _canvas(
    projection: ccrs.Projection, limits: tuple[float, float, float, float], width: int, height: int
) -> Canvas:
    left, right, bottom, top = limits
    x = left + (right - left) * (np.arange(width) + 0.5) / width
    y = bottom + (top - bottom) * (np.arange(height) + 0.5) / height
    points = ccrs.PlateCarree().transform_points(projection, *np.meshgrid(x, y))
    longitude, latitude = points[..., 0], points[..., 1]
    off_globe = ~(np.isfinite(longitude) & np.isfinite(latitude))
    if off_globe.any():
        nearest = ndimage.distance_transform_edt(
            off_globe, return_distances=False, return_indices=True
        )
        longitude, latitude = longitude[tuple(nearest)], latitude[tuple(nearest)]
    return Canvas(x, y, longitude, latitude)


@lru_cache(maxsize=8)
def _cells(grid: Grid, canvas: Canvas) -> Cells:
    """The panels of a sheet share one grid and one canvas."""
    return locate(grid, canvas.latitude, canvas.longitude)


class Sampler:
    """Reads fields of one grid at the points of one canvas; made once, used for every frame."""

    def __init__(self, field: xr.DataArray, canvas: Canvas, shading: Shading) -> None:
        """field: on the grid in question, in the order that `as_field` gives."""
        self.grid = grid_of(field)
        self.shading = shading
        self.cells = _cells(self.grid, canvas)

    def __call__(self, values: NDArray[np.floating]) -> Array:
        """The field (H, W) at the points of the canvas (Y, X); NaN where there are no data.

        Smooth shading interpolates, with a cubic spline where the grid is coarser than the canvas,
        kept within the extremes of the field: nothing is painted that is not there.
        """
        cells = self.cells
        missing = ~np.isfinite(values)
        if self.shading == "cells":
            sampled = values[cells.nearest]
        else:
            filled = _fill(values.astype("float64"), missing)
            sampled = ndimage.map_coordinates(
                widen(self.grid, filled),
                [cells.row + MARGIN, cells.column + MARGIN],
                order=3 if cells.are_coarse else 1,
                mode="nearest",
            )
            sampled = np.clip(sampled, filled.min(), filled.max())
        return np.where(cells.inside & ~missing[cells.nearest], sampled, np.nan)


def _fill(values: Array, missing: NDArray[np.bool_]) -> Array:
    """Missing values replaced by their nearest neighbours', so that interpolation goes up to
    the edge of what is known."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return values[tuple(nearest)]
